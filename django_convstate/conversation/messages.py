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
from typing import Any, Final, overload

from django.utils.asyncio import async_unsafe

from ..codec import JSON
from ..exceptions import ConversationInterrupted, InvalidConversationType
from ..repository import Repository
from .message_log import Message
from .streamed import StreamedMessage
from .templating import alters_data
from .working_copy import WorkingCopy

# What chat completion APIs take; everything else that a message may have is ours or the project's.
LLM_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")


class Messages(Sequence[Message]):
    """All messages of a conversation, oldest first; those before the window are read when needed.

    A message that you get is a copy: what is said is said, and changing it changes nothing stored.
    """

    __slots__ = ("_copy", "_repository")

    def __init__(self, copy: WorkingCopy, repository: Repository) -> None:
        self._copy = copy
        self._repository = repository

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
        self._copy.log.append(role, content, **extra)

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
        message = StreamedMessage(self._copy.log, role, extra)
        if isinstance(chunks, Iterable):
            return message.pass_on(chunks)
        if isinstance(chunks, AsyncIterable):
            return message.apass_on(chunks)
        raise InvalidConversationType(
            f"Chunks come from an iterable or an async iterable, not {type(chunks).__name__}."
        )

    def window(self, size: int) -> list[Message]:
        """Return the newest `size` messages, oldest first; in an outage, those of them that are
        known here."""
        start = self._copy.log.window_start(max(0, operator.index(size)))
        return self._slice(start, len(self))

    def for_llm(self, size: int) -> list[Message]:
        """Return the newest `size` messages with the fields that chat completion APIs take."""
        return [
            {field: message[field] for field in LLM_FIELDS if field in message}
            for message in self.window(size)
        ]

    def all(self) -> list[Message]:
        """Return every message. Reads those before the window from the store."""
        return self.page(0, len(self))

    @alters_data
    async def aall(self) -> list[Message]:
        """See `all`."""
        return await self.apage(0, len(self))

    def page(self, start: int, stop: int) -> list[Message]:
        """Return messages `start` to `stop`, as a slice does. Reads what is not in memory.

        Raises:
            ConversationInterrupted: it was deleted, shortened or has expired in the meantime.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        missing = self._copy.log.missing(start, stop)
        read = self._repository.read_messages(self._copy.id, *missing) if missing else []
        return self._copy.log.assemble(_complete(read, missing), start, stop)

    @alters_data
    async def apage(self, start: int, stop: int) -> list[Message]:
        """See `page`."""
        start, stop, _ = slice(start, stop).indices(len(self))
        missing = self._copy.log.missing(start, stop)
        read = await self._repository.aread_messages(self._copy.id, *missing) if missing else []
        return self._copy.log.assemble(_complete(read, missing), start, stop)

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
        self._copy.log.truncate(slice(operator.index(size)).indices(len(self))[1])

    @alters_data
    def clear(self) -> None:
        """Drop all messages. See `truncate` for what others may have added."""
        self.truncate(0)

    def __len__(self) -> int:
        return len(self._copy.log)

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

    def _slice(self, start: int, stop: int) -> list[Message]:
        if self._copy.log.missing(start, stop):
            return self._page_from_sync_code(start, stop)
        return self._copy.log.assemble([], start, stop)

    @async_unsafe(
        "These messages are not in memory, and reading them here would block the event loop. "
        "Write `await conversation.messages.apage(start, stop)`, or raise "
        "CONVERSATION_STATE['WINDOW']."
    )
    def _page_from_sync_code(self, start: int, stop: int) -> list[Message]:
        return self.page(start, stop)


def _complete(read: list[bytes], missing: tuple[int, int] | None) -> list[bytes]:
    if missing and len(read) < missing[1] - missing[0]:
        raise ConversationInterrupted(
            "The conversation was deleted, shortened or has expired since it was loaded."
        )
    return read
