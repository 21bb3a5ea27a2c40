"""Conversations in any entry of CACHES: memcached, files, a database table, Redis, memory.

A cache cannot change a part of what it holds. So a commit reads one document, changes it and
writes it back, under a short lock, and its cost grows with the conversation. It cannot list its
keys either. For much traffic or long conversations, use a backend made for them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any, ClassVar

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import SynchronousOnlyOperation

from ... import clock
from ...exceptions import (
    BackendUnavailable,
    ConversationConflict,
    ConversationError,
)
from ..base import ConversationStateBackend
from ..records import Acquired, Change, Committed, Diverged, Record
from ..refusals import TURN_LOST, id_is_taken, refuse_restore
from ..reports import Health
from ..toolkit.caches import check_alias
from ..toolkit.lease_queue import LeaseQueue
from ..toolkit.packed import Pair
from ..toolkit.stored import StoredConversation, apply_if_fits
from . import document
from .checks import CHECKS
from .lock import Lock, LockLost, hold
from .storage import Storage


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
        self._documents = Storage(cache_alias, key_prefix, max_age)

    def load(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """Read the document, and have the cache slide its expiry."""
        with self._translating_errors():
            return self._load(id, window)

    def peek(self, id: str, window: int) -> Record | None:
        """Read the document, and leave its expiry alone."""
        with self._translating_errors():
            stored = self._documents.read(id).stored
        return stored.record(id, window, self.max_age) if stored else None

    def commit(self, id: str, change: Change) -> Committed:
        """Read the document, change it and write it back, under the lock of the conversation."""
        change.commit.sending()
        try:
            return self._commit(id, change)
        except LockLost:
            # The number of the commit tells whether the change was written.
            return self._commit(id, change)

    def _commit(self, id: str, change: Change) -> Committed:
        with self._locked(id) as lock:
            place = self._documents.read_locked(id, lock)
            stored = place.stored
            if stored is not None and stored.commits.has(change.commit):
                committed = stored.answer_again(change, self.max_age)
            else:
                if change.lease is not None and not self._queue(id).is_held_by(change.lease):
                    raise ConversationConflict(TURN_LOST)
                stored, committed = apply_if_fits(
                    stored, change, clock.time(), self.max_age, is_deleted=place.is_deleted
                )
                self._documents.write(id, lock, place, stored)
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
            stored = self._documents.read(id).stored
        return stored.messages.between(start, stop) if stored else []

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        with self._translating_errors():
            stored = self._documents.read(id).stored
        return stored.messages.find(message_id) if stored else None

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""
        with self._translating_errors():
            return self._documents.read(id).stored is not None

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Write the document back with its new idle time."""
        with self._locked(id) as lock:
            place = self._documents.read_locked(id, lock)
            if place.stored is None:
                return False
            place.stored.touch(clock.time(), ttl)
            self._documents.write(id, lock, place, place.stored)
        return True

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`."""
        with self._locked(id) as lock:
            place = self._documents.read_locked(id, lock)
            if place.stored is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(place.stored.version, None)
            self._documents.bury(id, lock, place)
        return True

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """Write the document under its new id, and then bury it under the old one."""
        with self._locked(id) as lock:
            place = self._documents.read_locked(id, lock)
            stored = place.stored
            if stored is None:
                return document.moved_to(place.data) == new_id
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            with self._locked(new_id) as new_lock:
                new_place = self._documents.read_locked(new_id, new_lock)
                # A copy of ours is there after a first try, in which burying has failed.
                if (taken := new_place.stored) is not None and (
                    taken.created_at,
                    taken.version,
                ) != (stored.created_at, stored.version):
                    raise id_is_taken()
                stored.last_accessed = clock.time()
                self._documents.write(new_id, new_lock, new_place, stored)
            self._documents.bury(id, lock, place, new_id)
        return True

    def restore(
        self,
        id: str,
        record: Record,
        messages: Iterable[Pair],
        *,
        unless_deleted: bool = False,
        replaces: int | None = None,
    ) -> None:
        """See `ConversationStateBackend.restore`."""
        restored = StoredConversation.of(record, messages)
        with self._locked(id) as lock:
            place = self._documents.read_locked(id, lock)
            refuse_restore(
                place.stored.version if place.stored else None,
                replaces=replaces,
                is_deleted=unless_deleted and place.is_deleted,
            )
            self._documents.write(id, lock, place, restored)

    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
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
                kept = self._documents.keeps()
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
        documents = self._documents.isolated(name)
        vars(other).update(key_prefix=f"{self.key_prefix}.{name}", _documents=documents)
        return other

    def erase(self) -> None:
        """See `ConversationStateBackend.erase`."""
        with self._translating_errors():
            self._documents.erase()

    def age(self, seconds: float) -> None:
        """See `ConversationStateBackend.age`."""
        with self._translating_errors():
            self._documents.age()

    # The key of a queue says "line", as it did in 0.1.

    def _queue(self, id: str) -> LeaseQueue:
        return LeaseQueue.parse(
            self._documents.cache.get(self._documents.keys(id)("line")), clock.time()
        )

    @contextmanager
    def _changing_queue(self, id: str, lock: Lock) -> Iterator[LeaseQueue]:
        """Yield the queue of a conversation, and write back what becomes of it."""
        key, queue = self._documents.keys(id)("line"), self._queue(id)
        yield queue
        lock.check()
        if not queue.expires:
            self._documents.cache.delete(key)
            return
        data = queue.dump()
        self._documents.set(key, data, max(queue.expires.values()))
        if self._documents.cache.get(key) != data:  # see `_put`
            raise BackendUnavailable(
                f"CACHES[{self.cache_alias!r}] did not keep the queue of those who wait for a turn."
            )

    def _load(self, id: str, window: int) -> Record | None:
        place = self._documents.read(id)
        self._documents.slide(id, place)
        return place.stored.record(id, window, self.max_age) if place.stored else None

    @contextmanager
    def _locked(self, id: str) -> Iterator[Lock]:
        """Hold the lock of a conversation, and translate errors."""
        with (
            self._translating_errors(),
            hold(self._documents.cache, self._documents.keys(id)) as lock,
        ):
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
