"""What the primary last told this process: the conversations that it has lately loaded or saved, so
that they go on with their history when the primary is gone in mid-talk."""

import threading
import time
from collections import OrderedDict
from contextlib import suppress

from ...exceptions import InvalidConversationValue
from ..base import Change, Committed, Create, Record
from ..entry import Entry

KEPT_MESSAGES = 100  # of each conversation, the newest
OVERHEAD = 1200  # bytes that an Entry takes besides its contents, measured


class LastKnown:
    """At most `max_count` conversations and `max_bytes` bytes of them; those that were used least
    recently go first."""

    def __init__(self, max_count: int, max_bytes: int, max_age: float | None) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, id: str, record: Record | None) -> Record | None:
        """Take note of what the primary has (None: it has none), and pass it on."""
        with self._lock:
            self._drop(id)
            if record is not None:
                self._put(id, Entry.of(record))
        return record

    def change(self, id: str, change: Change, committed: Committed) -> Committed:
        """Take note of a change that the primary has applied, and pass its answer on."""
        now = time.time()
        with self._lock:
            entry = self._drop(id)
            if entry is None and change.create is Create.MUST_BE_NEW:
                entry = Entry(now, now)
            if entry is not None:  # else there is more to it than this change, of which we know
                with suppress(InvalidConversationValue):  # a counter that others have changed
                    entry.apply(change, now, self._max_age)
                entry.version = committed.version
                entry.hidden = max(0, committed.message_count - len(entry.messages))
                self._put(id, entry)
        return committed

    def touch(self, id: str, ttl: float | None, there: bool) -> bool:
        """Take note of a slid expiry, if there is such a conversation, and pass that on."""
        with self._lock:
            entry = self._drop(id)
            if entry is not None and there:
                entry.touch(time.time(), ttl)
                self._put(id, entry)
        return there

    def find(self, id: str) -> Entry | None:
        """Return a copy of what was last known, unless it must have expired since."""
        with self._lock:
            entry, _ = self._entries.get(id, (None, 0))
            if entry is None or entry.expires_at(self._max_age) <= time.time():
                return None
            self._entries.move_to_end(id)
            return entry.copy()

    def forget(self, id: str) -> None:
        with self._lock:
            self._drop(id)

    def _put(self, id: str, entry: Entry) -> None:
        entry.keep_newest(KEPT_MESSAGES)
        size = OVERHEAD + entry.size
        self._entries[id] = entry, size
        self._bytes += size
        while len(self._entries) > self._max_count or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, id: str) -> Entry | None:
        entry, size = self._entries.pop(id, (None, 0))
        self._bytes -= size
        return entry
