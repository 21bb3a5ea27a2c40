"""Conversations as they were last seen in the primary: those that this process has lately loaded or
saved, so that they go on with their history in an outage.

Most of them are never needed. So what is kept is what came by, a record and the changes since; only
in an outage are the record copied and the changes applied.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from ... import clock
from ...exceptions import InvalidConversationValue
from ..records import Change, Committed, Record
from ..toolkit.packed import key_of, size_of
from ..toolkit.stored import StoredConversation

KEPT_MESSAGES: Final = 100  # of each conversation, the newest
KEPT_CHANGES: Final = 8  # before they are applied after all
OVERHEAD: Final = 2000  # bytes of memory of a conversation besides its contents, measured


@dataclass(slots=True)
class Snapshot:
    """A conversation as it was at some moment, and the changes since. `size` is in bytes."""

    record: Record
    size: int
    changes: list[tuple[float, Change, Committed]] = field(default_factory=list)

    def stored(self, max_age: float | None) -> StoredConversation:
        """Return a copy of the conversation with the changes applied."""
        record = self.record
        stored = StoredConversation.of(record, record.messages)
        stored.messages.unloaded = record.message_count - len(record.messages)
        for now, change, committed in self.changes:
            _follow(stored, change, committed, now, max_age)
        messages = stored.messages
        excess = max(0, len(messages.packed) - KEPT_MESSAGES)
        del messages.packed[:excess]
        messages.unloaded += excess
        return stored


def _size_beside(change: Change, committed: Committed) -> int:
    """Return how many bytes a change and its answer take besides what is appended and set."""
    return (
        size_of(committed.others)
        + sum(len(each.new) + len(each.old or b"") for each in change.replace)
        + sum(len(old or b"") for old in change.expected.values())
    )


def _follow(
    stored: StoredConversation,
    change: Change,
    committed: Committed,
    now: float,
    max_age: float | None,
) -> None:
    """Do to `stored` what the primary has done, whatever else others have done there."""
    messages = stored.messages
    appended = () if committed.repeated else change.append
    if committed.existing:
        appended = [pair for pair in appended if pair[0] not in committed.existing]
    _adopt_others(stored, change, committed, committed.end - len(appended))
    known = [each for each in change.replace if messages.data(each.id) is not None]
    applied = replace(
        change,
        expected={},
        # What a repeated answer has is newer than what was replaced then.
        replace=[] if committed.repeated else [replace(each, old=None) for each in known],
        keep_messages=None,
        append=appended,
        once=(),
        max_state_bytes=None,
        max_messages=None,
        window=0,
    )
    try:
        stored.apply(applied, now, max_age)
    except InvalidConversationValue:  # a counter that others have changed
        stored.apply(replace(applied, increment={}), now, max_age)
    stored.version = committed.version
    messages.settle(committed.dropped, committed.message_count, committed.last_key)


def _adopt_others(
    stored: StoredConversation, change: Change, committed: Committed, others_end: int
) -> None:
    """Make the messages those that end at `others_end` in the primary, behind which it has appended
    those of `change`. Where it is not certain that older ones are there still, they are dropped."""
    messages, others = stored.messages, committed.others
    if committed.version == stored.version + 1 and not committed.repeated:
        if change.keep_messages is not None:
            messages.truncate(change.keep_messages)
    elif len(others) >= change.window:
        # Others have committed meanwhile, and may have dropped what came before these.
        messages.packed.clear()
    messages.adopt(others, others_end)
    if messages.packed:
        messages.last_key = max(messages.last_key, key_of(messages.packed[-1]))


class LastKnownCache:
    """At most `max_count` snapshots and `max_bytes` bytes of them; the least recently used go
    first. Thread-safe."""

    def __init__(self, max_count: int, max_bytes: int, max_age: float | None) -> None:
        """Begin empty. `max_age` is that of the conversations, in seconds."""
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._bytes = 0

    def get(self, id: str) -> StoredConversation | None:
        """Return a copy of the conversation; None if it is not known, or must have expired."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            if snapshot is None:
                return None
            self._snapshots.move_to_end(id)
            stored = snapshot.stored(self._max_age)
        return None if stored.expires_at(self._max_age) <= clock.time() else stored

    def put(self, id: str, record: Record | None) -> None:
        """Keep the conversation as the primary has loaded it; None: it has none."""
        snapshot = None
        if record is not None:
            size = size_of(record.messages) + sum(map(len, record.state.values()))
            snapshot = Snapshot(record, size + OVERHEAD)
        with self._lock:
            self._replace(id, snapshot)

    def apply(self, id: str, change: Change, committed: Committed) -> None:
        """Keep a change that the primary has applied, with its answer."""
        now = clock.time()
        with self._lock:
            snapshot = self._snapshots.get(id)
            if snapshot is None:
                if committed.version != 1:
                    return  # there is more to the conversation than this change
                begun = StoredConversation(now, now, now)
                snapshot = Snapshot(self._record(begun), OVERHEAD)
            size = size_of(change.append)
            if change.replace or change.expected or committed.others:
                size += _size_beside(change, committed)
            size += sum(map(len, change.set.values()))
            changes = [*snapshot.changes, (now, change, committed)]
            snapshot = Snapshot(snapshot.record, snapshot.size + size, changes)
            if len(changes) > KEPT_CHANGES:
                stored = snapshot.stored(self._max_age)
                snapshot = Snapshot(self._record(stored), stored.size + OVERHEAD)
            self._replace(id, snapshot)

    def touch(self, id: str, ttl: float | None, *, found: bool) -> None:
        """Slide the expiry as the primary has done, if it has `found` the conversation."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            if snapshot is not None and found:
                stored = snapshot.stored(self._max_age)
                stored.touch(clock.time(), ttl)
                snapshot = Snapshot(self._record(stored), snapshot.size)
            self._replace(id, snapshot if found else None)

    def move(self, id: str, new_id: str) -> None:
        """Keep the conversation under its new id."""
        with self._lock:
            snapshot = self._snapshots.get(id)
            self._replace(id, None)
            self._replace(new_id, snapshot)

    def forget(self, id: str) -> None:
        """Drop the conversation, if it is known."""
        self.put(id, None)

    def _record(self, stored: StoredConversation) -> Record:
        return stored.record("", KEPT_MESSAGES, self._max_age)

    def _replace(self, id: str, snapshot: Snapshot | None) -> None:
        old = self._snapshots.pop(id, None)
        if old is not None:
            self._bytes -= old.size
        if snapshot is None:
            return
        self._snapshots[id] = snapshot
        self._bytes += snapshot.size
        while len(self._snapshots) > self._max_count or self._bytes > self._max_bytes:
            _, oldest = self._snapshots.popitem(last=False)
            self._bytes -= oldest.size
