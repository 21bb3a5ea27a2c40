"""The documents of conversations in an entry of CACHES: reading one, and writing it so that no
write that comes late can undo it (see epochs.py)."""

import logging
import math
import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import BaseDatabaseCache

from ... import clock
from ...exceptions import BackendUnavailable, ConversationCorrupt, InvalidBackend
from ..records import QUARANTINE_SECONDS, TOMBSTONE_SECONDS
from ..toolkit.stored import StoredConversation
from . import document
from .checks import check_capacity
from .epochs import SEAL_SECONDS, Keys, Place, find
from .lock import Lock, lost

logger = logging.getLogger("django_convstate")

# What was copied to another epoch is left for those who are just reading it, in seconds.
_COPIED_TTL: Final = 60
# What reading a value may raise that the cache did reach but cannot make sense of.
_UNREADABLE: Final = (
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


class Storage:
    """The documents of all conversations under one key prefix."""

    def __init__(
        self,
        cache_alias: str,
        key_prefix: str,
        max_age: float | None,
        *,
        is_isolated: bool = False,
    ) -> None:
        self._alias = cache_alias
        self._key_prefix = key_prefix
        self._max_age = max_age
        self._is_examined = False
        # Where it is isolated: its keys, which a cache cannot list, and when they expire.
        self._expiries: dict[str, float] | None = {} if is_isolated else None

    @property
    def cache(self) -> BaseCache:
        """The cache of this thread."""
        # Not kept: Django gives each thread its own.
        try:
            return caches[self._alias]
        except InvalidCacheBackendError as error:
            raise InvalidBackend(f"CACHES[{self._alias!r}] cannot be used: {error}") from error

    def keys(self, id: str) -> Keys:
        """Return the keys of a conversation."""
        return Keys(self._key_prefix, id)

    def timeout(self, expires_at: float) -> int | None:
        """Return in how many seconds the cache is to drop what expires then."""
        if math.isinf(expires_at):
            return None
        # Up to the next whole second: most caches cut fractions off. The database cache cuts one
        # off the moment of expiry too, which may cost a second more.
        left = math.ceil(expires_at - clock.time())
        return max(1, left) + isinstance(self.cache, BaseDatabaseCache)

    def set(self, key: str, value: Any, expires_at: float) -> None:
        """Have the cache keep a value until then."""
        self._note(key, expires_at)
        self.cache.set(key, value, self.timeout(expires_at))

    def _touch(self, key: str, expires_at: float) -> None:
        self._note(key, expires_at)
        self.cache.touch(key, self.timeout(expires_at))

    def _note(self, key: str, expires_at: float) -> None:
        if self._expiries is not None:
            self._expiries[key] = expires_at

    def isolated(self, name: str) -> "Storage":
        """Return one that shares the cache and no key, and that can `erase` and `age`."""
        prefix = f"{self._key_prefix}.{name}"
        return Storage(self._alias, prefix, self._max_age, is_isolated=True)

    def erase(self) -> None:
        """Delete what was kept."""
        for key in list(self._expiries or ()):
            self.cache.delete(key)

    def age(self) -> None:
        """Have everything expire when it does by our clock, which was moved."""
        for key, expires_at in list((self._expiries or {}).items()):
            if expires_at <= clock.time():
                self.cache.delete(key)
            else:
                self.cache.touch(key, self.timeout(expires_at))

    def keeps(self) -> bool:
        """Tell whether the cache keeps a value."""
        key = f"{self._key_prefix}:health"
        self.set(key, 1, clock.time() + 60)
        return bool(self.cache.get(key) == 1)

    def read(self, id: str) -> Place:
        """Return where the conversation is, and the document. Of one that was deleted, there is a
        tombstone.

        Raises:
            ConversationCorrupt: what is there is no document. It is quarantined.
        """
        keys = self.keys(id)
        place = find(self._get_many, keys)
        if self._expiries is not None:
            for epoch in place.seals:  # which lock.py has set
                for key in (keys.seal(epoch), keys("lock", epoch)):
                    self._expiries.setdefault(key, clock.time() + SEAL_SECONDS)
        if place.data is None or place.is_deleted:
            return place
        try:
            place.stored = document.parse(id, place.data)
        except ConversationCorrupt:
            self.set(keys("corrupt"), place.data, clock.time() + QUARANTINE_SECONDS)
            self.cache.delete(keys("doc", place.data_epoch))
            raise
        if self._max_age is not None and place.stored.created_at + self._max_age <= clock.time():
            place.data = place.stored = None
        return place

    def read_locked(self, id: str, lock: Lock) -> Place:
        """Return the same, with the lock in the epoch where the conversation is, and the document
        copied to there: then no earlier one is read any more."""
        while (place := self.read(id)).epoch != lock.epoch:
            lock.advance(place.epoch)
        if place.is_closed:
            expires_at = clock.time() + TOMBSTONE_SECONDS
            if place.stored is not None:
                place.stored.last_accessed = clock.time()
                expires_at = place.stored.expires_at(self._max_age)
            if place.data is not None and place.data_epoch != place.epoch:
                self._put(id, lock, place, place.data, expires_at)
            keys, hidden_until = self.keys(id), _hidden_until(place, expires_at)
            for epoch in place.seals:
                self.set(keys.seal(epoch), place.epoch, hidden_until)
                self._touch(keys("doc", epoch), clock.time() + _COPIED_TTL)
        return place

    def slide(self, id: str, place: Place) -> None:
        """Have the cache slide the expiry of a conversation that was read, from now on."""
        if place.stored is not None:
            place.stored.last_accessed = clock.time()
            expires_at = place.stored.expires_at(self._max_age)
            self._slide_seals(id, place, expires_at)
            self._touch(self.keys(id)("doc", place.data_epoch), expires_at)

    def write(self, id: str, lock: Lock, place: Place, stored: StoredConversation) -> None:
        """Write a conversation. Raises as `_put` does."""
        if not self._is_examined:
            self._examine()
        data = document.dump(id, stored)
        self._put(id, lock, place, data, stored.expires_at(self._max_age))

    def bury(self, id: str, lock: Lock, place: Place, new_id: str = "") -> None:
        """Write that a conversation was deleted, or moved to a new id. Raises as `_put` does."""
        data, expires_at = document.tombstone(new_id), clock.time() + TOMBSTONE_SECONDS
        self._put(id, lock, place, data, expires_at)

    def _put(self, id: str, lock: Lock, place: Place, data: bytes, expires_at: float) -> None:
        """Write a document, and see that it is kept, and counts.

        Raises:
            LockLost: it does not count, unless those who took the lock away have read it.
            BackendUnavailable: it was not kept.
        """
        self._slide_seals(id, place, expires_at)
        # `set` has no result, and some caches fail in silence: a value over memcached's limit, a
        # database row that another process has locked.
        if (found := self._set(id, lock, data, expires_at)) == data:
            return
        if found is None and place.data is not None:
            self._set(id, lock, place.data, expires_at)
        raise BackendUnavailable(
            f"CACHES[{self._alias!r}] did not keep a document of {len(data)} bytes. "
            "If it is memcached, its limit for one item is 1 MB by default."
        )

    def _set(self, id: str, lock: Lock, data: bytes, expires_at: float) -> Any:
        """Write a document, and return what is there afterwards."""
        keys = self.keys(id)
        doc, seal = keys("doc", lock.epoch), keys.seal(lock.epoch)
        lock.in_doubt = True
        self.set(doc, data, expires_at)
        found = self._get_many([doc, seal])
        if seal in found:
            raise lost()
        lock.in_doubt = False
        return found.get(doc)

    def _slide_seals(self, id: str, place: Place, expires_at: float) -> None:
        """Have the seals outlive a document that is to live until then."""
        keys = self.keys(id)
        for epoch in place.seals:
            self._touch(keys.seal(epoch), _hidden_until(place, expires_at))

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        try:
            return self.cache.get_many(keys)
        except _UNREADABLE as error:
            # A wrong setting raises such errors too. If the cache works for another key, it is the
            # value; and since that cannot be read, it cannot be copied into quarantine either.
            if not self.keeps():
                raise
            raise ConversationCorrupt(
                f"The cache cannot read what it holds: {type(error).__name__}."
            ) from error

    def _examine(self) -> None:
        """Say once in the log, too, that the cache drops what is in use: servers run no checks."""
        self._is_examined = True
        entry: Any = settings.CACHES[self._alias]
        for message in check_capacity(self._alias, entry):
            logger.warning("%s %s", message.msg, message.hint)


def _hidden_until(place: Place, expires_at: float) -> float:
    """Return until when the earlier epochs of a document are to be hidden."""
    ttl = place.stored.ttl if place.stored is not None else 0.0
    return max(expires_at, clock.time() + ttl) + SEAL_SECONDS
