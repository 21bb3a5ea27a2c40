"""What the primary last told this process: the conversations that it has lately loaded or saved, so
that they go on with their history when the primary is gone in mid-talk.

Of most of them nobody will ever ask, so what is kept is what came by, a record and the changes made
to it since; only in an outage is the one applied to the other.
"""

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ...exceptions import InvalidConversationValue
from ..records import Change, Committed, Record
from ..toolkit.stored import Entry

KEPT_MESSAGES: Final = 100  # of each conversation, the newest
KEPT_CHANGES: Final = 8  # before they are applied after all
OVERHEAD: Final = 2000  # bytes that a conversation takes here besides its contents, measured


@dataclass(slots=True)
class Known:
    """What is known of one conversation. `size` is in bytes."""

    first: Record | Entry
    size: int
    since: list[tuple[float, Change, Committed]] = field(default_factory=list)

    def entry(self, max_age: float | None) -> Entry:
        """Return how the conversation is, as something of one's own."""
        entry = Entry.of(self.first) if isinstance(self.first, Record) else self.first.copy()
        for now, change, committed in self.since:
            with suppress(InvalidConversationValue):  # a counter that others have changed
                entry.apply(change, now, max_age)
            entry.version = committed.version
            entry.hidden = max(0, committed.message_count - len(entry.messages))
        entry.keep_newest(KEPT_MESSAGES)
        return entry


class LastKnown:
    """At most `max_count` conversations and `max_bytes` bytes of them; those that were used least
    recently go first."""

    def __init__(self, max_count: int, max_bytes: int, max_age: float | None) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, id: str, record: Record | None) -> Record | None:
        """Take note of what the primary has (None: it has none), and pass it on."""
        with self._lock:
            self._drop(id)
            if record is not None:
                size = len(b"".join(record.messages)) + sum(map(len, record.state.values()))
                self._put(id, Known(record, size + OVERHEAD))
        return record

    def change(self, id: str, change: Change, committed: Committed) -> Committed:
        """Take note of a change that the primary has applied, and pass its answer on."""
        now = time.time()
        with self._lock:
            known = self._drop(id)
            if known is None and committed.version == 1:
                known = Known(Entry(now, now), OVERHEAD)
            if known is not None:  # else there is more to it than this change, which we do not know
                known.since.append((now, change, committed))
                known.size += sum(map(len, change.append)) + sum(map(len, change.set.values()))
                if len(known.since) > KEPT_CHANGES:
                    entry = known.entry(self._max_age)
                    known = Known(entry, entry.size + OVERHEAD)
                self._put(id, known)
        return committed

    def touch(self, id: str, ttl: float | None, there: bool) -> bool:
        """Take note of a slid expiry, if there is such a conversation, and pass that on."""
        with self._lock:
            known = self._drop(id)
            if known is not None and there:
                entry = known.entry(self._max_age)
                entry.touch(time.time(), ttl)
                self._put(id, Known(entry, known.size))
        return there

    def find(self, id: str) -> Entry | None:
        """Return what is known, unless it must have expired since. It is the caller's own."""
        with self._lock:
            known = self._known.get(id)
            if known is None:
                return None
            self._known.move_to_end(id)
            entry = known.entry(self._max_age)
        return None if entry.expires_at(self._max_age) <= time.time() else entry

    def forget(self, id: str) -> None:
        with self._lock:
            self._drop(id)

    def _put(self, id: str, known: Known) -> None:
        self._known[id] = known
        self._bytes += known.size
        while len(self._known) > self._max_count or self._bytes > self._max_bytes:
            self._drop(next(iter(self._known)))

    def _drop(self, id: str) -> Known | None:
        known = self._known.pop(id, None)
        if known is not None:
            self._bytes -= known.size
        return known
