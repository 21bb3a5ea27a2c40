"""The messages of a conversation in memory: the newest ones as loaded, and what was appended since.
No I/O.

A position counts the messages that were dropped, too, so that those which are there keep theirs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from ..backends.records import Committed, Record, Replacement, too_many_messages
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
from ..codec import JSON, decode, decode_all, encode
from ..conf import Options
from ..exceptions import (
    ConversationCorrupt,
    ConversationTooLarge,
    InvalidConversationType,
    InvalidConversationValue,
)
from ..ids import next_message_id, validate_message_id
from .message import REDACTED_KEEPS, Message


class MessageLog:
    """Stored are the messages at positions `dropped` to `_stored_end`, of which those before
    `_kept_end` are still wanted. The newest are in memory: `_tail` as loaded, and then `_recent`,
    as saved or staged since. Behind the kept ones come those that were appended."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # How to interrupt each message that is being streamed, by what streams it.
        self.streams: dict[object, Callable[[], None]] = {}
        # Where, as (start, stop), others have appended between our load and our saves. Noted only
        # for those who put a list here, because a conversation may be saved any number of times.
        self.remote_ranges: list[tuple[int, int]] | None = None

    def reset_to(self, record: Record | None) -> None:
        """Hold the newest messages of a record, and nothing else. None: of a conversation that is
        not stored, there are none."""
        self._tail: Sequence[Pair] = ()
        self._last_key, self._offline = NO_KEY, False
        self.dropped = self._stored_end = 0
        if record is not None:
            self._tail = record.messages
            self._last_key, self._offline = record.last_key, record.degraded
            self.dropped = record.dropped
            self._stored_end = record.dropped + record.message_count
        self._kept_end = self._stored_end
        self._recent: list[bytes] = []
        self._last_id = 0  # of those that were made here
        self._appended: list[bytes] = []
        self._once: set[str] = set()
        self._replaced: dict[str, tuple[bytes | None, bytes]] = {}
        # What was replaced since the load, saved or not.
        self._current: dict[str, bytes] = {}
        if self.remote_ranges is not None:
            self.remote_ranges = []

    def discard_changes(self) -> None:
        """Go back to what the store holds, as far as is known."""
        self._kept_end = self._stored_end
        self._appended, self._once, self._replaced, self._current = [], set(), {}, {}

    # Writing.

    def append(self, role: str, content: JSON, id: str | None, extra: Mapping[str, JSON]) -> str:
        """Add a message at the end, unless it is there already, and return its id. Raises as
        `check` does."""
        if id is not None:
            if validate_message_id(id).startswith("#") and id[1:].isdecimal():
                raise InvalidConversationValue(
                    'An id of "#" and a number is that of a message which version 0.1 has stored.'
                )
            if self.peek(id) is None:
                self._appended.append(pack(id, self.check(role, content, id, extra)))
                self._once.add(id)
            return id
        made = next_message_id(self._last_id, self._last_key)
        key = made.to_bytes(KEY_SIZE)
        new_id = key.hex()
        self._appended.append(b"%b\0%b" % (key, self.check(role, content, new_id, extra)))
        self._last_id = made
        return new_id

    def extend(self, items: Iterable[Mapping[str, JSON]]) -> list[str]:
        """Add JSON objects at the end as they are, all or none, and return their ids."""
        made: list[bytes] = []
        last_id = self._last_id
        try:
            for number, item in enumerate(items):
                data = encode_item(item, f"item {number}")
                self._check_room(len(made))
                self._check_size(data)
                self._last_id = next_message_id(self._last_id, self._last_key)
                made.append(b"%b\0%b" % (self._last_id.to_bytes(KEY_SIZE), data))
        except BaseException:
            self._last_id = last_id
            raise
        self._appended += made
        return [message[:KEY_SIZE].hex() for message in made]

    def check(self, role: str, content: JSON, id: str, extra: Mapping[str, JSON]) -> bytes:
        """Return a message as it is stored, if it may be appended.

        Raises:
            InvalidConversationValue: it cannot be stored as JSON.
            ConversationTooLarge: it is over MAX_MESSAGE_BYTES, or one more than MAX_MESSAGES.
        """
        if self._options.max_messages is not None:
            self._check_room(0)
        data = encode_message(role, content, id, extra)
        if len(data) > self._options.max_message_bytes:
            self._check_size(data)
        return data

    def _check_room(self, more: int) -> None:
        limit = self._options.max_messages
        if limit is not None and self._options.when_full == "refuse":
            count = len(self) + more + 1
            if count > limit:
                raise too_many_messages(count, limit)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._options.max_message_bytes:
            raise ConversationTooLarge(
                f"The message takes {len(data)} bytes as JSON; MAX_MESSAGE_BYTES is "
                f"{self._options.max_message_bytes}."
            )

    def truncate(self, size: int) -> None:
        """Keep the first `size` messages."""
        position = self.dropped + size
        del self._appended[max(0, position - self._kept_end) :]
        self._kept_end = min(self._kept_end, position)

    def update(self, id: str, data: bytes, fields: Mapping[str, JSON]) -> None:
        """Change some fields of a message that has these bytes.

        Raises:
            InvalidConversationValue, ConversationTooLarge: as `check` does.
        """
        if "id" in fields:
            raise InvalidConversationValue("The id of a message cannot be changed.")
        new = encode(_object(decode(data)) | dict(fields), "message")
        self._check_size(new)
        old = self._replaced[id][0] if id in self._replaced else data
        self._replace(id, old, new)

    def redact(self, id: str, data: bytes) -> None:
        """Leave of a message nothing but its id, its role and its time."""
        message = _object(decode(data))
        kept = {field: message[field] for field in REDACTED_KEEPS if field in message}
        self._replace(id, None, encode(kept | {"redacted": True}, "message"))

    def _replace(self, id: str, old: bytes | None, new: bytes) -> None:
        for index, message in enumerate(self._appended):
            if id_of(message, 0) == id:
                self._appended[index] = header_of(message) + new
                return
        self._replaced[id] = old, new
        self._current[id] = new

    # Saving.

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        return bool(self._appended or self._replaced) or self._kept_end < self._stored_end

    @property
    def shortened_to(self) -> int | None:
        """The position up to which stored messages are to be kept; None: all are."""
        return self._kept_end if self._kept_end < self._stored_end else None

    def collect_changes(
        self,
    ) -> tuple[int | None, Sequence[Pair], Sequence[str], Sequence[Replacement], tuple[int, bytes]]:
        """Return the position up to which stored messages are kept (None: all), what to append,
        which of these may be there already, what to replace, and where what was known here of the
        stored ones ends (see `Change.seen`). Regard that as stored from now on."""
        appended, kept, stored = self._appended, self._kept_end, self._stored_end
        seen = stored, self._last_key
        once: Sequence[str] = ()
        replaced: Sequence[Replacement] = ()
        if kept < stored:
            self._cut(kept)
        if appended:
            self._recent += appended
            self._appended = []
            self._stored_end = self._kept_end = kept + len(appended)
        if self._once:
            once, self._once = tuple(self._once), set()
        if self._replaced:
            replaced = [
                Replacement(id=id, old=old, new=new) for id, (old, new) in self._replaced.items()
            ]
            self._replaced = {}
        append = PackedMessages(appended, kept, has_keys=False) if appended else ()
        return kept if kept < stored else None, append, once, replaced, seen

    def _cut(self, end: int) -> None:
        """Forget what is in memory from position `end` on."""
        surplus = self._stored_end - end
        from_tail = max(0, surplus - len(self._recent))
        del self._recent[max(0, len(self._recent) - surplus) :]
        self._tail = self._tail[: max(0, len(self._tail) - from_tail)]
        self._stored_end = self._kept_end = end

    def settle(
        self, committed: Committed, own: Sequence[Pair], expected_end: int, staged_later: int
    ) -> None:
        """Take note of what the store has answered to a commit of `own` messages, after which the
        messages were expected to end at `expected_end`; so many were staged later."""
        self._last_key = committed.last_key
        if (
            committed.dropped + committed.message_count == expected_end
            and not committed.others
            and not committed.repeated
            and committed.dropped == self.dropped
        ):
            if len(self._recent) > self._options.window:
                self._trim()
            return
        self._take_others(committed, own, expected_end, staged_later)

    def _trim(self) -> None:
        self._tail = ()
        del self._recent[: -self._options.window]

    def _take_others(
        self, committed: Committed, own: Sequence[Pair], expected_end: int, staged_later: int
    ) -> None:
        known = [*packed_of(self._tail), *self._recent]
        split = len(known) - staged_later
        later = known[split:]
        before = known[: max(0, split - len(own))]
        before_end = expected_end - len(own)
        others_start = committed.others_end - len(committed.others)
        if committed.others and others_start > before_end:
            before = []  # there is a gap, of messages that are further back than the window
        elif committed.others:
            del before[max(0, len(before) - (before_end - others_start)) :]
        elif committed.others_end != before_end:
            before = []
        applied = to_append(own)
        if committed.existing:
            applied = [each for each in applied if id_of(each, 0) not in committed.existing]
        stored = [*before, *packed_of(committed.others), *([] if committed.repeated else applied)]
        end, surplus = committed.end, committed.end - expected_end
        room = min(committed.message_count, max(self._options.window, len(applied)))
        newest = stored[len(stored) - min(len(stored), room) :]
        self._tail = PackedMessages(newest, committed.end - len(newest))
        self._recent = later
        self.dropped = committed.dropped
        self._stored_end += surplus
        self._kept_end += surplus
        remote = end - before_end - (len(own) if committed.repeated else len(applied))
        if self.remote_ranges is not None and remote > 0:
            self.remote_ranges.append((before_end, before_end + remote))

    # Reading.

    def __len__(self) -> int:
        return self._kept_end - self.dropped + len(self._appended)

    @property
    def end(self) -> int:
        """The position after the last message."""
        return self._kept_end + len(self._appended)

    @property
    def _start(self) -> int:
        """The position of the first message in memory."""
        return self._stored_end - len(self._recent) - len(self._tail)

    @property
    def window_size(self) -> int:
        """The setting WINDOW."""
        return self._options.window

    @property
    def drops_oldest(self) -> bool:
        """Whether the oldest messages are dropped where there would be too many."""
        return self._options.when_full == "drop_oldest"

    @property
    def max_message_bytes(self) -> int:
        """The setting."""
        return self._options.max_message_bytes

    @property
    def is_complete(self) -> bool:
        """Whether all messages are in memory."""
        return self._start <= self.dropped

    def peek(self, id: str) -> bytes | None:
        """Return the bytes of a message that is in memory and still wanted; None: it is not."""
        wanted = len(self._tail) + len(self._recent) - (self._stored_end - self._kept_end)
        stored = [*packed_of(self._tail), *self._recent][: max(0, wanted)]
        for position, message in enumerate([*stored, *self._appended], self._start):
            if id_of(message, position) == id:
                return self._current.get(id, data_of(message))
        return None

    def wanted(self, id: str, found: tuple[int, bytes] | None) -> bytes | None:
        """Return the bytes of a message that the store has found, as it is by now; None: there is
        none, or it is not wanted any more."""
        if found is None or found[0] >= self._kept_end:
            return None
        return self._current.get(id, found[1])

    def window_start(self, size: int) -> int:
        """Return where the newest `size` messages begin, as far back as they can be reached."""
        first = max(self.dropped, self.end - size)
        if self._offline:
            first = max(first, min(self._start, self._kept_end))
        return first

    def missing(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the bounds of the messages among `start` to `stop` that are not in memory."""
        stop = min(stop, self._start, self._kept_end)
        return (start, stop) if start < stop else None

    def assemble(self, read: Sequence[Pair], start: int, stop: int) -> list[Message]:
        """Return the messages at positions `start` to `stop`, of which the `read` ones come
        first."""
        found = [*packed_of(read)]
        first, recent = self._start, self._stored_end - len(self._recent)
        kept = min(stop, self._kept_end)
        found += packed_of(self._tail)[max(0, start - first) : max(0, kept - first)]
        found += self._recent[max(0, start - recent) : max(0, kept - recent)]
        found += self._appended[max(0, start - self._kept_end) : max(0, stop - self._kept_end)]
        ids = list(map(id_of, found, range(stop - len(found), stop)))
        bodies = list(map(data_of, found))
        if self._current:
            bodies = list(map(self._current.get, ids, bodies))
        return [
            Message(_object(value), id) for id, value in zip(ids, decode_all(bodies), strict=True)
        ]

    def interrupt_streams(self) -> None:
        """Append what is being streamed as far as it has come, whatever may still hold its
        generator: a traceback, or an event loop that is about to close it."""
        for interrupt in list(self.streams.values()):
            interrupt()


def message_of(id: str, data: bytes) -> Message:
    """Return the message that bytes of the store are."""
    return Message(_object(decode(data)), id)


def _object(value: JSON) -> dict[str, JSON]:
    if type(value) is not dict:
        raise ConversationCorrupt("Among the stored messages is something else.")
    return value


def encode_message(role: str, content: JSON, id: str, extra: Mapping[str, JSON]) -> bytes:
    """Return a message as it is stored, with its time unless it has one."""
    if not isinstance(role, str) or not role:
        raise InvalidConversationType("The role of a message is a string that is not empty.")
    message = {"role": role, "content": content, **extra}
    message.setdefault("timestamp", datetime.now(UTC).isoformat(timespec="milliseconds"))
    message["id"] = id
    return encode(message, "message")


def encode_item(item: Mapping[str, JSON], name: str) -> bytes:
    """Return a message that is kept as it is."""
    if not isinstance(item, dict):
        raise InvalidConversationType(
            f"{name} is of type {type(item).__name__}; a message is a JSON object: write a "
            "dictionary, such as the model_dump() of what an SDK gives you."
        )
    return encode(item, name)
