"""Conversations in any entry of CACHES: memcached, files, a database table, Redis, memory.

A cache cannot change a part of what it holds. So a commit reads one document, changes it and
writes it back, under a short lock, and its cost grows with the conversation. It cannot list its
keys either. For much traffic or long conversations, use a backend made for them.
"""

import logging
import math
import pickle
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any, ClassVar

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.checks import CheckMessage
from django.core.exceptions import SynchronousOnlyOperation

from ... import clock
from ...exceptions import (
    BackendUnavailable,
    ConversationConflict,
    ConversationCorrupt,
    ConversationError,
    InvalidBackend,
)
from ..base import ConversationStateBackend
from ..records import (
    QUARANTINE_SECONDS,
    TOMBSTONE_SECONDS,
    TURN_LOST,
    Acquired,
    Change,
    Committed,
    Diverged,
    Record,
    id_is_taken,
    refuse_restore,
)
from ..reports import Health
from ..toolkit.caches import check_alias
from ..toolkit.lease_queue import LeaseQueue
from ..toolkit.packed import Pair
from ..toolkit.stored import StoredConversation, apply_if_fits
from . import document
from .checks import CHECKS, check_capacity
from .lock import Lock, hold

logger = logging.getLogger("django_convstate")

# What reading a value may raise that the cache did reach but cannot make sense of.
_UNREADABLE = (
    pickle.UnpicklingError,
    zlib.error,
    EOFError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)


class CacheBackend(ConversationStateBackend):
    """Keeps each conversation as one document in an entry of CACHES, and the queue of its leases in
    a second one. Its twins run in a thread, as the caches' own do."""

    name: ClassVar = "cache"
    option_names: ClassVar[tuple[str, ...]] = ("max_age", "cache_alias", "key_prefix")
    can_scan: ClassVar = False
    expires_natively: ClassVar = True

    def __init__(
        self,
        *,
        max_age: float | None = None,
        cache_alias: str = "default",
        key_prefix: str = "convstate",
    ) -> None:
        """Use CACHES[cache_alias], with keys that begin with `key_prefix`. No I/O here."""
        super().__init__(max_age=max_age)
        self.cache_alias = cache_alias
        self.key_prefix = key_prefix
        self._is_examined = False
        # Where this one is isolated: its keys, which a cache cannot list, and when they expire.
        self._expiries: dict[str, float] | None = None

    def load(self, id: str, window: int) -> Record | None:
        """Read the document, and have the cache slide its expiry."""
        with self._translating_errors():
            return self._load(id, window)

    def peek(self, id: str, window: int) -> Record | None:
        """Read the document, and leave its expiry alone."""
        with self._translating_errors():
            _, stored = self._read(id)
        return stored.record(id, window, self.max_age) if stored else None

    def commit(self, id: str, change: Change) -> Committed:
        """Read the document, change it and write it back, under the lock of the conversation."""
        change.commit.sending()
        with self._locked(id) as lock:
            previous, stored = self._read(id)
            if stored is not None and stored.commits.has(change.commit):
                committed = stored.answer_again(change, self.max_age)
            else:
                if change.lease is not None and not self._queue(id).is_held_by(change.lease):
                    raise ConversationConflict(TURN_LOST)
                is_deleted = document.moved_to(previous) is not None
                stored, committed = apply_if_fits(
                    stored, change, clock.time(), self.max_age, is_deleted=is_deleted
                )
                lock.check()
                self._write(id, stored, previous)
            # After a retry, too: the first time may not have come so far. If the lock has become
            # too old for it, the lease expires by itself: that is no error, for the change is
            # written.
            if change.lease is not None and change.release and lock.is_safe:
                with suppress(BackendUnavailable), self._changing_queue(id, lock) as queue:
                    queue.leave(change.lease)
        return committed

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `ConversationStateBackend.read_messages`."""
        with self._translating_errors():
            _, stored = self._read(id)
        return stored.messages.between(start, stop) if stored else []

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        with self._translating_errors():
            _, stored = self._read(id)
        return stored.messages.find(message_id) if stored else None

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""
        with self._translating_errors():
            return self._read(id)[1] is not None

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Write the document back with its new idle time."""
        with self._locked(id) as lock:
            previous, stored = self._read(id)
            if stored is None:
                return False
            stored.touch(clock.time(), ttl)
            lock.check()
            self._write(id, stored, previous)
        return True

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`."""
        with self._locked(id) as lock:
            _, stored = self._read(id)
            if stored is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            lock.check()
            self._bury(id)
        return True

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """Write the document under its new id, and then bury it under the old one."""
        with self._locked(id) as lock:
            previous, stored = self._read(id)
            if stored is None:
                return document.moved_to(previous) == new_id
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            taken = self._read(new_id)[1]
            # A copy of ours is there after a first try, in which burying has failed.
            if taken is not None and (taken.created_at, taken.version) != (
                stored.created_at,
                stored.version,
            ):
                raise id_is_taken()
            stored.last_accessed = clock.time()
            lock.check()
            self._write(new_id, stored, None)
            self._bury(id, new_id)
        return True

    def restore(
        self, id: str, record: Record, messages: Iterable[Pair], *, unless_deleted: bool = False
    ) -> None:
        """See `ConversationStateBackend.restore`."""
        restored = StoredConversation.of(record, messages)
        with self._locked(id) as lock:
            previous, stored = self._read(id)
            is_deleted = document.moved_to(previous) is not None
            refuse_restore(exists=stored is not None, is_deleted=unless_deleted and is_deleted)
            lock.check()
            self._write(id, restored, previous)

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        """See `ConversationStateBackend.acquire`."""
        with self._locked(id) as lock:
            with self._changing_queue(id, lock) as queue:
                position = queue.enqueue(lease, seconds)
            return Acquired(position, None if position else self._load(id, window))

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `ConversationStateBackend.renew`."""
        with self._locked(id) as lock, self._changing_queue(id, lock) as queue:
            return queue.renew(lease, seconds)

    def release(self, id: str, lease: str) -> None:
        """See `ConversationStateBackend.release`."""
        with self._locked(id) as lock, self._changing_queue(id, lock) as queue:
            queue.leave(lease)

    def health(self) -> Health:
        """Write a value and read it back."""
        started = time.perf_counter()
        try:
            with self._translating_errors():
                kept = self._keeps()
        except BackendUnavailable as error:
            return Health(self.name, False, detail=str(error))
        latency_ms = (time.perf_counter() - started) * 1000
        detail = f"CACHES[{self.cache_alias!r}]" + (
            "" if kept else " does not keep what it is given"
        )
        return Health(self.name, kept, latency_ms, detail=detail)

    def isolated(self, name: str) -> "CacheBackend":
        """See `ConversationStateBackend.isolated`."""
        other = copy(self)
        vars(other).update(key_prefix=f"{self.key_prefix}.{name}", _expiries={})
        return other

    def erase(self) -> None:
        """See `ConversationStateBackend.erase`."""
        with self._translating_errors():
            for key in list(self._expiries or ()):
                self._cache.delete(key)

    def age(self, seconds: float) -> None:
        """See `ConversationStateBackend.age`."""
        with self._translating_errors():
            for key, expires_at in list((self._expiries or {}).items()):
                if expires_at <= clock.time():
                    self._cache.delete(key)
                else:
                    self._cache.touch(key, self._timeout(expires_at))

    @property
    def _cache(self) -> BaseCache:
        # Not kept: Django gives each thread its own.
        try:
            return caches[self.cache_alias]
        except InvalidCacheBackendError as error:
            raise InvalidBackend(f"CACHES[{self.cache_alias!r}] cannot be used: {error}") from error

    def _key(self, kind: str, id: str) -> str:
        return f"{self.key_prefix}:{kind}:{id}"

    def _timeout(self, expires_at: float) -> int | None:
        if math.isinf(expires_at):
            return None
        # Up to the next whole second: most caches cut fractions off. The database cache cuts one
        # off the moment of expiry too, which may cost a second more.
        left = math.ceil(expires_at - clock.time())
        return max(1, left) + isinstance(self._cache, BaseDatabaseCache)

    # The key of a queue says "line", as it did in 0.1.

    def _queue(self, id: str) -> LeaseQueue:
        return LeaseQueue.parse(self._cache.get(self._key("line", id)), clock.time())

    @contextmanager
    def _changing_queue(self, id: str, lock: Lock) -> Iterator[LeaseQueue]:
        """Yield the queue of a conversation, and write back what becomes of it."""
        key, queue = self._key("line", id), self._queue(id)
        yield queue
        lock.check()
        if not queue.expires:
            self._cache.delete(key)
            return
        data = queue.dump()
        self._set(key, data, max(queue.expires.values()))
        if self._cache.get(key) != data:  # see `_write`
            raise BackendUnavailable(
                f"CACHES[{self.cache_alias!r}] did not keep the queue of those who wait for a turn."
            )

    def _load(self, id: str, window: int) -> Record | None:
        _, stored = self._read(id)
        if stored is None:
            return None
        stored.last_accessed = clock.time()
        key, expires_at = self._key("doc", id), stored.expires_at(self.max_age)
        self._cache.touch(key, self._timeout(expires_at))
        if self._expiries is not None:
            self._expiries[key] = expires_at
        return stored.record(id, window, self.max_age)

    def _read(self, id: str) -> tuple[bytes | None, StoredConversation | None]:
        """Return the stored document, as it is and parsed. Of one that was deleted, there is a
        tombstone."""
        data = self._get(self._key("doc", id))
        if data is None or document.moved_to(data) is not None:
            return data, None
        try:
            stored = document.parse(id, data)
        except ConversationCorrupt:
            self._set(self._key("corrupt", id), data, clock.time() + QUARANTINE_SECONDS)
            self._cache.delete(self._key("doc", id))
            raise
        if self.max_age is not None and stored.created_at + self.max_age <= clock.time():
            return None, None
        return data, stored

    def _bury(self, id: str, new_id: str = "") -> None:
        data = document.tombstone(new_id)
        self._set(self._key("doc", id), data, clock.time() + TOMBSTONE_SECONDS)

    def _set(self, key: str, data: Any, expires_at: float) -> None:
        self._cache.set(key, data, self._timeout(expires_at))
        if self._expiries is not None:
            self._expiries[key] = expires_at

    def _get(self, key: str) -> Any:
        try:
            return self._cache.get(key)
        except _UNREADABLE as error:
            # A wrong setting raises such errors too. If the cache works for another key, it is the
            # value; and since that cannot be read, it cannot be copied into quarantine either.
            if not self._keeps():
                raise
            raise ConversationCorrupt(
                f"The cache cannot read what it holds: {type(error).__name__}."
            ) from error

    def _write(self, id: str, stored: StoredConversation, previous: bytes | None) -> None:
        if not self._is_examined:
            self._examine()
        key, data = self._key("doc", id), document.dump(id, stored)
        self._set(key, data, stored.expires_at(self.max_age))
        # `set` has no result, and some caches fail in silence: a value over memcached's limit, a
        # database row that another process has locked.
        found = self._get(key)
        if found == data:
            return
        if found is None and previous is not None:
            self._set(key, previous, stored.expires_at(self.max_age))
        raise BackendUnavailable(
            f"CACHES[{self.cache_alias!r}] did not keep a document of {len(data)} bytes. "
            "If it is memcached, its limit for one item is 1 MB by default."
        )

    def _examine(self) -> None:
        """Say once in the log, too, that the cache drops what is in use: servers run no checks."""
        self._is_examined = True
        entry: Any = settings.CACHES[self.cache_alias]
        for message in check_capacity(self.cache_alias, entry):
            logger.warning("%s %s", message.msg, message.hint)

    def _keeps(self) -> bool:
        key = f"{self.key_prefix}:health"
        self._set(key, 1, clock.time() + 60)
        return bool(self._cache.get(key) == 1)

    @contextmanager
    def _locked(self, id: str) -> Iterator[Lock]:
        """Hold the lock of a conversation, and translate errors."""
        with self._translating_errors(), hold(self._cache, self._key("lock", id)) as lock:
            yield lock

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        """Raise `BackendUnavailable` for whatever the cache raises: each has errors of its own."""
        try:
            yield
        except (ConversationError, Diverged, SynchronousOnlyOperation):
            raise
        except Exception as error:
            raise BackendUnavailable(
                f"CACHES[{self.cache_alias!r}] cannot be reached, or cannot take bytes: "
                f"{type(error).__name__}."
            ) from error

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """Check that CACHES has the entry, and that it keeps what it is given."""
        alias = options["cache_alias"]
        if missing := check_alias(alias):
            return missing
        config: Any = settings.CACHES[alias]
        return [problem for check in CHECKS for problem in check(alias, config)]
