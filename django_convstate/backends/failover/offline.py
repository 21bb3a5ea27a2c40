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
from ..locmem import LocMemBackend
from ..records import DEFAULT_TTL, Acquired, Change, Committed, Create, Record
from ..toolkit.stored import Entry
from .journal import Delete, Journal, Touch, Write
from .last_known import LastKnown
from .leases import Turns


class Shelter:
    """Holds a conversation from its first change in an outage until all of them are home."""

    def __init__(self, fallback: LocMemBackend, known: LastKnown, journal: Journal) -> None:
        self.fallback = fallback
        self.known = known
        self.journal = journal
        self.turns = Turns(fallback)
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

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        position = self.turns.stand(id, lease, seconds)
        return Acquired(position, None if position else self.load(id, window))

    def commit(self, id: str, change: Change) -> Committed:
        sent = self.turns.checked(id, change, by_primary=False)
        with self._writing(id, sent, blank=change.create is Create.MUST_EXIST) as base:
            self._check_owner(id, sent, base)
            committed = self.fallback.commit(id, sent)
            self.journal.add(id, sent, committed.message_count, base)
        self.turns.after(id, change)
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
        with self._writing(id, Delete(time.time()), blank=True):
            there = self.fallback.delete(id, expected_version)
            if there:
                self.journal.drop(id)  # what came before is of no account any more
                self.journal.add(id, Delete(time.time()), 0, None)
                self.known.forget(id)
            return there

    def let_go(self, id: str) -> None:
        """Forget a conversation that is home: only the primary knows how it is now. With the lock
        held."""
        self.fallback.adopt(id, None)
        self.known.forget(id)

    def _check_owner(self, id: str, change: Change, base: Entry | None) -> None:
        """Refuse to make somebody the owner of what may be another's."""
        if change.owner is None or change.create is Create.MUST_BE_NEW or base is not None:
            return
        if (line := self.journal.line(id)) is None or not line.is_all_known:
            raise BackendUnavailable(
                "Whose conversation this is, only the store knows that is away.", transient=False
            )

    @contextmanager
    def _writing(self, id: str, write: Write, *, blank: bool) -> Iterator[Entry | None]:
        """See to it that the fallback has what is known of a conversation, and yield that.

        Args:
            write: for which there has to be room in the journal.
            blank: of a conversation of which nothing is known, suppose that there is one.
        """
        with self.lock:
            base = None if id in self.journal else self.known.find(id)
            self.journal.make_room(write, base)
            if id not in self.journal:
                now = time.time()
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
