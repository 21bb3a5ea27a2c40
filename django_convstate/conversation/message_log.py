"""The messages of a conversation in memory: the newest ones as loaded, and what was appended since.
No I/O."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ..codec import JSON, decode_all, encode
from ..conf import Options
from ..exceptions import ConversationCorrupt, ConversationTooLarge, InvalidConversationType

Message = dict[str, JSON]


class MessageLog:
    """Stored are messages 0 to `_stored_count`, of which the first `_kept_count` are still wanted,
    and the newest are in `_tail`. Behind the kept ones come those that were appended."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # How to interrupt each message that is being streamed, by what streams it.
        self.streams: dict[object, Callable[[], None]] = {}
        # Where, as (start, stop), others have appended between our load and our saves. Noted only
        # for those who put a list here, because a conversation may be saved any number of times.
        self.remote_ranges: list[tuple[int, int]] | None = None

    def reset_to(self, tail: Sequence[bytes], count: int, *, offline: bool = False) -> None:
        """Hold the newest of the `count` stored messages, and nothing else. `offline`: the older
        ones are in a store that is unavailable."""
        self._offline = offline
        self._tail = tail
        self._stored_count = self._kept_count = count
        self._appended: list[bytes] = []
        if self.remote_ranges is not None:
            self.remote_ranges = []

    def discard_changes(self) -> None:
        """Go back to what the store holds, as far as is known."""
        self._kept_count = self._stored_count
        self._appended = []

    def append(self, role: str, content: JSON, **extra: JSON) -> None:
        """Add a message at the end. Raises as `check` does."""
        self._appended.append(self.check(role, content, **extra))

    def check(self, role: str, content: JSON, **extra: JSON) -> bytes:
        """Return a message as it is stored, if it may be appended.

        Raises:
            InvalidConversationValue: it cannot be stored as JSON.
            ConversationTooLarge: it is over MAX_MESSAGE_BYTES, or one more than MAX_MESSAGES.
        """
        if not isinstance(role, str) or not role:
            raise InvalidConversationType("The role of a message is a string that is not empty.")
        options, count = self._options, self._kept_count + len(self._appended)
        if options.max_messages is not None and count >= options.max_messages:
            raise ConversationTooLarge(
                f"The conversation has {count} messages; MAX_MESSAGES is {options.max_messages}."
            )
        data = encode_message(role, content, **extra)
        if len(data) > options.max_message_bytes:
            raise ConversationTooLarge(
                f"The message takes {len(data)} bytes as JSON; MAX_MESSAGE_BYTES is "
                f"{options.max_message_bytes}."
            )
        return data

    def truncate(self, size: int) -> None:
        """Keep the first `size` messages."""
        del self._appended[max(0, size - self._kept_count) :]
        self._kept_count = min(self._kept_count, size)

    def __len__(self) -> int:
        return self._kept_count + len(self._appended)

    @property
    def max_message_bytes(self) -> int:
        """The setting."""
        return self._options.max_message_bytes

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        return bool(self._appended) or self._kept_count < self._stored_count

    @property
    def shortened_to(self) -> int | None:
        """How many of the stored messages are to be kept; None: all."""
        return self._kept_count if self._kept_count < self._stored_count else None

    def collect_changes(self) -> tuple[int | None, list[bytes]]:
        """Return how many stored messages to keep (None: all) and what to append, and regard that
        as stored from now on."""
        appended, kept, stored = self._appended, self._kept_count, self._stored_count
        first = stored - len(self._tail)
        tail = [*self._tail[: max(0, kept - first)], *appended]
        self._tail = tail[-self._options.window :]
        self._stored_count = self._kept_count = kept + len(appended)
        self._appended = []
        return kept if kept < stored else None, appended

    def insert_remote(self, count: int, before_last: int) -> None:
        """Take note that others have added `count` messages, which are not loaded, before the last
        `before_last` ones of ours."""
        self._tail = self._tail[-before_last:] if before_last else []
        if self.remote_ranges is not None:
            first = self._stored_count - before_last
            self.remote_ranges.append((first, first + count))
        self._stored_count += count
        self._kept_count += count

    # Reading.

    def window_start(self, size: int) -> int:
        """Return where the newest `size` messages begin, as far back as they can be reached."""
        first = max(0, len(self) - size)
        if self._offline:
            first = max(first, min(self._stored_count - len(self._tail), self._kept_count))
        return first

    def missing(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the bounds of the messages among `start` to `stop` that are not in memory."""
        stop = min(stop, self._stored_count - len(self._tail), self._kept_count)
        return (start, stop) if start < stop else None

    def assemble(self, read: list[bytes], start: int, stop: int) -> list[Message]:
        """Return messages `start` to `stop`, of which the `read` ones come first."""
        first = self._stored_count - len(self._tail)
        kept = self._tail[max(0, start - first) : max(0, min(stop, self._kept_count) - first)]
        appended = self._appended[
            max(0, start - self._kept_count) : max(0, stop - self._kept_count)
        ]
        messages = decode_all([*read, *kept, *appended])
        if not all(type(m) is dict and type(m.get("role")) is str for m in messages):
            raise ConversationCorrupt("Among the stored messages is something else.")
        return messages

    def interrupt_streams(self) -> None:
        """Append what is being streamed as far as it has come, whatever may still hold its
        generator: a traceback, or an event loop that is about to close it."""
        for interrupt in list(self.streams.values()):
            interrupt()


def encode_message(role: str, content: JSON, **extra: JSON) -> bytes:
    """Return a message as it is stored."""
    message = {"role": role, "content": content, **extra}
    message.setdefault("timestamp", datetime.now(UTC).isoformat(timespec="milliseconds"))
    return encode(message, "message")
