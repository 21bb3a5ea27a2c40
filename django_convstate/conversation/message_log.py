"""The messages of a conversation in memory: the newest ones as loaded, and what was appended since.
No I/O.

A position counts the messages that were dropped, too, so that those which are there keep theirs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from ..backends.records import Committed, Record, Replacement, too_many_messages
from ..backends.toolkit.packed import NO_KEY, Pair
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
    `_kept_end` are still wanted. The newest are in memory: `_tail` as loaded, then `_recent`, as
    saved or staged since. Behind the kept ones come those that were appended."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # How to interrupt each message that is being streamed, by what streams it.
        self.streams: dict[object, Callable[[], None]] = {}
        # Where, as (start, stop), others have appended between our load and our saves. Noted only
        # for those who put a list here, because a conversation may be saved any number of times.
        self.remote_ranges: list[tuple[int, int]] | None = None

    def clear(self) -> None:
        """Hold nothing, of a conversation that is not stored."""
        self._offline = False
        self._tail: Sequence[Pair] = ()
        self._recent: list[Pair] = []
        self.dropped = self._stored_end = self._kept_end = 0
        self._last_key = NO_KEY
        self._last_id = 0  # of those that were made here
        self._appended: list[Pair] = []
        self._once: set[str] = set()
        self._replaced: dict[str, tuple[bytes | None, bytes]] = {}
        # What was replaced since the load, and saved or staged.
        self._current: dict[str, bytes] = {}
        if self.remote_ranges is not None:
            self.remote_ranges = []

    def load(self, record: Record) -> None:
        """Hold the newest messages of a record, and nothing else."""
        self.clear()
        self._offline = record.degraded
        self._tail = record.messages
        self.dropped = record.dropped
        self._stored_end = self._kept_end = record.dropped + record.message_count
        self._last_key = record.last_key

    def discard_changes(self) -> None:
        """Go back to what the store holds, as far as is known."""
        self._kept_end = self._stored_end
        self._appended, self._once, self._replaced = [], set(), {}

    # Writing.

    def append(self, role: str, content: JSON, id: str | None, extra: Mapping[str, JSON]) -> str:
        """Add a message at the end, unless it is there already, and return its id. Raises as
        `check` does."""
        if id is not None and self.peek(validate_message_id(id)) is not None:
            return id
        made = self._next_id() if id is None else 0
        new_id = f"{made:020x}" if id is None else id
        self._appended.append((new_id, self.check(role, content, new_id, extra)))
        if id is None:
            self._last_id = made
        else:
            self._once.add(id)
        return new_id

    def extend(self, items: Iterable[Mapping[str, JSON]]) -> list[str]:
        """Add JSON objects at the end as they are, all or none, and return their ids."""
        made, last_id = list[Pair](), self._last_id
        try:
            for number, item in enumerate(items):
                data = encode_item(item, f"item {number}")
                self._check_room(len(made))
                self._check_size(data)
                self._last_id = self._next_id()
                made.append((f"{self._last_id:020x}", data))
        except BaseException:
            self._last_id = last_id
            raise
        self._appended += made
        return [id for id, _ in made]

    def _next_id(self) -> int:
        return next_message_id(self._last_id, int.from_bytes(self._last_key))

    def check(self, role: str, content: JSON, id: str, extra: Mapping[str, JSON]) -> bytes:
        """Return a message as it is stored, if it may be appended.

        Raises:
            InvalidConversationValue: it cannot be stored as JSON.
            ConversationTooLarge: it is over MAX_MESSAGE_BYTES, or one more than MAX_MESSAGES.
        """
        self._check_room(0)
        data = encode_message(role, content, id, extra)
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
        if size <= 0:
            self._replaced, self._current = {}, {}
        elif position < self._kept_end and (self._replaced or self._current):
            for id, _ in [*self._tail, *self._recent][max(0, position - self._start) :]:
                self._replaced.pop(id, None)
                self._current.pop(id, None)
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
        for index, (appended_id, _) in enumerate(self._appended):
            if appended_id == id:
                self._appended[index] = id, new
                return
        self._replaced[id] = old, new

    def _as_replaced(self, id: str, data: bytes) -> bytes:
        """Return the bytes of a message that is stored with `data`."""
        return self._replaced[id][1] if id in self._replaced else self._current.get(id, data)

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
    ) -> tuple[int | None, list[Pair], Sequence[str], Sequence[Replacement], tuple[int, bytes]]:
        """Return the position up to which stored messages are kept (None: all), what to append,
        which of these may be there already, what to replace, and where what was known here of the
        stored ones ends (see `Change.seen`). Regard that as stored from now on."""
        appended, kept, stored = self._appended, self._kept_end, self._stored_end
        self._appended = []  # also if it was empty: the change that waits must not grow
        seen = stored, self._last_key
        once: Sequence[str] = ()
        replaced: Sequence[Replacement] = ()
        if kept < stored:
            self._cut(kept)
        if appended:
            self._recent += appended
            self._stored_end = self._kept_end = kept + len(appended)
        if self._once:
            once, self._once = tuple(self._once), set()
        if self._replaced:
            replaced = [
                Replacement(id=id, old=old, new=new) for id, (old, new) in self._replaced.items()
            ]
            self._current.update((each.id, each.new) for each in replaced)
            self._replaced = {}
        return kept if kept < stored else None, appended, once, replaced, seen

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
        known = [*self._tail, *self._recent]
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
        applied = [pair for pair in own if pair[0] not in committed.existing]
        stored = [*before, *committed.others, *([] if committed.repeated else applied)]
        end, surplus = committed.end, committed.end - expected_end
        room = min(committed.message_count, max(self._options.window, len(applied)))
        self._tail, self._recent = stored[len(stored) - min(len(stored), room) :], later
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
        stored = [*self._tail, *self._recent][: max(0, wanted)]
        for known_id, data in (*self._appended, *stored):
            if known_id == id:
                return self._as_replaced(id, data)
        return None

    def wanted(self, id: str, found: tuple[int, bytes] | None) -> bytes | None:
        """Return the bytes of a message that the store has found, as it is by now; None: there is
        none, or it is not wanted any more."""
        if found is None or found[0] >= self._kept_end:
            return None
        return self._as_replaced(id, found[1])

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
        found = [*read]
        first, recent = self._start, self._stored_end - len(self._recent)
        kept = min(stop, self._kept_end)
        found += self._tail[max(0, start - first) : max(0, kept - first)]
        found += self._recent[max(0, start - recent) : max(0, kept - recent)]
        found += self._appended[max(0, start - self._kept_end) : max(0, stop - self._kept_end)]
        if self._replaced or self._current:
            found = [(id, self._as_replaced(id, data)) for id, data in found]
        return [
            Message(_object(value), id)
            for (id, _), value in zip(found, decode_all([data for _, data in found]), strict=True)
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
