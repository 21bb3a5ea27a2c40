"""The calculation of docs/scale.md: what so many conversations an hour take of Redis."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Inputs:
    """What a project knows of its conversations and its servers. Times are seconds."""

    conversations_per_hour: float = 1_000_000
    turns: float = 6  # of a conversation; each appends two messages
    message_bytes: float = 500  # of its JSON
    duration: float = 600  # from the first turn to the last
    ttl: float = 3600
    shard_bytes: float = 8 * 2**30  # that a server shall keep
    shard_load: float = 0.5  # of its one processor


@dataclass(frozen=True)
class Constants:
    """What was measured."""

    conversation_bytes: float  # without its messages
    beside_message_bytes: float  # in addition to a message's own
    turn_us: float  # microseconds of the server's processor


@dataclass(frozen=True)
class Needs:
    """What Redis needs for that."""

    conversations: float  # that are there at the same time
    memory: float  # bytes
    turns_per_second: float
    commands_per_second: float
    processors: float
    shards: int


def needs(inputs: Inputs, constants: Constants) -> Needs:
    conversations = inputs.conversations_per_hour / 3600 * (inputs.duration + inputs.ttl)
    message = inputs.message_bytes + constants.beside_message_bytes
    memory = conversations * (constants.conversation_bytes + 2 * inputs.turns * message)
    turns_per_second = inputs.conversations_per_hour * inputs.turns / 3600
    processors = turns_per_second * constants.turn_us / 1e6
    return Needs(
        conversations=conversations,
        memory=memory,
        turns_per_second=turns_per_second,
        commands_per_second=2 * turns_per_second,
        processors=processors,
        shards=max(
            math.ceil(memory / inputs.shard_bytes), math.ceil(processors / inputs.shard_load)
        ),
    )
