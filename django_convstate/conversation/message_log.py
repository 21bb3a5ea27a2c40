"""The messages of a conversation in memory: the newest ones as loaded, and what was appended since.
No I/O.

A position counts the messages that were dropped, too, so that those which are there keep theirs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..backends.records import Change, Committed, Record, Replacement
from ..backends.toolkit.packed import (
    KEY_SIZE,
    NO_KEY,
    PackedMessages,
    Pair,
    data_of,
    header_of,
    id_of,
    pack,
    packed_of,
    to_append,
)
from ..codec import JSON, decode, encode
from ..conf import Options
from ..exceptions import InvalidConversationType, InvalidConversationValue
from ..ids import next_message_id, validate_message_id
from .edits import Edits
from .limits import check_room, check_size
from .memory_lock import MemoryLock
from .message import encode_item, encode_message, object_of, redacted
from .message_view import MessageView
from .pending import NOTHING, LogChanges, MessageChanges, Settled, joined, shifted


class MessageLog:
    """Stored are the messages at positions `dropped` to `_stored_end`, of which those before
    `_kept_end` are still wanted. The newest are in memory: `_tail` as loaded, then `_recent`, as
    saved or staged since. Behind the kept ones come those that were appended.

    Threads may read and write at the same time. What a WorkingCopy calls to load and to save is
    called with its lock held.
    """

    __slots__ = (
        *("_appended", "_edits", "_first", "_kept_end", "_last_id", "_last_key", "_offline"),
        *("_once", "_recent", "_stored_end", "_tail", "dropped", "has_warned", "lock", "options"),
        *("remote_ranges", "streams"),
    )

    def __init__(self, options: Options, lock: MemoryLock) -> None:
        self.options = options
        self.lock = lock
        # How to interrupt each message that is being streamed, by what streams it.
        self.streams: dict[object, Callable[[], None]] = {}
        # Where, as (start, stop), others have appended between our load and our saves. Noted only
        # for those who put a list here, because a conversation may be saved any number of times.
        self.remote_ranges: list[tuple[int, int]] | None = None
        self.has_warned = False  # of messages that no API takes

    def reset_to(self, record: Record | None) -> None:
        """Hold the newest messages of a record, and nothing else. None: of a conversation that is
        not stored, there are none."""
        self._tail: Sequence[Pair] = ()
        self._last_key, self._offline = NO_KEY, False
        self.dropped = self._stored_end = 0
        # The first message and its position, as it was last known.
        self._first: tuple[int, Pair] | None = None
        if record is not None:
            self._tail = record.messages
            self._last_key, self._offline = record.last_key, record.degraded
            self.dropped = record.dropped
            self._stored_end = record.dropped + record.message_count
            self._first = None if record.first is None else (record.dropped, record.first)
        self._kept_end = self._stored_end
        self._recent: list[bytes] = []
        self._last_id = 0  # of those that were made here
        self._appended: list[bytes] = []
        self._once: dict[str, None] = {}  # a set takes more memory
        self._edits: Edits | None = None  # as it mostly is
        if self.remote_ranges is not None:
            self.remote_ranges = []

    def discard_changes(self) -> None:
        """Go back to what the store holds, as far as is known."""
        self._kept_end = self._stored_end
        self._appended, self._once = [], {}
        if self._edits is not None:
            self._edits.discard()

    def changes(self) -> LogChanges:
        """Return what has changed, for `do_again`."""
        edits = None if self._edits is None else self._edits.unsaved()
        return self.shortened_to, edits, (self._appended, self._once, self._last_id)

    def do_again(self, changes: LogChanges) -> None:
        """Do what has changed to what was loaded since."""
        kept, self._edits, (self._appended, self._once, self._last_id) = changes
        if kept is not None:
            self._kept_end = max(self.dropped, min(kept, self._stored_end))

    # Writing.

    def append(self, role: str, content: JSON, id: str | None, extra: Mapping[str, JSON]) -> str:
        """Add a message at the end, unless it is there already, and return its id. Raises as
        `check` does."""
        with self.lock.held:
            if id is not None:
                if self.peek(validate_message_id(id)) is None:
                    self._appended.append(pack(id, self.check(role, content, id, extra)))
                    self._once[id] = None
                    if self._edits is not None:
                        self._edits.forget_shown(id)  # of a message that was dropped
                return id
            self._last_id = made = next_message_id(self._last_id, self._last_key)
            key = made.to_bytes(KEY_SIZE)
            new_id = key.hex()
            self._appended.append(b"%b\0%b" % (key, self.check(role, content, new_id, extra)))
            return new_id

    def extend(self, items: Iterable[dict[str, JSON]]) -> list[str]:
        """Add JSON objects at the end as they are, all or none, and return their ids."""
        if not isinstance(items, Iterable):
            raise InvalidConversationType(
                f"extend takes JSON objects, one after the other, not {type(items).__name__}."
            )
        encoded: list[bytes] = []
        for number, item in enumerate(items):
            encoded.append(encode_item(item, f"item {number}"))
            check_room(self.options, len(self) + len(encoded))
            check_size(self.options, encoded[-1])
        with self.lock.held:
            check_room(self.options, len(self) + len(encoded))
            keys: list[bytes] = []
            for data in encoded:
                self._last_id = next_message_id(self._last_id, self._last_key)
                keys.append(self._last_id.to_bytes(KEY_SIZE))
                self._appended.append(b"%b\0%b" % (keys[-1], data))
        return [key.hex() for key in keys]

    def check(self, role: str, content: JSON, id: str, extra: Mapping[str, JSON]) -> bytes:
        """Return a message as it is stored, if it may be appended.

        Raises:
            InvalidConversationValue: it cannot be stored as JSON.
            ConversationTooLarge: it is over MAX_MESSAGE_BYTES, or one more than MAX_MESSAGES.
        """
        if self.options.max_messages is not None:
            check_room(self.options, len(self) + 1)
        data = encode_message(role, content, id, extra)
        check_size(self.options, data)
        return data

    def truncate(self, size: int) -> None:
        """Keep the first `size` messages."""
        with self.lock.held:
            position = self.dropped + size
            first_dropped = max(0, position - self._kept_end)
            dropped = [id_of(message, 0) for message in self._appended[first_dropped:]]
            for id in dropped:
                self._once.pop(id, None)
            del self._appended[first_dropped:]
            if self._edits is not None:
                self._edits.forget_appended(dropped)
                if size <= 0:
                    self._edits.forget_stored()
                elif position < self._kept_end:
                    stored = enumerate([*packed_of(self._tail), *self._recent], self._start)
                    self._edits.forget(id_of(each, at) for at, each in stored if at >= position)
            self._kept_end = min(self._kept_end, position)

    def take_back(self, end: int) -> bool:
        """Drop the last message, which ends at position `end`. False: it is not the last any
        more."""
        with self.lock.held:
            is_last = self.end == end
            if is_last:
                self.truncate(len(self) - 1)
            return is_last

    def update(self, id: str, data: bytes, fields: Mapping[str, JSON]) -> None:
        """Change some fields of a message that has these bytes.

        Raises:
            InvalidConversationValue, ConversationTooLarge: as `check` does.
        """
        with self.lock.held:
            if "id" in fields:
                raise InvalidConversationValue("The id of a message cannot be changed.")
            data = self._newest(id, data)
            new = encode(object_of(decode(data)) | dict(fields), "message")
            check_size(self.options, new)
            self._replace(id, data, new)

    def redact(self, id: str, data: bytes) -> None:
        """Leave of a message nothing but its id, its role and its time."""
        with self.lock.held:
            data = self._newest(id, data)
            self._replace(id, None, encode(redacted(id, object_of(decode(data))), "message"))

    def _newest(self, id: str, data: bytes) -> bytes:
        """Return the bytes of a message that was found with `data`: another thread, or task, may
        have changed it since."""
        return self.peek(id) or self._as_replaced(id, data)

    def _replace(self, id: str, old: bytes | None, new: bytes) -> None:
        if self._edits is None:
            self._edits = Edits()
        for index, message in enumerate(self._appended):
            if id_of(message, 0) == id:
                self._appended[index] = header_of(message) + new
                if id in self._once:
                    self._edits.remake(id, old, new)
                return
        self._edits.replace(id, old, new)

    def _as_replaced(self, id: str, data: bytes) -> bytes:
        """Return the bytes of a message that is stored with `data`."""
        return data if self._edits is None else self._edits.applied_to(id, data)

    # Saving.

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        if self._edits is not None and self._edits.are_modified:
            return True
        return bool(self._appended) or self._kept_end < self._stored_end

    @property
    def shortened_to(self) -> int | None:
        """The position up to which stored messages are to be kept; None: all are."""
        return self._kept_end if self._kept_end < self._stored_end else None

    def collect_changes(self) -> MessageChanges:
        """Return what has changed, and regard it as stored from now on."""
        appended, kept, stored, once = self._appended, self._kept_end, self._stored_end, self._once
        self._appended = []  # also if it was empty: the change that waits must not grow
        seen = stored, self._last_key
        if kept < stored:
            self._cut(kept)
        if appended:
            self._recent += appended
            self._stored_end = self._kept_end = kept + len(appended)
        replaced = () if self._edits is None else self._edits.collect_changes()
        if once:
            self._once = {}
        return (
            kept if kept < stored else None,
            PackedMessages(appended, kept, has_keys=False) if appended else NOTHING,
            once or (),  # not the dictionary itself, which goes on if it is empty
            replaced,
            seen,
            self._stored_end,
        )

    def remade(self, change: Change, committed: Committed) -> Sequence[Replacement]:
        """Return what is to be replaced, because a change did not append it: it was there."""
        return () if self._edits is None else self._edits.take_remade(change, committed)

    def adopt(self, replaced: Mapping[str, bytes]) -> None:
        """Take note of what became of messages that others have changed, too."""
        if self._edits is None:
            self._edits = Edits()
        self._edits.adopt(replaced)

    def _cut(self, end: int) -> None:
        """Forget what is in memory from position `end` on."""
        if end <= self.dropped:
            self._first = None
        surplus = self._stored_end - end
        from_tail = max(0, surplus - len(self._recent))
        del self._recent[max(0, len(self._recent) - surplus) :]
        self._tail = self._tail[: max(0, len(self._tail) - from_tail)]
        self._stored_end = self._kept_end = end

    def settle_if_expected(self, committed: Committed, expected_end: int) -> bool:
        """Take note of what the store has answered to the last commit, if that is what was
        expected. False: it is not, and `settle` has to follow."""
        is_expected = (
            committed.dropped + committed.message_count == expected_end
            and committed.dropped == self.dropped
            and not committed.others
            and not committed.repeated
        )
        if is_expected:
            self._last_key = committed.last_key
            if len(self._recent) > self.options.window:
                self._note_first()
                self._tail = ()
                del self._recent[: -self.options.window]
        return is_expected

    def settle(self, settled: Settled) -> None:
        """Take note of a commit after which others have appended, or are still to be sent."""
        change, committed = settled.change, settled.committed
        self._note_first()
        self._last_key = committed.last_key
        known = [*packed_of(self._tail), *self._recent]
        split = max(0, len(known) - settled.later)
        later, own = known[split:], to_append(change.append)
        before, before_end = known[: max(0, split - len(own))], settled.expected_end - len(own)
        if committed.existing:
            own = [each for each in own if id_of(each, 0) not in committed.existing]
        remote = committed.end - before_end - len(own)
        if settled.is_cut or settled.later > len(known):
            stored = []  # what is in memory is that of later; the next answer has the others
        elif committed.repeated:
            stored = packed_of(committed.others)  # the newest of all
        else:
            stored = joined(before, before_end, committed) + own
        room = min(committed.message_count, max(self.options.window, len(own)))
        newest = stored[len(stored) - min(len(stored), room) :]
        self._tail = PackedMessages(newest, committed.end - len(newest))
        self._recent = later
        self.dropped = committed.dropped
        if remote < 0:  # others have dropped some, and perhaps added others
            self._first = None
        if settled.later or settled.is_cut or self._kept_end == self._stored_end:
            self._kept_end += settled.stored_end - self._stored_end
        else:
            self._kept_end = shifted(self._kept_end, change, committed, settled.expected_end)
        self._stored_end = settled.stored_end
        if self.remote_ranges is not None and remote > 0:
            self.remote_ranges.append((before_end, before_end + remote))

    # Reading.

    def __len__(self) -> int:
        with self.lock.held:
            return self._kept_end - self.dropped + len(self._appended)

    @property
    def end(self) -> int:
        """The position after the last message."""
        with self.lock.held:
            return self._kept_end + len(self._appended)

    @property
    def _start(self) -> int:
        """The position of the first message in memory."""
        return self._stored_end - len(self._recent) - len(self._tail)

    def _in_memory(self) -> tuple[int, int, list[bytes]]:
        """Return the messages in memory that are wanted, and at which positions they are."""
        packed, end = [*packed_of(self._tail), *self._recent], self._kept_end
        if end < self._stored_end:
            del packed[max(0, len(packed) - (self._stored_end - end)) :]
        start = end - len(packed)
        packed += self._appended
        return start, end + len(self._appended), packed

    @property
    def is_complete(self) -> bool:
        """Whether all messages are in memory."""
        with self.lock.held:
            return self._start <= self.dropped

    def view(self) -> MessageView:
        """Return the messages as they are now, to be read."""
        with self.lock.held:
            start, end, packed = self._in_memory()
            changed = {} if self._edits is None else self._edits.shown()
            return MessageView(
                self.dropped, start, end, packed, self._first, changed, self._offline
            )

    def peek(self, id: str) -> bytes | None:
        """Return the bytes of a message that is in memory and still wanted; None: it is not."""
        with self.lock.held:
            start, _, packed = self._in_memory()
            for position, message in enumerate(packed, start):
                if id_of(message, position) == id:
                    return self._as_replaced(id, data_of(message))
            return None

    def wanted(self, id: str, found: tuple[int, bytes] | None) -> bytes | None:
        """Return the bytes of a message that the store has found, as it is by now; None: there is
        none, or it is not wanted any more."""
        if found is None or found[0] >= self._kept_end:
            return None
        return self._as_replaced(id, found[1])

    def _note_first(self) -> None:
        """Keep the first message when those in memory are about to be given up."""
        if self._start == self.dropped < self._stored_end:
            packed = (packed_of(self._tail) or self._recent)[0]
            self._first = self.dropped, (id_of(packed, self.dropped), data_of(packed))

    def interrupt_streams(self) -> None:
        """Append what is being streamed as far as it has come, whatever may still hold its
        generator: a traceback, or an event loop that is about to close it."""
        for interrupt in list(self.streams.values()):
            interrupt()
