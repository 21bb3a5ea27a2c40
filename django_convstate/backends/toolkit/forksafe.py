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
from types import MethodType
from typing import Final

_guard: Final = threading.Lock()
_locks: Final["weakref.WeakSet[threading.Lock]"] = weakref.WeakSet()
_resets: Final[set[Callable[[], Callable[[], object] | None]]] = set()
_held: Final[list[threading.Lock]] = []


def lock() -> threading.Lock:
    """Return a lock that is free in a child, with what it guards in a sound state.

    The thread that forks takes all such locks before, and releases them after. So none may be held
    during I/O, nor while waiting for another one, nor by the thread that forks.
    """
    made = threading.Lock()
    with _guard:
        _locks.add(made)
    return made


def reset_in_child(reset: Callable[[], object]) -> None:
    """Call `reset` in every child, once the locks are free. A method does not keep its object alive
    by this; it is called for as long as there is the object."""
    if isinstance(reset, MethodType):
        _resets.add(weakref.WeakMethod(reset, _resets.discard))
    else:
        _resets.add(lambda: reset)


def _before_fork() -> None:
    _guard.acquire()
    for each in _locks:
        each.acquire()
        _held.append(each)


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _guard.release()


def _in_child() -> None:
    _after_fork()
    for reference in list(_resets):
        if (reset := reference()) is not None:
            reset()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
