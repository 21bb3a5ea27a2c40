"""Locks and memory that survive a fork.

A forked child has all the memory of its parent, but only the thread that forked. A lock that any
other thread held at that moment stays locked there for ever, and what it guards may be half
changed. `lock()` makes locks without that problem; `reset_in_child()` drops what is of no use to a
child, such as a list of threads that wait.
"""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

_guard: Final = threading.Lock()
_locks: Final["weakref.WeakSet[threading.Lock]"] = weakref.WeakSet()
_held: Final[list[threading.Lock]] = []
_CAN_FORK: Final = hasattr(os, "register_at_fork")  # not on Windows


def lock() -> threading.Lock:
    """Return a lock that is free in a child, with what it guards in a sound state.

    The thread that forks takes all such locks before, in any order, and releases them after. So
    none may be held during I/O, nor while waiting for another one, nor by the thread that forks.
    """
    made = threading.Lock()
    with _guard:
        _locks.add(made)
    return made


def reset_in_child(reset: Callable[[], object]) -> None:
    """Call `reset` in every child, once the locks are free."""
    if _CAN_FORK:
        os.register_at_fork(after_in_child=reset)


def _take_all() -> None:
    _guard.acquire()
    for each in _locks:
        each.acquire()
        _held.append(each)


def _release_all() -> None:
    while _held:
        _held.pop().release()
    _guard.release()


if _CAN_FORK:  # first of all, because what is registered first is called first in a child
    os.register_at_fork(before=_take_all, after_in_parent=_release_all, after_in_child=_release_all)
