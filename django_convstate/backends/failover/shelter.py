"""What goes on while the primary is away: conversations are served as they were last known, with
what has changed since, and every change goes into the journal.

All of it is memory, so that there is nothing to await.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ...exceptions import BackendUnavailable
from ..base import DEFAULT_TTL, Acquired, Change, Committed, Create, Record
from ..entry import Entry
from ..locmem import LocMemBackend
from .journal import Delete, Journal, Touch, Write
from .known import LastKnown


class Shelter:
    """Holds a conversation from its first change in an outage until all of them are home."""

    def __init__(self, fallback: LocMemBackend, known: LastKnown, journal: Journal) -> None:
        self.fallback = fallback
        self.known = known
        self.journal = journal
        self.lock = threading.Lock()

    def holds(self, id: str) -> bool:
        return id in self.journal

    def load(self, id: str, window: int) -> Record | None:
        with self.lock:
            if id in self.journal:
                record = self.fallback.load(id, window)
            elif (entry := self.known.find(id)) is not None:
                record = entry.record(id, window, self.fallback.max_age)
            else:
                record = _blank(id)
        return None if record is None else replace(record, degraded=True)

    # Turns. Those that were given here go on here when the primary is back.

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        position = self.fallback.acquire(id, lease, seconds, 1).position
        return Acquired(position, None if position else self.load(id, window))

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """Keep a turn. One that the primary has given goes on here if nobody else has one."""
        return self.fallback.acquire(id, lease, seconds, 1).position == 0

    def without_our_lease(self, id: str, change: Change) -> Change:
        """Return a change as the primary may have it: of a turn given here it knows nothing."""
        if change.lease is None or not self.fallback.has_line(id):
            return change
        if change.release:
            self.fallback.release(id, change.lease)
        return replace(change, lease=None, release=False)

    # Conversations.

    def commit(self, id: str, change: Change) -> Committed:
        change = replace(self.without_our_lease(id, change), lease=None, release=False)
        with self._writing(id, change, blank=change.create is Create.MUST_EXIST) as base:
            committed = self.fallback.commit(id, change)
            self.journal.add(id, change, committed.message_count, base)
        return replace(committed, degraded=True)

    def read_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        with self.lock:
            if id in self.journal:
                return self.fallback.read_messages(id, start, stop)
            if (entry := self.known.find(id)) is None:
                raise BackendUnavailable("The older messages are in the store that is away.")
            return entry.between(start, stop)

    def exists(self, id: str) -> bool:
        with self.lock:
            if id in self.journal:
                return self.fallback.exists(id)
            if self.known.find(id) is None:
                raise BackendUnavailable("Whether it exists, only the store knows that is away.")
            return True

    def touch(self, id: str, ttl: float | None) -> bool:
        with self._writing(id, Touch(ttl), blank=True) as base:
            there = self.fallback.touch(id, ttl)
            if there:
                self.journal.add(id, Touch(ttl), 0, base)
            return there

    def delete(self, id: str, expected_version: int | None) -> bool:
        with self._writing(id, Delete(), blank=True):
            there = self.fallback.delete(id, expected_version)
            if there:
                self.journal.drop(id)  # what came before is of no account any more
                self.journal.add(id, Delete(), 0, None)
                self.known.forget(id)
            return there

    def let_go(self, id: str) -> None:
        """Forget a conversation that is home: only the primary knows how it is now. With the lock
        held."""
        self.fallback.adopt(id, None)
        self.known.forget(id)

    @contextmanager
    def _writing(self, id: str, write: Write, *, blank: bool) -> Iterator[Entry | None]:
        """See to it that the fallback has what is known of a conversation, and yield that.

        Args:
            write: for which there has to be room in the journal.
            blank: of a conversation of which nothing is known, suppose that there is one.
        """
        with self.lock:
            self.journal.make_room(write)
            base = None
            if id not in self.journal:
                now = time.time()
                base = self.known.find(id)
                first = base.copy() if base is not None else Entry(now, now) if blank else None
                self.fallback.adopt(id, first)
            try:
                yield base
            finally:
                if id not in self.journal:  # it was refused
                    self.fallback.adopt(id, None)


def _blank(id: str) -> Record:
    """What there is of a conversation of which nothing is known. Its version is 0."""
    now = time.time()
    return Record(
        id=id,
        version=0,
        owner=None,
        created_at=now,
        last_accessed=now,
        expires_at=now + DEFAULT_TTL,
        ttl=DEFAULT_TTL,
        state={},
        messages=[],
        message_count=0,
    )
