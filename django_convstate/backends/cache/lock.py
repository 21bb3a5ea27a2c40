"""A short lock on one conversation, made of `cache.add`.

It expires: if its holder dies, the cache drops it after `LOCK_TTL` seconds. The holder writes only
in the first half of that time, so that it never writes while another one holds the lock.

The threads of one process queue up before they ask the cache, so that one of them polls and not
all, and so that they are served as they came.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.files import locks

from ...exceptions import BackendUnavailable, ConversationBusy
from ..toolkit import forksafe

LOCK_TTL: Final = 4  # whole seconds, because most caches know no others
ACQUIRE_TIMEOUT: Final = 5.0  # seconds; above LOCK_TTL: a dead holder costs time, not an error
SHORTEST_POLL_WAIT: Final = 0.0005  # seconds, doubled each time up to the longest
LONGEST_POLL_WAIT: Final = 0.02


class Lock:
    """A lock that is held, since `time.monotonic()` said `since`."""

    def __init__(self, since: float) -> None:
        self.since = since

    @property
    def is_safe(self) -> bool:
        """Whether there is time enough for a write before the lock expires."""
        return time.monotonic() - self.since < LOCK_TTL / 2

    def check(self) -> None:
        """Raise `BackendUnavailable` if holding on would risk two writers at a time."""
        if not self.is_safe:
            raise BackendUnavailable(
                f"The cache took more than {LOCK_TTL / 2:g} s to read a conversation. "
                "Nothing was written."
            )


@contextmanager
def hold(cache: BaseCache, key: str) -> Iterator[Lock]:
    """Hold the lock `key` for the length of a with block.

    Raises:
        ConversationBusy: others held it for `ACQUIRE_TIMEOUT` seconds.
    """
    deadline = time.monotonic() + ACQUIRE_TIMEOUT
    with _at_head(cache.make_key(key), deadline):
        lock = _acquire(cache, key, deadline)
        try:
            yield lock
        finally:
            if lock.is_safe:  # else it has expired, or soon will, and another may hold it
                cache.delete(key)


def _acquire(cache: BaseCache, key: str, deadline: float) -> Lock:
    wait = SHORTEST_POLL_WAIT
    while True:
        since = time.monotonic()
        if _add(cache, key):
            return Lock(since)
        if since > deadline:
            raise _busy()
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads waiters, hides nothing
        wait = min(wait * 2, LONGEST_POLL_WAIT)


def _add(cache: BaseCache, key: str) -> bool:
    if not isinstance(cache, FileBasedCache):
        return cache.add(key, 1, LOCK_TTL)
    # Its `add` looks and then writes, so two callers may both succeed. A file lock around it, held
    # for no longer than that, makes it atomic.
    directory = cache._dir  # type: ignore[attr-defined]
    with Path(directory, "convstate.lock").open("wb") as file:
        try:
            if not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
                return False
        except BlockingIOError:
            return False
        return cache.add(key, 1, LOCK_TTL)


def _busy() -> ConversationBusy:
    return ConversationBusy(
        f"Others kept this conversation busy for {ACQUIRE_TIMEOUT:g} s. Nothing was written."
    )


# For each lock, the threads of this process that want it, in the order in which they came.
_waiting: Final[dict[str, deque[threading.Event]]] = {}
_guard: Final = forksafe.lock()
forksafe.reset_in_child(_waiting.clear)  # a child has none of those threads


@contextmanager
def _at_head(key: str, deadline: float) -> Iterator[None]:
    """Wait until this thread is the first in the queue, and stay so for the length of a with block.

    Raises:
        ConversationBusy: that took until `deadline`, by the monotonic clock.
    """
    mine = threading.Event()
    with _guard:
        queue = _waiting.setdefault(key, deque())
        queue.append(mine)
        queue[0].set()
    try:
        if not mine.wait(deadline - time.monotonic()):
            raise _busy()
        yield
    finally:
        with _guard:
            queue.remove(mine)
            if queue:
                queue[0].set()
            else:
                del _waiting[key]
