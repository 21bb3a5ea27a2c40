"""Conversations as they were last seen in the primary: those that this process has lately loaded or
saved, so that they go on with their history in an outage.

Most of them are never needed. So what is kept is what came by, a record and the changes since; only
in an outage are the record copied and the changes applied.

What others delete is not seen here. So a conversation is remembered for a limited time after the
primary has last shown it; and what this process deletes is forgotten at once. Clocks are monotonic:
those of the primary and of this machine may differ, or jump.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from ... import clock
from ..records import Change, Committed, Record
from ..reports import Selection
from ..toolkit.memory import (
    BYTES_OVERHEAD,
    memory_of_change,
    memory_of_messages,
    memory_of_record,
)
from ..toolkit.packed import PackedMessages
from ..toolkit.stored import StoredConversation
from .snapshot import OVERHEAD, Applied, Snapshot

KEPT_CHANGES: Final = 8  # before they are applied after all
CHANGE_OVERHEAD: Final = 1300  # and of a change with its answer
SHARE: Final = 4  # one conversation takes at most a fourth of the memory
FORGOTTEN: Final = 1000  # ids of which it is known when they were forgotten


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When the primary has last shown a conversation, and when it expires unless it is used again.
    In seconds, by the monotonic clock."""

    seen: float
    expires: float


class LastKnownCache:
    """At most `max_count` snapshots and `max_bytes` bytes of memory; those that the primary has
    shown least recently go first. Thread-safe.

    `era` counts what was kept and what was forgotten. What is to be kept says in which era the
    primary was asked. If the conversation was forgotten since, the answer may be from before that;
    and if a later version is kept since, the answer came late: threads overtake each other.
    """

    def __init__(
        self, max_count: int, max_bytes: int, max_age: float | None, max_seconds: float
    ) -> None:
        """Begin empty.

        Args:
            max_age: that of the conversations, in seconds.
            max_seconds: for how long one is remembered after the primary has last shown it.
        """
        self.era = 0
        self._max_count = max_count if max_seconds else 0
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._max_seconds = max_seconds
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._bytes = 0
        self._forgotten: OrderedDict[str, int] = OrderedDict()  # in which era
        self._all_forgotten = 0  # the era in which all were, as far as is known

    def get(self, id: str) -> StoredConversation | None:
        """Return a copy of the conversation; None if it is not known, or must have expired."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            if snapshot is None:
                return None
            stored = snapshot.stored(self._max_age)
            lifetime = self._lifetime(snapshot, stored)
            now = clock.monotonic()
            if now - lifetime.seen > self._max_seconds or lifetime.expires <= now:
                self._replace(id, None)
                return None
            return stored

    def lifetime(self, id: str) -> Lifetime | None:
        """Return when the conversation was last seen and when it expires; None: it is unknown."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            if snapshot is None:
                return None
            return self._lifetime(snapshot, snapshot.stored(self._max_age))

    def put(self, id: str, record: Record | None, era: int) -> None:
        """Keep the conversation as the primary has loaded it; None: it has none."""
        if record is None:
            self.forget(id)
            return
        if not self._max_count:
            return
        now = clock.monotonic()
        age = max(0.0, record.last_accessed - record.created_at)
        snapshot = Snapshot(record, OVERHEAD + memory_of_record(record), now - age, now, [])
        with self._lock:
            if era == self.era or not self._is_outdated(id, era, record.version):
                self._replace(id, snapshot)

    def apply(self, id: str, change: Change, committed: Committed, era: int) -> None:
        """Keep a change that the primary has applied, with its answer."""
        if not self._max_count:
            return
        now, seen = clock.time(), clock.monotonic()
        with self._lock:
            if era != self.era and self._is_outdated(id, era):
                return
            snapshot = self._snapshots.get(id)
            if snapshot is None or committed.version <= snapshot.record.version:
                if snapshot is not None and era < snapshot.era:
                    return  # it was loaded since, with this change
                snapshot = self._before(id, snapshot, committed, now, seen)
                if snapshot is None:
                    return
            snapshot.changes.append(Applied.of(change, committed, now))
            snapshot.seen = seen
            if len(snapshot.changes) > KEPT_CHANGES:
                self._replace(id, snapshot.compacted(self._max_age))
                return
            size = CHANGE_OVERHEAD + memory_of_change(change)
            if committed.others:
                size += memory_of_messages(committed.others)
            self._grow(id, snapshot, size)

    def _before(
        self, id: str, known: Snapshot | None, committed: Committed, now: float, seen: float
    ) -> Snapshot | None:
        """Return what a change was applied to that is not later than what is known. None: there is
        more to the conversation than this change; what was loaded before it is not to be kept."""
        if known is not None and committed.repeated and committed.version == known.record.version:
            return known
        if committed.version != 1:
            self._forget(id)
            return None
        begun = StoredConversation(now, now, now).record("", 0, self._max_age)
        snapshot = Snapshot(begun, OVERHEAD, seen, seen, [])
        self._replace(id, snapshot)
        return snapshot

    def touch(self, id: str, ttl: float | None, *, found: bool) -> None:
        """Slide the expiry as the primary has done, if it has `found` the conversation."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            if snapshot is not None and found:
                stored = snapshot.stored(self._max_age)
                stored.touch(clock.time(), ttl)
                record = stored.record("", snapshot.kept_messages, self._max_age)
                size = OVERHEAD + memory_of_record(record)
                snapshot = Snapshot(record, size, snapshot.begun, clock.monotonic(), [])
            self._replace(id, snapshot if found else None)

    def move(self, id: str, new_id: str, *, found: bool) -> None:
        """Keep the conversation under its new id, if the primary has `found` it."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            self._forget(id)
            self._replace(new_id, snapshot if found else None)

    def forget(self, id: str) -> None:
        """Drop the conversation, because it is gone."""
        with self._lock:
            self._forget(id)

    def forget_purged(self, selection: Selection) -> None:
        """Drop what a purge of the primary may have deleted."""
        with self._lock:
            self.era += 1
            self._all_forgotten = self.era
            if selection.only_expired:
                return  # as here
            used_before = clock.monotonic() - (selection.idle_for or 0.0)
            for id, snapshot in list(self._snapshots.items()):
                # One without an owner may have been claimed elsewhere.
                is_owners = selection.owner is None or snapshot.owner in (None, selection.owner)
                if is_owners and snapshot.seen <= used_before:
                    self._replace(id, None)

    def _lifetime(self, snapshot: Snapshot, stored: StoredConversation) -> Lifetime:
        expires = snapshot.seen + stored.ttl
        if self._max_age is not None:
            expires = min(expires, snapshot.begun + self._max_age)
        return Lifetime(snapshot.seen, expires)

    def _is_outdated(self, id: str, era: int, version: int | None = None) -> bool:
        if era < self._all_forgotten or era < self._forgotten.get(id, 0):
            return True
        snapshot = self._snapshots.get(id)
        return (
            snapshot is not None
            and version is not None
            and era < snapshot.era
            and version < snapshot.version
        )

    def _forget(self, id: str) -> None:
        self._replace(id, None)
        self.era += 1
        self._forgotten.pop(id, None)
        self._forgotten[id] = self.era
        if len(self._forgotten) > FORGOTTEN:
            _, self._all_forgotten = self._forgotten.popitem(last=False)

    def _cut(self, snapshot: Snapshot) -> Snapshot | None:
        """Return what one conversation may take of a snapshot that takes more: its changes applied,
        and not all of its messages: the first, and the newest; or the newest, if the first leaves
        no room for one. None: that is still too much."""
        stored = snapshot.stored(self._max_age)
        record = stored.record("", snapshot.kept_messages, self._max_age)
        packed = stored.messages.packed
        for first in (stored.messages.first(), None):
            size = OVERHEAD + memory_of_record(replace(record, messages=(), first=first))
            kept = 0
            for each in reversed(packed):
                size += BYTES_OVERHEAD + len(each)
                if size > self._max_bytes // SHARE:
                    break
                kept += 1
            if kept:
                break
        if not kept and packed:
            return None
        messages = PackedMessages(packed[len(packed) - kept :], record.end - kept)
        is_all = kept == len(stored.messages)
        record = replace(record, messages=messages, first=None if is_all else first)
        size = OVERHEAD + memory_of_record(record)
        if size > self._max_bytes // SHARE:
            return None
        return Snapshot(record, size, snapshot.begun, snapshot.seen, [])

    def _replace(self, id: str, snapshot: Snapshot | None) -> None:
        old = self._snapshots.get(id)
        if old is not None:
            self._bytes -= old.size
        if snapshot is not None and snapshot.size > self._max_bytes // SHARE:
            snapshot = self._cut(snapshot)
        if snapshot is None:
            self._snapshots.pop(id, None)
            return
        self.era += 1
        snapshot.era = self.era
        self._snapshots[id] = snapshot
        self._bytes += snapshot.size
        if old is not None:
            self._snapshots.move_to_end(id)
        if old is None or self._bytes > self._max_bytes:
            self._evict(snapshot.seen)

    def _grow(self, id: str, snapshot: Snapshot, size: int) -> None:
        self.era += 1
        snapshot.era = self.era
        snapshot.size += size
        self._bytes += size
        self._snapshots.move_to_end(id)
        if snapshot.size > self._max_bytes // SHARE:
            self._replace(id, snapshot)  # as much of it as may be kept
        elif self._bytes > self._max_bytes:
            self._evict(snapshot.seen)

    def _evict(self, now: float) -> None:
        """Drop those that were seen least recently, as far as there are too many, or they are too
        old."""
        too_old = now - self._max_seconds
        while (
            len(self._snapshots) > self._max_count
            or self._bytes > self._max_bytes
            or next(iter(self._snapshots.values())).seen < too_old
        ):
            _, oldest = self._snapshots.popitem(last=False)
            self._bytes -= oldest.size
