"""The queue of the leases of a conversation, in a column of its row.

A turn may begin in a transaction of the caller's. Others do not see such a lease before that
transaction ends; until then the row of the conversation is locked, which keeps others out. To renew
it is neither possible, for that is done on another connection, nor needed."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from django.db import transaction

from ... import clock
from ..records import TOMBSTONE_SECONDS, Acquired
from ..toolkit.lease_queue import LeaseQueue
from .engine import Engine
from .place import Place
from .sql import update_row
from .times import seconds_of, when
from .transactions import RowLocked

PATIENCE: Final = 2.0  # seconds that the queue of a conversation waits for its row


class _NotYet(Exception):
    """It is not the turn of a lease: `position` are ahead of it. Raised to have the savepoint
    rolled back, and the row unlocked with it."""

    def __init__(self, position: int = 0) -> None:
        super().__init__(position)
        self.position = position


class UnseenLeases:
    """The leases of turns in transactions that have not ended."""

    def __init__(self) -> None:
        # Until when each is kept here, by the monotonic clock: the end of a transaction that is
        # rolled back is not told.
        self._until: dict[str, float] = {}

    def add(self, alias: str, lease: str, seconds: float) -> None:
        """Take note of one that was acquired within the transaction of this thread."""
        now = clock.monotonic()
        for other, until in list(self._until.items()):
            if until <= now:
                self._until.pop(other, None)
        self._until[lease] = now + seconds
        forget: Callable[[], object] = partial(self.discard, lease)
        transaction.on_commit(forget, using=alias)

    def renew(self, lease: str, seconds: float) -> bool:
        """Keep one for `seconds` from now. False: it is not here."""
        if self._until.get(lease, 0.0) <= clock.monotonic():
            return False
        self._until[lease] = clock.monotonic() + seconds
        return True

    def discard(self, lease: str | None) -> None:
        """Forget one, if it is here."""
        if lease is not None:
            self._until.pop(lease, None)


class Turns:
    """The queues of all conversations under one prefix."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unseen = UnseenLeases()

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        """See `DatabaseBackend.acquire`."""
        is_within = self._engine.transactions.is_in_one

        def acquire() -> Acquired:
            place = self._engine.storage.lock(id)
            queue = place.queue
            position = queue.enqueue(lease, seconds)
            if position and is_within:
                raise _NotYet(position)
            self._write(place, queue)
            if position:
                return Acquired(position, None)
            self._engine.slide_if_due(place)
            return Acquired(0, self._engine.storage.record(place, window))

        try:
            acquired = self._engine.run(acquire, patience=PATIENCE)
        except _NotYet as waits:
            return Acquired(waits.position, None)
        except RowLocked:
            return Acquired(1, None)
        if is_within and acquired.position == 0:
            self._unseen.add(self._engine.alias, lease, seconds)
        return acquired

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `ConversationStateBackend.renew`."""
        if self._unseen.renew(lease, seconds):
            return True

        def renew() -> bool:
            place = self._engine.storage.lock(id)
            queue = place.queue
            if not queue.renew(lease, seconds):
                return False
            self._write(place, queue)
            return True

        return self._engine.run(renew, patience=PATIENCE)

    def release(self, id: str, lease: str) -> None:
        """See `ConversationStateBackend.release`."""

        def release() -> None:
            place = self._engine.storage.lock(id)
            queue = place.queue
            if lease in queue.expires:
                queue.leave(lease)
                self._write(place, queue)

        self._unseen.discard(lease)
        self._engine.run(release, patience=PATIENCE)

    def ended(self, lease: str | None) -> None:
        """Note that a commit has given up a lease."""
        self._unseen.discard(lease)

    def _write(self, place: Place, queue: LeaseQueue) -> None:
        """Write the leases of a conversation, which need not be stored."""
        row, columns = place.row, lease_columns(queue)
        if row is not None and row.version == 0:
            if not queue.expires and not place.is_deleted:
                row.delete(using=self._engine.alias)
                return
            columns["expires_at"] = when(_needed_until(place, queue))
        if row is not None:
            update_row(self._engine.alias, row.pk, columns)
        elif queue.expires:
            moment = when(place.now)
            self._engine.storage.begin(
                place,
                {
                    **columns,
                    "created_at": moment,
                    "modified_at": moment,
                    "last_accessed": moment,
                    "expires_at": when(_needed_until(place, queue)),
                },
            )


def lease_columns(queue: LeaseQueue) -> dict[str, Any]:
    """Return the columns of the leases of a conversation."""
    if not queue.expires:
        return {"leases": None, "leased_until": None}
    return {"leases": queue.dump(), "leased_until": when(max(queue.expires.values()))}


def _needed_until(place: Place, queue: LeaseQueue) -> float:
    """Return until when the row of what is not stored is needed."""
    at = None if place.row is None else place.row.deleted_at
    buried_until = 0.0 if at is None else seconds_of(at) + TOMBSTONE_SECONDS
    return max([buried_until, place.now, *queue.expires.values()])
