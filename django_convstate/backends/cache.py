"""Conversations in any entry of CACHES: memcached, files, a database table, Redis, memory.

A cache cannot change a part of what it holds. So a commit reads one JSON document, changes it and
writes it back, under a short lock, and its cost grows with the conversation. It cannot list its
keys either. For much traffic or long conversations, use a backend made for them.
"""

import math
import pickle
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import SynchronousOnlyOperation

from ..exceptions import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationError,
    InvalidBackend,
)
from . import cachelock, document
from .alias import check_alias, check_timeout
from .base import QUARANTINE_SECONDS, Change, Committed, ConversationStateBackend, Health, Record
from .entry import Entry

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
    name: ClassVar = "cache"
    uses: ClassVar = ("max_age", "cache_alias", "key_prefix")
    can_scan: ClassVar = False
    expires_natively: ClassVar = True

    def __init__(
        self,
        *,
        max_age: float | None = None,
        cache_alias: str = "default",
        key_prefix: str = "convstate",
    ) -> None:
        super().__init__(max_age=max_age)
        self.cache_alias = cache_alias
        self.key_prefix = key_prefix

    def load(self, id: str, window: int) -> Record | None:
        with self._reaching():
            _, entry = self._read(id)
            if entry is None:
                return None
            entry.last_accessed = time.time()
            self._cache.touch(self._key("doc", id), self._timeout(entry))
        return entry.record(id, window, self.max_age)

    def commit(self, id: str, change: Change) -> Committed:
        with self._reaching(), cachelock.hold(self._cache, self._key("lock", id)) as lock:
            stored, entry = self._read(id)
            now = time.time()
            if entry is None:
                change.refuse_unless_fits(None, None)
                entry = Entry(now, now)
            elif answered := entry.commits.find(change.commit_id):
                return answered
            else:
                change.refuse_unless_fits(entry.version, entry.owner)
            committed = entry.apply(change, now, self.max_age)
            lock.check()
            self._write(id, entry, stored)
        return committed

    def read_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        with self._reaching():
            _, entry = self._read(id)
        return entry.messages[start:stop] if entry else []

    def exists(self, id: str) -> bool:
        with self._reaching():
            return self._read(id)[1] is not None

    def touch(self, id: str, ttl: float | None = None) -> bool:
        with self._reaching(), cachelock.hold(self._cache, self._key("lock", id)) as lock:
            stored, entry = self._read(id)
            if entry is None:
                return False
            entry.touch(time.time(), ttl)
            lock.check()
            self._write(id, entry, stored)
        return True

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        with self._reaching(), cachelock.hold(self._cache, self._key("lock", id)) as lock:
            _, entry = self._read(id)
            if entry is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(entry.version, None)
            lock.check()
            self._cache.delete(self._key("doc", id))
        return True

    def health(self) -> Health:
        started = time.perf_counter()
        try:
            with self._reaching():
                kept = self._keeps()
        except BackendUnavailable as error:
            return Health(self.name, False, detail=str(error))
        latency_ms = (time.perf_counter() - started) * 1000
        detail = f"CACHES[{self.cache_alias!r}]" + (
            "" if kept else " does not keep what it is given"
        )
        return Health(self.name, kept, latency_ms, detail=detail)

    @property
    def _cache(self) -> BaseCache:
        # Not kept: Django gives each thread its own.
        try:
            return caches[self.cache_alias]
        except InvalidCacheBackendError as error:
            raise InvalidBackend(f"CACHES[{self.cache_alias!r}] cannot be used: {error}") from error

    def _key(self, kind: str, id: str) -> str:
        return f"{self.key_prefix}:{kind}:{id}"

    def _timeout(self, entry: Entry) -> int:
        # Up to the next whole second: most caches cut fractions off. The database cache cuts one
        # off the moment of expiry too, which may cost a second more.
        left = math.ceil(entry.expires_at(self.max_age) - time.time())
        return max(1, left) + isinstance(self._cache, BaseDatabaseCache)

    def _read(self, id: str) -> tuple[bytes | None, Entry | None]:
        """Return the stored document, as it is and as an entry."""
        data = self._get(self._key("doc", id))
        if data is None:
            return None, None
        try:
            entry = document.parse(id, data)
        except ConversationCorrupt:
            self._cache.set(self._key("corrupt", id), data, QUARANTINE_SECONDS)
            self._cache.delete(self._key("doc", id))
            raise
        if self.max_age is not None and entry.created_at + self.max_age <= time.time():
            return None, None
        return data, entry

    def _get(self, key: str) -> Any:
        try:
            return self._cache.get(key)
        except _UNREADABLE as error:
            # A wrong setting raises such errors too. If the cache works for another key, it is the
            # value; and since nobody can read that, it cannot be moved aside either.
            if not self._keeps():
                raise
            raise ConversationCorrupt(
                f"The cache cannot read what it holds: {type(error).__name__}."
            ) from error

    def _write(self, id: str, entry: Entry, previous: bytes | None) -> None:
        key, data = self._key("doc", id), document.dump(id, entry)
        self._cache.set(key, data, self._timeout(entry))
        # `set` has no result, and some caches fail in silence: a value over memcached's limit, a
        # database row that somebody else has locked.
        found = self._get(key)
        if found == data:
            return
        if found is None and previous is not None:
            self._cache.set(key, previous, self._timeout(entry))
        raise BackendUnavailable(
            f"CACHES[{self.cache_alias!r}] did not keep a document of {len(data)} bytes. "
            "If it is memcached, its limit for one item is 1 MB by default."
        )

    def _keeps(self) -> bool:
        key = f"{self.key_prefix}:health"
        self._cache.set(key, 1, 60)
        return bool(self._cache.get(key) == 1)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn whatever a cache raises, and there are as many kinds as caches, into our error."""
        try:
            yield
        except (ConversationError, SynchronousOnlyOperation):
            raise
        except Exception as error:
            raise BackendUnavailable(
                f"CACHES[{self.cache_alias!r}] cannot be reached, or cannot take bytes: "
                f"{type(error).__name__}."
            ) from error

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        alias = options["cache_alias"]
        if missing := check_alias(alias):
            return missing
        config: Any = settings.CACHES[alias]
        return [
            *_check_that_it_keeps(alias, config),
            *_check_replicas(alias, config),
            *check_timeout(alias),
            *_check_capacity(alias, config),
        ]


def _check_that_it_keeps(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    if config.get("BACKEND", "").endswith(".DummyCache"):
        yield Error(
            f"CACHES[{alias!r}] is a DummyCache, which keeps nothing.",
            hint="Set CONVERSATION_STATE['CACHE_ALIAS'] to a cache that does.",
            id="convstate.E005",
        )
    ignores = getattr(settings, "DJANGO_REDIS_IGNORE_EXCEPTIONS", False)
    if (config.get("OPTIONS") or {}).get("IGNORE_EXCEPTIONS", ignores):
        yield Error(
            f"CACHES[{alias!r}] ignores exceptions: while Redis is away, every conversation would "
            "look as if it did not exist.",
            hint="Give conversations a CACHES entry of their own, with IGNORE_EXCEPTIONS off.",
            id="convstate.E006",
        )


def _check_replicas(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    location = config.get("LOCATION", "")
    servers = re.split("[;,]", location) if isinstance(location, str) else list(location)
    if config.get("BACKEND", "").endswith(".RedisCache") and len(servers) > 1:
        yield Error(
            f"CACHES[{alias!r}] reads from replicas, which lag behind: what was saved a moment ago "
            "would be overwritten.",
            hint="Give conversations a CACHES entry whose LOCATION is the primary alone.",
            id="convstate.E008",
        )


def _check_capacity(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    culls = config.get("BACKEND", "").rpartition(".")[2] in {
        "LocMemCache",
        "FileBasedCache",
        "DatabaseCache",
    }
    options = config.get("OPTIONS") or {}
    try:
        capacity = int(options.get("MAX_ENTRIES", config.get("MAX_ENTRIES", 300)))
    except (TypeError, ValueError):
        capacity = 300  # as Django does
    if culls and capacity <= 300:
        yield Warning(
            f"CACHES[{alias!r}] holds {capacity} entries; beyond, it drops conversations that "
            "are still in use.",
            hint="Raise OPTIONS['MAX_ENTRIES'] to more than you will ever have at a time.",
            id="convstate.W002",
        )
