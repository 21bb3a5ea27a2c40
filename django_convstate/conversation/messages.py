"""The list half of a conversation: what was said, of which the newest window is in memory."""

import operator
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, overload

from django.utils.asyncio import async_unsafe

from ..codec import JSON, decode_all, encode
from ..exceptions import (
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationType,
)
from .streamed import Answer
from .templating import alters_data

if TYPE_CHECKING:
    from ..store import ConversationStore

Message = dict[str, JSON]

# What chat completion APIs take; everything else that a message may have is ours or the project's.
LLM_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")


class Messages(Sequence[Message]):
    """All messages of a conversation, oldest first; those before the window are read when needed.

    A message that you get is a copy: what is said is said, and changing it changes nothing stored.

    Stored are messages 0 to `_stored`, of which the first `_kept` are still wanted, and the last
    ones are in `_loaded`. Behind the kept ones come the `_new`.
    """

    __slots__ = (
        "_answers",
        "_at_hand",
        "_id",
        "_kept",
        "_loaded",
        "_new",
        "_store",
        "_stored",
        "slipped_in",
    )

    def __init__(self, store: "ConversationStore") -> None:
        self._store = store
        self._answers: list[Answer] = []  # those that are being streamed
        # Where, as (start, stop), others have spoken between our load and our saves. Noted only for
        # whoever puts a list here, because somebody may save one conversation for ever.
        self.slipped_in: list[tuple[int, int]] | None = None
        self.take_stored("", [], 0)

    def take_stored(
        self, id: str, loaded: list[bytes], count: int, *, at_hand: bool = False
    ) -> None:
        """Begin with the newest messages as `loaded` of the `count` that are stored under `id`.

        `at_hand`: the others are in a store that is away, so let a window end where these do.
        """
        self._id = id
        self._at_hand = at_hand
        self._loaded = loaded
        self._stored = self._kept = count
        self._new: list[bytes] = []
        if self.slipped_in is not None:
            self.slipped_in = []

    def forget_changes(self) -> None:
        """Go back to what the store holds, as far as we know."""
        self._kept = self._stored
        self._new = []

    def append(self, role: str, content: JSON, **extra: JSON) -> None:
        """Add a message at the end, with a `timestamp` (ISO 8601, UTC) unless `extra` has one.

        Args:
            role: "user", "assistant", "system", "tool" or what the model calls it.
            content: the text, or any JSON.
            extra: further fields of the message, any JSON.

        Raises:
            InvalidConversationValue: the message cannot be stored as JSON.
            ConversationTooLarge: it is over MAX_MESSAGE_BYTES, or one more than MAX_MESSAGES.
        """
        self._new.append(self._checked(role, content, **extra))

    @overload
    def stream(
        self, role: str, chunks: Iterable[str], **extra: JSON
    ) -> Generator[str, None, None]: ...
    @overload
    def stream(
        self, role: str, chunks: AsyncIterable[str], **extra: JSON
    ) -> AsyncGenerator[str, None]: ...
    def stream(
        self, role: str, chunks: Iterable[str] | AsyncIterable[str], **extra: JSON
    ) -> Generator[str, None, None] | AsyncGenerator[str, None]:
        """Pass the chunks of a message through unchanged, and append it when it has come to its
        end. One that breaks off, because its generator is closed, its task cancelled, or `chunks`
        raises, is appended as far as it has come, with `"interrupted": True`. One without text is
        not appended.

        Args:
            role: as for `append`.
            chunks: an iterable or async iterable of str, closed at the end.
            extra: as for `append`.

        Returns:
            A generator or async generator, as `chunks` is.

        Raises as `append` does, and while it is iterated:
            InvalidConversationType: a chunk is not a str.
            ConversationTooLarge: the message has grown over MAX_MESSAGE_BYTES. What fits is
                appended as interrupted.
        """
        limit = self._store.options.max_message_bytes
        room = limit - len(self._checked(role, "", **extra))
        answer = Answer(self, role, extra, room, limit)
        if isinstance(chunks, Iterable):
            return answer.pass_on(chunks)
        if isinstance(chunks, AsyncIterable):
            return answer.apass_on(chunks)
        raise InvalidConversationType(
            f"Chunks come from an iterable or an async iterable, not {type(chunks).__name__}."
        )

    def window(self, size: int) -> list[Message]:
        """Return the newest `size` messages, oldest first; in an outage, those of them that are
        known here."""
        first = max(0, len(self) - max(0, operator.index(size)))
        if self._at_hand:
            first = max(first, min(self._stored - len(self._loaded), self._kept))
        return self._slice(first, len(self))

    def for_llm(self, size: int) -> list[Message]:
        """Return the newest `size` messages with the fields that chat completion APIs take."""
        return [
            {field: message[field] for field in LLM_FIELDS if field in message}
            for message in self.window(size)
        ]

    def all(self) -> list[Message]:
        """Return every message. Reads those before the window from the store."""
        return self.page(0, len(self))

    async def aall(self) -> list[Message]:
        return await self.apage(0, len(self))

    def page(self, start: int, stop: int) -> list[Message]:
        """Return messages `start` to `stop`, as a slice does. Reads what is not in memory.

        Raises:
            ConversationInterrupted: it was deleted, shortened or has expired in the meantime.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        missing = self._missing(start, stop)
        read = self._store.read_messages(self._id, *missing) if missing else []
        return self._assemble(_complete(read, missing), start, stop)

    async def apage(self, start: int, stop: int) -> list[Message]:
        start, stop, _ = slice(start, stop).indices(len(self))
        missing = self._missing(start, stop)
        read = await self._store.aread_messages(self._id, *missing) if missing else []
        return self._assemble(_complete(read, missing), start, stop)

    @alters_data
    def pop(self) -> Message:
        """Take back the last message and return it. See `truncate` for what others may have added.

        Raises:
            IndexError: there is none.
        """
        if not len(self):
            raise IndexError("pop from a conversation without messages")
        message = self[-1]
        self.truncate(len(self) - 1)
        return message

    def truncate(self, size: int) -> None:
        """Keep the first `size` messages and drop the others. A negative `size` counts from the
        end, as in a slice.

        That goes for what is stored when this is saved: what others have appended in the meantime
        is dropped, too. `save(expected_version=...)` refuses instead.
        """
        size = slice(operator.index(size)).indices(len(self))[1]
        del self._new[max(0, size - self._kept) :]
        self._kept = min(self._kept, size)

    @alters_data
    def clear(self) -> None:
        """Drop all messages. See `truncate` for what others may have added."""
        self.truncate(0)

    def __len__(self) -> int:
        return self._kept + len(self._new)

    @overload
    def __getitem__(self, wanted: int) -> Message: ...
    @overload
    def __getitem__(self, wanted: slice) -> list[Message]: ...
    def __getitem__(self, wanted: int | slice) -> Message | list[Message]:
        positions = range(len(self))[wanted]  # checks as a list does
        if isinstance(positions, int):
            return self._slice(positions, positions + 1)[0]
        if not positions:
            return []
        first, last = sorted((positions[0], positions[-1]))
        found = self._slice(first, last + 1)
        return [found[position - first] for position in positions]

    def __iter__(self) -> Iterator[Message]:
        return iter(self._slice(0, len(self)))

    def __reversed__(self) -> Iterator[Message]:
        return reversed(self._slice(0, len(self)))

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of the first message that equals `value`, as a list does."""
        return self._slice(0, len(self)).index(value, start, len(self) if stop is None else stop)

    def __repr__(self) -> str:
        return f"<Messages: {len(self)}>"

    @property
    def is_modified(self) -> bool:
        return bool(self._new) or self._kept < self._stored

    @property
    def shortened_to(self) -> int | None:
        """How many of the stored messages are to be kept; None: all."""
        return self._kept if self._kept < self._stored else None

    def take_changes(self) -> tuple[int | None, list[bytes]]:
        """Return how many stored messages to keep (None: all) and what to append, and regard that
        as stored from now on."""
        keep = self.shortened_to
        appended = self._new
        first = self._stored - len(self._loaded)
        loaded = self._loaded[: max(0, self._kept - first)] + appended
        self._loaded = loaded[-self._store.options.window :]
        self._stored = self._kept = self._kept + len(appended)
        self._new = []
        return keep, appended

    def note_others(self, surplus: int, appended: int) -> None:
        """Take note that others have added `surplus` messages, which we have not seen, before the
        last `appended` ones of ours."""
        self._loaded = self._loaded[-appended:] if appended else []
        if self.slipped_in is not None:
            first = self._stored - appended
            self.slipped_in.append((first, first + surplus))
        self._stored += surplus
        self._kept += surplus

    def note_begun(self, answer: Answer) -> None:
        self._answers.append(answer)

    def note_ended(self, answer: Answer) -> None:
        self._answers.remove(answer)

    def interrupt_answers(self) -> None:
        """Append what is being streamed as far as it has come, whoever may still hold its
        generator: a traceback, or an event loop that is about to close it."""
        for answer in self._answers.copy():
            answer.end(interrupted=True)

    @staticmethod
    def encoded(role: str, content: JSON, **extra: JSON) -> bytes:
        """Return a message as it is stored."""
        message = {"role": role, "content": content, **extra}
        message.setdefault("timestamp", datetime.now(UTC).isoformat(timespec="milliseconds"))
        return encode(message, "message")

    def _checked(self, role: str, content: JSON, **extra: JSON) -> bytes:
        if not isinstance(role, str) or not role:
            raise InvalidConversationType("The role of a message is a string that is not empty.")
        options = self._store.options
        if options.max_messages is not None and len(self) >= options.max_messages:
            raise ConversationTooLarge(
                f"The conversation has {len(self)} messages; MAX_MESSAGES is "
                f"{options.max_messages}."
            )
        data = self.encoded(role, content, **extra)
        if len(data) > options.max_message_bytes:
            raise ConversationTooLarge(
                f"The message takes {len(data)} bytes as JSON; MAX_MESSAGE_BYTES is "
                f"{options.max_message_bytes}."
            )
        return data

    def _slice(self, start: int, stop: int) -> list[Message]:
        if self._missing(start, stop):
            return self._page_from_sync_code(start, stop)
        return self._assemble([], start, stop)

    @async_unsafe(
        "These messages are not in memory, and reading them here would block the event loop. "
        "Write `await conversation.messages.apage(start, stop)`, or raise "
        "CONVERSATION_STATE['WINDOW']."
    )
    def _page_from_sync_code(self, start: int, stop: int) -> list[Message]:
        return self.page(start, stop)

    def _missing(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the bounds of the stored messages among `start` to `stop` that are not loaded."""
        first_loaded = self._stored - len(self._loaded)
        stop = min(stop, first_loaded, self._kept)
        return (start, stop) if start < stop else None

    def _assemble(self, read: list[bytes], start: int, stop: int) -> list[Message]:
        """Return messages `start` to `stop`, of which the `read` ones come first."""
        first_loaded = self._stored - len(self._loaded)
        kept = self._loaded[
            max(0, start - first_loaded) : max(0, min(stop, self._kept) - first_loaded)
        ]
        new = self._new[max(0, start - self._kept) : max(0, stop - self._kept)]
        messages = decode_all(read + kept + new)
        if not all(type(m) is dict and type(m.get("role")) is str for m in messages):
            raise ConversationCorrupt("Among the stored messages is something else.")
        return messages


def _complete(read: list[bytes], missing: tuple[int, int] | None) -> list[bytes]:
    if missing and len(read) < missing[1] - missing[0]:
        raise ConversationInterrupted(
            "The conversation was deleted, shortened or has expired since it was loaded."
        )
    return read
