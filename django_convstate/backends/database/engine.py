"""How the backend works on the rows of one conversation: in a transaction or without, with what is
damaged put in quarantine, and its expiry slid."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from ..records import Record
from .place import Damaged, Place
from .storage import Storage
from .transactions import Transactions

# Of the idle time: so much older than the last load may an expiry be.
SLIDE_SHARE: Final = 0.05
_DAY: Final = 24 * 3600.0

T = TypeVar("T")


class Engine:
    """The rows under one prefix of one entry of DATABASES."""

    def __init__(self, alias: str, prefix: str, max_age: float | None) -> None:
        self.alias = alias
        self.transactions = Transactions(alias)
        self.storage = Storage(alias, prefix, max_age)

    def record(self, id: str, window: int, *, slides: bool) -> Record | None:
        """Return the record of a conversation. What others change between its two statements looks
        like damage. So what does is read again with its row locked, which is the judge of it."""

        def read() -> Record | None:
            place = self.storage.read(id, window=window)
            if slides:
                self.slide_if_due(place)
            return self.storage.record(place, window)

        with suppress(Damaged):
            return self.transactions.read(read)
        return self.run(lambda: self.storage.record(self.storage.lock(id), window))

    def slide_if_due(self, place: Place) -> None:
        stored = place.stored
        if stored is not None:
            ttl = _DAY if math.isinf(stored.ttl) else stored.ttl * SLIDE_SHARE
            if place.now - stored.last_accessed >= ttl:
                self.storage.slide(place, stored)

    def run(self, work: Callable[[], T], patience: float | None = None) -> T:
        return self._quarantining(lambda: self.transactions.run(work, patience=patience))

    def _quarantining(self, call: Callable[[], T]) -> T:
        """Call, and put in quarantine what makes no sense. In a transaction of its own, because
        that of the call is rolled back."""
        try:
            return call()
        except Damaged as damaged:
            pk, why = damaged.pk, damaged.why
        self.transactions.run(lambda: self.storage.quarantine(pk))
        raise why
