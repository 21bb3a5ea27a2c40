"""A short lock on one conversation, made of `cache.add`.

It cannot be held for ever: the cache lets go of it after `LEASE` seconds, should its holder die.
The holder, for its part, writes only in the first half of that time, so that it never writes into
somebody else's turn.

The threads of one process line up before they ask the cache, so that one of them polls and not all,
and so that they are served as they came.
"""

import os
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

LEASE: Final = 4  # whole seconds, because most caches know no others
PATIENCE: Final = 5.0  # seconds; longer than the lease: a dead holder costs time, not an error
LONGEST_PAUSE: Final = 0.02


class Lock:
    """A lock that is held, since `time.monotonic()` said `since`."""

    def __init__(self, since: float) -> None:
        self.since = since

    @property
    def is_safe(self) -> bool:
        return time.monotonic() - self.since < LEASE / 2

    def check(self) -> None:
        """Raise `BackendUnavailable` if holding on would risk two writers at a time."""
        if not self.is_safe:
            raise BackendUnavailable(
                f"The cache took more than {LEASE / 2:g} s to read a conversation. "
                "Nothing was written."
            )


@contextmanager
def hold(cache: BaseCache, key: str) -> Iterator[Lock]:
    """Hold the lock `key` for the length of a with block.

    Raises:
        ConversationBusy: others held it for `PATIENCE` seconds.
    """
    give_up = time.monotonic() + PATIENCE
    with _lines.turn(cache.make_key(key), give_up):
        lock = _acquire(cache, key, give_up)
        try:
            yield lock
        finally:
            if lock.is_safe:  # else it has expired, or will, and may be somebody else's by now
                cache.delete(key)


def _acquire(cache: BaseCache, key: str, give_up: float) -> Lock:
    pause = 0.0005
    while True:
        since = time.monotonic()
        if _add(cache, key):
            return Lock(since)
        if since > give_up:
            raise _busy()
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads waiters, hides nothing
        pause = min(pause * 2, LONGEST_PAUSE)


def _add(cache: BaseCache, key: str) -> bool:
    if not isinstance(cache, FileBasedCache):
        return cache.add(key, 1, LEASE)
    # Its `add` looks and then writes, so two callers may both succeed. A file lock around it, held
    # for no longer than that, makes it atomic.
    directory = cache._dir  # type: ignore[attr-defined]
    with Path(directory, "convstate.lock").open("wb") as file:
        try:
            if not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
                return False
        except BlockingIOError:
            return False
        return cache.add(key, 1, LEASE)


def _busy() -> ConversationBusy:
    return ConversationBusy(
        f"Others kept this conversation busy for {PATIENCE:g} s. Nothing was written."
    )


class _Lines:
    """For each lock, the threads of this process that want it, in the order in which they came."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[str, deque[threading.Event]] = {}

    @contextmanager
    def turn(self, key: str, give_up: float) -> Iterator[None]:
        mine = threading.Event()
        with self._guard:
            line = self._waiting.setdefault(key, deque())
            line.append(mine)
            line[0].set()
        try:
            if not mine.wait(give_up - time.monotonic()):
                raise _busy()
            yield
        finally:
            with self._guard:
                line.remove(mine)
                if line:
                    line[0].set()
                else:
                    del self._waiting[key]


_lines = _Lines()

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    # A child has none of the threads that were waiting in its parent.
    os.register_at_fork(after_in_child=_lines.__init__)  # type: ignore[misc]
