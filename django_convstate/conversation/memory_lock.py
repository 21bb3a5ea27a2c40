"""The lock of what is in memory of a conversation, for threads that share it."""

from threading import RLock
from typing import Any


class MemoryLock:
    """A re-entrant lock: the collector may close a stream, which appends, at any point of ours. It
    is held for pure memory only, and never while something is read or sent, so that it may be taken
    in an event loop. A copy of its holder, in a pickle or another, gets one of its own."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryLock, ()
