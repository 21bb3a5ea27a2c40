"""The calculation of docs/scale.md: what so many conversations an hour take of Redis."""

import math
from dataclasses import dataclass, field
from typing import Any


def _named(meaning: str, **options: Any) -> Any:
    return field(metadata={"meaning": meaning}, **options)


@dataclass(frozen=True)
class Inputs:
    """What a project knows of its conversations and its servers."""

    conversations_per_hour: float = _named("that begin in an hour", default=1_000_000)
    turns: float = _named("of one conversation, of two messages each", default=6)
    message_bytes: float = _named("of the JSON of one message", default=500)
    duration: float = _named("seconds from the first turn to the last", default=600)
    ttl: float = _named("seconds that it is kept after that: `TTL`", default=3600)
    shard_bytes: float = _named("that one server shall keep", default=8_000_000_000)
    shard_load: float = _named("of its one processor that it shall use", default=0.5)


@dataclass(frozen=True)
class Constants:
    """What was measured."""

    conversation_bytes: float = _named("of a conversation without its messages")
    beside_message_bytes: float = _named("of a message beside its JSON")
    turn_us: float = _named("microseconds of the server's processor for a turn")


@dataclass(frozen=True)
class Needs:
    """What Redis needs for that."""

    conversations: float = _named("that are there at the same time")
    memory: float = _named("bytes of them all")
    turns_per_second: float = _named("on average")
    commands_per_second: float = _named("on average")
    processors: float = _named("of all servers together")
    shards: int = _named("primaries")


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
