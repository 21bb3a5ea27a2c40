"""What serves while the primary is unavailable: conversations as they were last known, with what
was changed since; every change is journaled.

All of it is memory, so that there is nothing to await.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ... import clock
from ...exceptions import BackendUnavailable
from ..locmem import LocMemBackend
from ..records import Acquired, Change, Committed, Create, Record
from ..reports import Selection
from ..toolkit.message_list import OLDER_MESSAGES
from ..toolkit.packed import Pair
from ..toolkit.stored import StoredConversation
from .journal import Delete, Journal, Touch, Write, steady_time
from .last_known import LastKnownCache, Lifetime
from .leases import LeaseTable

MAX_USED: Final = 5000  # conversations whose use is made up for after the outage


class OfflineStore:
    """Serves a conversation from its first change in an outage until all its changes are replayed.

    `lock` guards the journal and the fallback. Its methods do what those of a backend do.
    """

    def __init__(
        self,
        fallback: LocMemBackend,
        known: LastKnownCache,
        journal: Journal,
        on_write: Callable[[], None],
    ) -> None:
        """Keep changed conversations in `fallback`, and their changes in `journal`. Call `on_write`
        after each change, without the lock."""
        self.fallback = fallback
        self.known = known
        self.journal = journal
        self.leases = LeaseTable(fallback)
        self.lock = threading.Lock()
        # Those that were loaded and not changed: the primary has not slid their expiry.
        self.used: dict[str, None] = {}
        self._on_write = on_write

    def load(self, id: str, window: int) -> Record | None:
        """Return what is known of the conversation; with version 0, if that is nothing, or only
        what was said here in this outage. None: it was deleted in this outage."""
        with self.lock:
            if (pending := self.journal.get(id)) is not None:
                record = self.fallback.load(id, window)
                if record is not None and not pending.is_complete:
                    record.version = 0
                unconfirmed = self._is_unconfirmed(id)
            else:
                stored = self.known.get(id) or _unknown()
                record = stored.record(id, window, self.fallback.max_age)
                unconfirmed = _is_unconfirmed(self.known.lifetime(id), record.ttl)
        if record is None:
            return None
        return replace(record, degraded=True, unconfirmed=unconfirmed)

    def note_use(self, id: str) -> None:
        """Have the primary slide the expiry of a conversation that was loaded, when it is back."""
        with self.lock:
            if id in self.journal:
                return  # its changes do so
            self.used.pop(id, None)
            self.used[id] = None
            if len(self.used) > MAX_USED:
                del self.used[next(iter(self.used))]
        self._on_write()

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        """Join the queue for a turn in this process."""
        position = self.leases.enqueue(id, lease, seconds)
        return Acquired(position, None if position else self.load(id, window))

    def commit(self, id: str, change: Change) -> Committed:
        """Apply the change to what is known, and journal it. The caller ends its lease.

        Raises:
            BackendUnavailable: the journal is full; or the change is none that can be accepted for
                a conversation of which nothing is known.
        """
        fenced = self.leases.fenced(id, change, by_primary=False)
        with self._writing(id, fenced, presume_exists=change.create is Create.MUST_EXIST) as base:
            begins = fenced.create is Create.MUST_BE_NEW and id not in self.journal
            is_complete = begins or base is not None or self._is_complete(id)
            if not is_complete:
                _refuse_unless_mergeable(fenced)
            committed = self.fallback.commit(id, self._applicable(id, fenced, is_complete))
            self.journal.add(id, fenced, committed.end, base, self.known.lifetime(id))
            unconfirmed = self._is_unconfirmed(id)
        version = committed.version if is_complete else 0
        return replace(committed, version=version, degraded=True, unconfirmed=unconfirmed)

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """Return known messages.

        Raises:
            BackendUnavailable: some of them are not known.
        """
        with self.lock:
            if id in self.journal:
                return self.fallback.read_messages(id, start, stop)
            if (stored := self.known.get(id)) is None:
                raise BackendUnavailable(OLDER_MESSAGES)
            return stored.messages.between(start, stop)

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """Find a known message.

        Raises:
            BackendUnavailable: it may be among those that are not known.
        """
        with self.lock:
            if id in self.journal:
                found = self.fallback.find(id, message_id)
                if found is None and not self._is_complete(id):
                    raise BackendUnavailable(OLDER_MESSAGES)
                return found
            if (stored := self.known.get(id)) is None:
                raise BackendUnavailable(OLDER_MESSAGES)
            return stored.messages.find(message_id)

    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation.

        Raises:
            BackendUnavailable: nothing is known of it.
        """
        with self.lock:
            if id in self.journal:
                return self.fallback.exists(id)
            if self.known.get(id) is None:
                raise BackendUnavailable(
                    "Cannot tell whether the conversation exists while the store is unavailable."
                )
            return True

    def touch(self, id: str, ttl: float | None) -> bool:
        """Slide the expiry, and journal that."""
        touch = Touch(ttl)
        with self._writing(id, touch, presume_exists=True) as base:
            found = self.fallback.touch(id, ttl)
            if found:
                self.journal.add(id, touch, 0, base, self.known.lifetime(id))
            return found

    def delete(self, id: str, expected_version: int | None) -> bool:
        """Delete the conversation, and journal that in the place of its earlier changes.

        Raises:
            BackendUnavailable: the journal is full, or the version is not known.
        """
        delete = Delete(steady_time())
        with self._writing(id, delete, presume_exists=True) as base:
            if expected_version is not None and base is None and not self._is_complete(id):
                raise _unknown_version()
            found = self.fallback.delete(id, expected_version)
            if found:
                self.journal.drop(id)
                self.journal.add(id, delete, 0, None)
            return found

    def rename(self, id: str, new_id: str, expected_version: int | None) -> bool:
        """Refuse to: the store may hold messages that are not known here."""
        raise BackendUnavailable(
            "The store is unavailable, and may hold messages that are not known here; the "
            "conversation cannot be given a new id now.",
            transient=False,
        )

    def restore(self, id: str, record: Record, messages: Iterable[Pair]) -> None:
        """Refuse to: what is restored may be any size."""
        raise BackendUnavailable(
            "The store is unavailable; the conversation cannot be restored now.", transient=False
        )

    def discard(self, id: str) -> None:
        """Drop a conversation whose changes are replayed, or lost: only the primary knows how it is
        now. The caller holds the lock."""
        self.fallback.discard(id)
        self.known.forget(id)

    def forget_purged(self, selection: Selection) -> list[str]:
        """Drop what a purge of the primary may have deleted, and the changes that were made before
        to the conversations of an owner. Return the ids of the latter."""
        self.known.forget_purged(selection)
        if selection.owner is None or not self.journal.pending:
            return []
        dropped = []
        with self.lock:
            for id in self.journal.ids():
                record = self.fallback.peek(id, 0)
                if record is not None and record.owner == selection.owner:
                    self.journal.drop(id)
                    self.discard(id)
                    dropped.append(id)
        return dropped

    def abandon(self) -> None:
        """Drop all that waits for replay."""
        with self.lock:
            for id in self.journal.ids():
                self.journal.drop(id)
            self.fallback.clear()
            self.used.clear()

    def _is_unconfirmed(self, id: str) -> bool:
        pending = self.journal.get(id)
        if pending is None or pending.base is None:
            return True
        return _is_unconfirmed(pending.lifetime, pending.base.ttl)

    def _is_complete(self, id: str) -> bool:
        """Whether all of a changed conversation is known here (see `PendingWrites`)."""
        pending = self.journal.get(id)
        return pending is not None and pending.is_complete

    def _applicable(self, id: str, change: Change, is_complete: bool) -> Change:
        """Return a change without what began from something that is not known here: only replay can
        check that, and merge it. Where everything `is_complete`, older messages may be unknown."""
        if not (change.replace or change.expected):
            return change
        record = self.fallback.peek(id, 0)
        if record is None:
            return change
        known = []
        for each in change.replace:
            with suppress(BackendUnavailable):
                if self.fallback.find(id, each.id) is not None or is_complete:
                    known.append(each)
        expected = {
            key: old for key, old in change.expected.items() if is_complete or key in record.state
        }
        return replace(change, replace=known, expected=expected)

    @contextmanager
    def _writing(
        self, id: str, write: Write, *, presume_exists: bool
    ) -> Iterator[StoredConversation | None]:
        """Put what is known of a conversation into the fallback, and yield it if this is the first
        change.

        Args:
            write: what is to be journaled.
            presume_exists: where nothing is known, presume that there is a conversation.
        """
        with self.lock:
            base = None if id in self.journal else self.known.get(id)
            self.journal.check_capacity(write, base)
            if base is not None:
                self.fallback.put(id, base.copy())
            elif presume_exists and id not in self.journal:
                self.fallback.put(id, _unknown())
            try:
                yield base
            finally:
                if id not in self.journal:  # the change was refused
                    self.fallback.discard(id)
        self._on_write()


def _is_unconfirmed(lifetime: Lifetime | None, ttl: float) -> bool:
    """Tell whether the primary may not have a conversation, or may drop it soon, because there it
    has been idle since the outage began."""
    return lifetime is None or lifetime.expires - clock.monotonic() < ttl / 2


def _refuse_unless_mergeable(change: Change) -> None:
    """Refuse what cannot be decided for a conversation of which nothing is known here.

    Raises:
        BackendUnavailable: it would give it an owner, drop messages, or check its version.
    """
    if change.owner is not None and not change.owner_is_attested:
        raise BackendUnavailable(
            "Cannot verify the owner while the store is unavailable.", transient=False
        )
    if change.keep_messages is not None:
        raise BackendUnavailable(
            "Cannot drop messages while the store is unavailable: it is not known here which there "
            "are.",
            transient=False,
        )
    if change.expected_version is not None:
        raise _unknown_version()


def _unknown_version() -> BackendUnavailable:
    return BackendUnavailable(
        "Cannot check the version while the store is unavailable: it is not known here.",
        transient=False,
    )


def _unknown() -> StoredConversation:
    """Return what stands for a conversation of which nothing is known. Its version is 0, and it
    does not expire here."""
    now = clock.time()
    return StoredConversation(now, now, now, ttl=math.inf)
