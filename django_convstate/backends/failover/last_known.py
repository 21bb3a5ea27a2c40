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
from ..toolkit.commit_log import CommitLog
from ..toolkit.memory import BYTES_OVERHEAD
from ..toolkit.packed import PackedMessages
from ..toolkit.stored import StoredConversation
from ..toolkit.writer import Commit
from .exact import Exact, advanced, exactly
from .snapshot import OVERHEAD, Applied, Snapshot, memory_with

MAX_NOTED: Final = 64  # answers, before they are kept
NOTED_SHARE: Final = 16  # and they take at most a sixteenth of the memory
KEPT_CHANGES: Final = 8  # before they are applied after all
SHARE: Final = 4  # one conversation takes at most a fourth of the memory
FORGOTTEN: Final = 1000  # ids of which it is known when they were forgotten

CommitIdentity = tuple[bytes, int, int]  # writer, number and floor


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
        self._max_noted_bytes = max_bytes // NOTED_SHARE
        self._max_bytes = max_bytes - self._max_noted_bytes
        self._max_age = max_age
        self._max_seconds = max_seconds
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._bytes = 0
        # Of those, and of what is yet to be kept, the records by whose etags the primary can tell
        # whether they are what is stored.
        self._exact: dict[str, Exact] = {}
        # What is yet to be kept: the id, what came by, its bytes of memory, the eras in which the
        # primary was asked and has answered, when that was, and which commit has made a record.
        self._noted: list[
            tuple[str, Record | Applied, int, int, int, float, CommitIdentity | None]
        ] = []
        self._noted_bytes = 0
        self._forgotten: OrderedDict[str, int] = OrderedDict()  # in which era
        self._all_forgotten = 0  # the era in which all were, as far as is known

    def get(self, id: str) -> StoredConversation | None:
        """Return a copy of the conversation; None if it is not known, or must have expired."""
        with self._lock:
            self._keep_noted()
            snapshot = self._snapshots.get(id)
            if snapshot is None:
                return None
            stored = snapshot.stored(self._max_age)
            lifetime = self._lifetime(snapshot, stored)
            now = clock.monotonic()
            if now - lifetime.seen > self._max_seconds or lifetime.expires <= now:
                self._drop(id)
                return None
            return stored

    def lifetime(self, id: str) -> Lifetime | None:
        """Return when the conversation was last seen and when it expires; None: it is unknown."""
        with self._lock:
            self._keep_noted()
            snapshot = self._snapshots.get(id)
            if snapshot is None:
                return None
            return self._lifetime(snapshot, snapshot.stored(self._max_age))

    def exact(self, id: str, window: int) -> Record | None:
        """Return the conversation as it was stored at some time, with at least the newest `window`
        messages. By its etag the primary can tell whether it is stored so now; None: it has to load
        it. It is not to be changed."""
        exact = self._exact.get(id)
        return exact.record if exact is not None and window <= exact.reach else None

    def put(self, id: str, record: Record | None, era: int, known: Record | None = None) -> None:
        """Keep the conversation as the primary has loaded it; None: it has none. `known` is what
        `exact` has returned before."""
        if record is None:
            self.forget(id)
            return
        if not self._max_count:
            return
        with self._lock:
            exact = self._exact.get(id)
            if exact is not None and exact.record is known and known.etag == record.etag:
                known.last_accessed, known.expires_at = record.last_accessed, record.expires_at
                known.ttl = record.ttl
            else:
                exact = exactly(record) if record.etag else None
            if exact is None:
                self._note(id, record, memory_with(record), era)
            else:
                self._note(id, exact.record, exact.size, era, exact)

    def apply(self, id: str, change: Change, committed: Committed, era: int) -> None:
        """Keep a change that the primary has applied, with its answer."""
        if not self._max_count:
            return
        with self._lock:
            exact = advanced(self._exact.get(id), id, change, committed)
            if exact is None:
                applied = Applied(change, committed, clock.time())
                self._note(id, applied, applied.size, era)
            else:
                commit = change.commit
                identity = commit.writer, commit.number, commit.floor
                self._note(id, exact.record, exact.size, era, exact, identity)

    def _note(
        self,
        id: str,
        what: Record | Applied,
        size: int,
        asked: int,
        exact: Exact | None = None,
        commit: CommitIdentity | None = None,
    ) -> None:
        # While a server is waited for, other code takes the processor's caches. So little is done
        # with each answer, and the rest with many at once.
        self.era += 1
        if exact is None:
            self._exact.pop(id, None)
        else:
            self._exact[id] = exact
        self._noted.append((id, what, size, asked, self.era, clock.monotonic(), commit))
        self._noted_bytes += size
        if len(self._noted) == MAX_NOTED or self._noted_bytes > self._max_noted_bytes:
            self._keep_noted()

    def _keep_noted(self) -> None:
        """Do now what would have been done as each of them came."""
        if not self._noted:
            return
        for id, what, size, asked, era, seen, commit in self._noted:
            if isinstance(what, Record):
                self._keep_record(id, what, size, asked, era, seen, commit)
            else:
                self._keep_change(id, what, size, asked, era, seen)
        self._noted, self._noted_bytes = [], 0
        self._evict()

    def _keep_record(
        self,
        id: str,
        record: Record,
        size: int,
        asked: int,
        era: int,
        seen: float,
        commit: CommitIdentity | None,
    ) -> None:
        if self._is_outdated(id, asked, record.version):
            if (exact := self._exact.get(id)) is not None and exact.record is record:
                del self._exact[id]
            return
        known = self._snapshots.get(id)
        commits = CommitLog() if known is None else known.commits_in(record)
        if commit is not None:
            commits = commits.adding(Commit(*commit), record.modified_at)
        age = max(0.0, record.last_accessed - record.created_at)
        size += len(commits.packed)
        self._replace(id, Snapshot(record, size, seen - age, seen, [], era, commits))

    def _keep_change(
        self, id: str, change: Applied, size: int, asked: int, era: int, seen: float
    ) -> None:
        if self._is_outdated(id, asked):
            return
        snapshot = self._snapshots.get(id)
        if snapshot is None or change.committed.version <= snapshot.record.version:
            if snapshot is not None and asked < snapshot.era:
                snapshot.note_commit(change)  # it was loaded since, with this change
                return
            snapshot = self._before(id, snapshot, change, era, seen)
            if snapshot is None:
                return
        snapshot.changes.append(change)
        snapshot.seen, snapshot.era = seen, era
        if len(snapshot.changes) > KEPT_CHANGES:
            self._replace(id, snapshot.compacted(self._max_age))
        else:
            self._grow(id, snapshot, size)

    def _before(
        self, id: str, known: Snapshot | None, change: Applied, era: int, seen: float
    ) -> Snapshot | None:
        """Return what a change was applied to that is not later than what is known. None: there is
        more to the conversation than this change; what was loaded before it is not to be kept."""
        committed, now = change.committed, change.now
        if known is not None and committed.repeated and committed.version == known.record.version:
            return known
        if committed.version != 1:
            self._forget(id, era)
            return None
        begun = StoredConversation(now, now, now).record("", 0, self._max_age)
        snapshot = Snapshot(begun, OVERHEAD, seen, seen, [], era)
        self._replace(id, snapshot)
        return snapshot

    def touch(self, id: str, ttl: float | None, *, found: bool) -> None:
        """Slide the expiry as the primary has done, if it has `found` the conversation."""
        with self._lock:
            self._keep_noted()
            snapshot = self._snapshots.get(id)
            if snapshot is None or not found:
                self._drop(id)
                return
            self.era += 1
            self._exact.pop(id, None)
            stored = snapshot.stored(self._max_age)
            stored.touch(clock.time(), ttl)
            record = stored.record("", snapshot.kept_messages, self._max_age)
            size, seen = memory_with(record) + len(stored.commits.packed), clock.monotonic()
            begun, commits = snapshot.begun, stored.commits
            self._replace(id, Snapshot(record, size, begun, seen, [], self.era, commits))

    def move(self, id: str, new_id: str, *, found: bool) -> None:
        """Keep the conversation under its new id, if the primary has `found` it."""
        with self._lock:
            self._keep_noted()
            snapshot = self._snapshots.get(id)
            self.era += 1
            self._forget(id, self.era)
            self._drop(new_id)
            if snapshot is None or not found:
                return
            snapshot.era = self.era
            self._replace(new_id, snapshot)

    def forget(self, id: str) -> None:
        """Drop the conversation, because it is gone."""
        with self._lock:
            self._keep_noted()
            self.era += 1
            self._forget(id, self.era)

    def forget_purged(self, selection: Selection) -> None:
        """Drop what a purge of the primary may have deleted."""
        with self._lock:
            self._keep_noted()
            self.era += 1
            self._all_forgotten = self.era
            if selection.only_expired:
                return  # as here
            used_before = clock.monotonic() - (selection.idle_for or 0.0)
            for id, snapshot in list(self._snapshots.items()):
                # One without an owner may have been claimed elsewhere.
                is_owners = selection.owner is None or snapshot.owner in (None, selection.owner)
                if is_owners and snapshot.seen <= used_before:
                    self._drop(id)

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

    def _forget(self, id: str, era: int) -> None:
        self._drop(id)
        self._forgotten.pop(id, None)
        self._forgotten[id] = era
        if len(self._forgotten) > FORGOTTEN:
            _, self._all_forgotten = self._forgotten.popitem(last=False)

    def _drop(self, id: str) -> None:
        self._exact.pop(id, None)
        self._remove(id)

    def _remove(self, id: str) -> None:
        if (old := self._snapshots.pop(id, None)) is not None:
            self._bytes -= old.size

    def _cut(self, snapshot: Snapshot) -> Snapshot | None:
        """Return what one conversation may take of a snapshot that takes more: its changes applied,
        and not all of its messages: the first, and the newest; or the newest, if the first leaves
        no room for one. None: that is still too much."""
        stored = snapshot.stored(self._max_age)
        record = stored.record("", snapshot.kept_messages, self._max_age)
        packed, taken = stored.messages.packed, len(stored.commits.packed)
        for first in (stored.messages.first(), None):
            size = taken + memory_with(replace(record, messages=(), first=first))
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
        size = taken + memory_with(record)
        if size > self._max_bytes // SHARE:
            return None
        begun, seen, era = snapshot.begun, snapshot.seen, snapshot.era
        return Snapshot(record, size, begun, seen, [], era, stored.commits)

    def _replace(self, id: str, snapshot: Snapshot) -> None:
        self._remove(id)
        if snapshot.size > self._max_bytes // SHARE:
            self._exact.pop(id, None)
            cut = self._cut(snapshot)
            if cut is None:
                return
            snapshot = cut
        self._snapshots[id] = snapshot
        self._bytes += snapshot.size

    def _grow(self, id: str, snapshot: Snapshot, size: int) -> None:
        snapshot.size += size
        self._bytes += size
        if snapshot.size > self._max_bytes // SHARE:
            self._replace(id, snapshot)  # as much of it as may be kept
        else:
            self._snapshots.move_to_end(id)

    def _evict(self) -> None:
        """Drop those that were seen least recently, as far as there are too many, or they are too
        old."""
        snapshots, too_old = self._snapshots, clock.monotonic() - self._max_seconds
        while snapshots and (
            len(snapshots) > self._max_count
            or self._bytes > self._max_bytes
            or next(iter(snapshots.values())).seen < too_old
        ):
            self._drop(next(iter(snapshots)))
