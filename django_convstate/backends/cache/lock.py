"""A short lock on one conversation, made of `cache.add`.

If its holder dies, or takes longer than `LOCK_TTL`, the lock is taken away from it: who has waited
so long for the same holder seals the epoch (see epochs.py), and takes the lock of the next one. So
the lock itself need not expire, and no late write of that holder counts.

The threads of one process queue up before they ask the cache, so that one of them polls and not
all, and so that they are served as they came.
"""

import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.files import locks

from ...exceptions import BackendUnavailable, ConversationBusy
from ..toolkit import forksafe
from .epochs import CLOSED, SEAL_SECONDS, Keys, epoch_after

LOCK_TTL: Final = 4.0  # seconds that others wait for one holder
ACQUIRE_TIMEOUT: Final = 5.0  # seconds; above LOCK_TTL: a dead holder costs time, not an error
SHORTEST_POLL_WAIT: Final = 0.0005  # seconds, doubled each time up to the longest
LONGEST_POLL_WAIT: Final = 0.02
# The lock of a dead holder is there until then, unless another wants it. Not shorter, because one
# that expires is free without a seal.
_EXPIRY: Final = SEAL_SECONDS


class LockLost(BackendUnavailable):
    """Others have taken the lock away. What was written may be part of the conversation or not."""


class Lock:
    """A lock that is held in an epoch, since `time.monotonic()` said `since`."""

    def __init__(
        self, cache: BaseCache, keys: Keys, epoch: int, since: float, deadline: float
    ) -> None:
        self._cache = cache
        self._keys = keys
        self._deadline = deadline
        self.epoch = epoch
        self.since = since
        # A write was begun of which it is not known that it is done, so it may come late.
        self.in_doubt = False

    @property
    def is_safe(self) -> bool:
        """Whether there is time enough for a write before others take the lock away."""
        return time.monotonic() - self.since < LOCK_TTL / 2

    def check(self) -> None:
        """Raise `BackendUnavailable` if holding on would risk two writers at a time."""
        if not self.is_safe:
            raise BackendUnavailable(
                f"The cache took more than {LOCK_TTL / 2:g} s to read a conversation. "
                "Nothing was written."
            )

    def advance(self, epoch: int) -> None:
        """Take the lock of a later epoch: the present one is sealed. The lock of that stays, so
        that no other takes it in vain."""
        newer = _acquire(self._cache, self._keys, self._deadline, epoch)
        self.epoch, self.since = newer.epoch, newer.since

    def release(self) -> None:
        """Let others have the lock, in the next epoch if a write may still come."""
        is_done = False
        try:
            if not self.in_doubt:
                self._cache.delete(self._keys("lock", self.epoch))
                is_done = True
        finally:
            if not is_done:
                with suppress(Exception):  # else who waits for the lock does it
                    seal(self._cache, self._keys, self.epoch)


@contextmanager
def hold(cache: BaseCache, keys: Keys) -> Iterator[Lock]:
    """Hold the lock of a conversation for the length of a with block.

    Raises:
        ConversationBusy: others held it for `ACQUIRE_TIMEOUT` seconds.
    """
    deadline = time.monotonic() + ACQUIRE_TIMEOUT
    with _at_head(cache.make_key(keys("lock")), deadline):
        lock = _acquire(cache, keys, deadline)
        try:
            yield lock
        finally:
            lock.release()


def _acquire(cache: BaseCache, keys: Keys, deadline: float, epoch: int = 0) -> Lock:
    wait, seen_since = SHORTEST_POLL_WAIT, 0.0
    mine, holder = secrets.token_hex(8), None
    while True:
        now = time.monotonic()
        key, sealed = keys("lock", epoch), keys.seal(epoch)
        if holder is None and _add(cache, key, mine):
            return Lock(cache, keys, epoch, now, deadline)
        found = cache.get_many([key, sealed])
        if sealed in found:
            epoch, holder = epoch_after(epoch, found[sealed]), None
            continue
        if found.get(key) != holder:
            holder, seen_since = found.get(key), now
            wait = SHORTEST_POLL_WAIT
        elif holder is not None and now - seen_since >= LOCK_TTL:
            seal(cache, keys, epoch)  # which a database may refuse, and says nothing
        if now > deadline:
            raise _busy()
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads waiters, hides nothing
        wait = min(wait * 2, LONGEST_POLL_WAIT)


def seal(cache: BaseCache, keys: Keys, epoch: int) -> None:
    """Have the conversation go on in the next epoch."""
    cache.add(keys.seal(epoch), CLOSED, SEAL_SECONDS)


def _add(cache: BaseCache, key: str, value: str) -> bool:
    if not isinstance(cache, FileBasedCache):
        return cache.add(key, value, _EXPIRY)
    # Its `add` looks and then writes, so two callers may both succeed. A file lock around it, held
    # for no longer than that, makes it atomic.
    directory = cache._dir  # type: ignore[attr-defined]
    with Path(directory, "convstate.lock").open("wb") as file:
        try:
            if not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
                return False
        except BlockingIOError:
            return False
        return cache.add(key, value, _EXPIRY)


def lost() -> LockLost:
    """Return the error for a write during which the lock was taken away."""
    return LockLost(
        f"The cache took more than {LOCK_TTL:g} s, and others have gone on meanwhile. "
        "It is not known whether what was written counts."
    )


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
