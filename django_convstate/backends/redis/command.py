"""One round trip to Redis: a command, and what the server's reply means."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .scripts import Script

T = TypeVar("T")
Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One round trip: a command, and what its reply means.

    Attributes:
        command: what is sent.
        read: returns what the server's reply means, or raises our exception for it.
        script: which script the command runs by its SHA-1; None for a plain command.
    """

    command: tuple[Argument, ...] = field(repr=False)
    read: Callable[[Any], "Reply[T]"] = field(repr=False)
    script: Script | None = None

    @property
    def key(self) -> Argument:
        """The first key, which says which node of a cluster to ask."""
        return self.command[1 if self.script is None else 3]

    def full_command(self) -> tuple[Argument, ...]:
        """Return the command with the text of its script, for a server that may not know it."""
        if self.script is None:
            return self.command
        return str(self.command[0]).replace("SHA", ""), self.script.text, *self.command[2:]


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What the server's reply means. `then` is what remains to be done, in a round trip of its own
    because an owner's index lives in another slot. It may fail: the next caller does it."""

    value: T = field(repr=False)
    then: Operation[None] | None = None


def script_operation(
    script: Script,
    keys: tuple[str, ...],
    arguments: Iterable[Argument],
    read: Callable[[Any], Reply[T]],
) -> Operation[T]:
    return Operation(("EVALSHA", script.sha, len(keys), *keys, *arguments), read, script)


def milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def ttl_ms(ttl: float) -> int:
    return 0 if math.isinf(ttl) else math.ceil(ttl * 1000)


def nothing(reply: Any) -> Reply[None]:
    return Reply(None)
