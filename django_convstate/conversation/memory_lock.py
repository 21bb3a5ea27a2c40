"""The lock of what is in memory of a conversation, for threads that share it."""

from threading import RLock
from typing import Any, Final
from weakref import WeakSet

from ..backends.toolkit import forksafe


class MemoryLock:
    """A re-entrant lock: the collector may close a stream, which appends, at any point of ours. It
    is held for pure memory only, and never while something is read or sent, so that it may be taken
    in an event loop. A copy of its holder, in a pickle or another, gets one of its own."""

    __slots__ = ("__weakref__", "held")

    def __init__(self) -> None:
        self.held = RLock()
        _locks.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryLock, ()


_locks: Final[WeakSet[MemoryLock]] = WeakSet()


def _renew_all() -> None:
    """Free all locks in a forked process, which has none of the threads that may hold them."""
    for each in list(_locks):
        each.held = RLock()


forksafe.reset_in_child(_renew_all)
