"""The list half of a conversation: what was said, of which the newest window is in memory."""

import operator
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, Final, overload

from django.utils.asyncio import async_unsafe

from ..backends.toolkit.packed import PackedMessages, Pair
from ..codec import JSON
from ..exceptions import ConversationInterrupted, InvalidConversationType, MessageNotFound
from ..ids import validate_message_id
from ..repository import Repository
from ..tracebacks import clears_locals
from .message import Message, message_of
from .streamed import StreamedMessage
from .templating import alters_data
from .working_copy import WorkingCopy

# What chat completion APIs take; everything else that a message may have is ours or the project's.
LLM_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")


@clears_locals
class Messages(Sequence[Message]):
    """All messages of a conversation, oldest first; those before the window are read when needed.

    As a sequence it has the messages that are there. `page` and `dropped` count positions, from the
    first message that there ever was, so that they stay the same when the oldest are dropped.
    """

    __slots__ = ("_copy", "_repository")

    def __init__(self, copy: WorkingCopy, repository: Repository) -> None:
        self._copy = copy
        self._repository = repository

    def append(self, /, role: str, content: JSON, *, id: str | None = None, **extra: JSON) -> str:
        """Add a message at the end, with a `timestamp` (ISO 8601, UTC) unless `extra` has one.

        Args:
            role: "user", "assistant", "system", "tool" or what the model calls it.
            content: the text, or any JSON.
            id: of the message, up to 64 characters, as a webhook or a browser sends it. If there
                is a message with that id, this one is not kept. None: it gets an id.
            extra: further fields of the message, any JSON.

        Returns:
            Its id, which is also in its field "id".

        Raises:
            InvalidConversationValue: the message or the id cannot be stored.
            ConversationTooLarge: it is over MAX_MESSAGE_BYTES, or one more than MAX_MESSAGES.
        """
        return self._copy.log.append(role, content, id, extra)

    def extend(self, items: Iterable[dict[str, JSON]]) -> list[str]:
        """Add JSON objects at the end, all or none, as they are: nothing is added to them, so that
        the items of an SDK come back as they went in.

        Returns:
            Their ids, which are not in them.

        Raises:
            InvalidConversationType: one is not a JSON object.
            InvalidConversationValue, ConversationTooLarge: see `append`.
        """
        return self._copy.log.extend(items)

    def find(self, id: str) -> Message:
        """Return the message with an id; one before the window is read from the store.

        Raises:
            MessageNotFound: there is none.
            BackendUnavailable: it is not known here whether there is.
            InvalidConversationValue: there cannot be one.
        """
        return message_of(validate_message_id(id), self._find(id))

    @alters_data
    async def afind(self, id: str) -> Message:
        """See `find`."""
        return message_of(validate_message_id(id), await self._afind(id))

    @alters_data
    def update(self, id: str, /, **fields: JSON) -> None:
        """Change some fields of a message when this is saved. If others have changed others of its
        fields by then, both hold.

        Raises:
            MessageNotFound: there is no message with that id. Also when this is saved, if it was
                dropped meanwhile.
            BackendUnavailable: it is not known here whether there is.
            InvalidConversationValue, ConversationTooLarge: see `append`.
        """
        self._copy.log.update(id, self._find(validate_message_id(id)), fields)

    @alters_data
    async def aupdate(self, id: str, /, **fields: JSON) -> None:
        """See `update`."""
        self._copy.log.update(id, await self._afind(validate_message_id(id)), fields)

    @alters_data
    def redact(self, id: str) -> None:
        """Leave of a message its id, role and timestamp, and `"redacted": true`, when this is
        saved, whatever others have made of it.

        Raises:
            MessageNotFound: there is no message with that id.
            BackendUnavailable: it is not known here whether there is.
        """
        self._copy.log.redact(id, self._find(validate_message_id(id)))

    @alters_data
    async def aredact(self, id: str) -> None:
        """See `redact`."""
        self._copy.log.redact(id, await self._afind(validate_message_id(id)))

    @property
    def dropped(self) -> int:
        """How many of the oldest messages were dropped because of WHEN_FULL: the position of the
        first one that is there."""
        return self._copy.log.dropped

    @overload
    def stream(
        self, role: str, chunks: Iterable[str], *, id: str | None = None, **extra: JSON
    ) -> Generator[str, None, None]: ...
    @overload
    def stream(
        self, role: str, chunks: AsyncIterable[str], *, id: str | None = None, **extra: JSON
    ) -> AsyncGenerator[str, None]: ...
    def stream(
        self,
        role: str,
        chunks: Iterable[str] | AsyncIterable[str],
        *,
        id: str | None = None,
        **extra: JSON,
    ) -> Generator[str, None, None] | AsyncGenerator[str, None]:
        """Pass the chunks of a message through unchanged, and append it when it has come to its
        end. One that breaks off, because its generator is closed, its task cancelled, or `chunks`
        raises, is appended as far as it has come, with `"interrupted": True`. One without text is
        not appended. Half an emoji (a lone surrogate) at the end of a chunk is passed on with the
        next one.

        Args:
            role: as for `append`.
            chunks: an iterable or async iterable of str, closed at the end.
            id, extra: as for `append`.

        Returns:
            A generator or async generator, as `chunks` is.

        Raises as `append` does, and while it is iterated:
            InvalidConversationType: a chunk is not a str.
            InvalidConversationValue: a lone surrogate is left alone.
            ConversationTooLarge: the message has grown over MAX_MESSAGE_BYTES. What fits is
                appended as interrupted.
        """
        message = StreamedMessage(self._copy.log, role, id, extra)
        if isinstance(chunks, Iterable):
            return message.pass_on(chunks)
        if isinstance(chunks, AsyncIterable):
            return message.apass_on(chunks)
        raise InvalidConversationType(
            f"Chunks come from an iterable or an async iterable, not {type(chunks).__name__}."
        )

    def window(self, size: int | None = None) -> list[Message]:
        """Return the newest `size` messages (None: WINDOW), oldest first; in an outage, those of
        them that are known here."""
        return self._between(*self._newest(size))

    def for_llm(self, size: int | None = None) -> list[dict[str, JSON]]:
        """Return the newest `size` messages (None: WINDOW), as plain dictionaries with the fields
        that chat completion APIs take."""
        log, (start, stop) = self._copy.log, self._newest(size)
        is_here = log.missing(start, stop) is None
        return [
            {field: message[field] for field in LLM_FIELDS if field in message}
            for message in (log.values(start, stop) if is_here else self._between(start, stop))
        ]

    def _newest(self, size: int | None) -> tuple[int, int]:
        log = self._copy.log
        wanted = log.options.window if size is None else max(0, operator.index(size))
        return log.window_start(wanted), log.end

    def all(self) -> list[Message]:
        """Return every message. Reads those before the window from the store."""
        return self.page(0, self._copy.log.end)

    @alters_data
    async def aall(self) -> list[Message]:
        """See `all`."""
        return await self.apage(0, self._copy.log.end)

    def page(self, start: int, stop: int) -> list[Message]:
        """Return messages `start` to `stop`, as a slice does. Reads what is not in memory.

        Raises:
            ConversationInterrupted: it was deleted, shortened or has expired in the meantime.
        """
        start, stop = self._bounds(start, stop)
        missing = self._copy.log.missing(start, stop)
        read = self._repository.read_messages(self._copy.id, *missing) if missing else []
        if missing and len(read) < missing[1] - missing[0]:
            self._check_dropped(read, missing, self._repository.exists(self._copy.id))
        return self._copy.log.assemble(read, start, stop)

    @alters_data
    async def apage(self, start: int, stop: int) -> list[Message]:
        """See `page`."""
        start, stop = self._bounds(start, stop)
        missing = self._copy.log.missing(start, stop)
        read = await self._repository.aread_messages(self._copy.id, *missing) if missing else []
        if missing and len(read) < missing[1] - missing[0]:
            self._check_dropped(read, missing, await self._repository.aexists(self._copy.id))
        return self._copy.log.assemble(read, start, stop)

    def _bounds(self, start: int, stop: int) -> tuple[int, int]:
        log = self._copy.log
        start, stop, _ = slice(start, stop).indices(log.end)
        return max(start, log.dropped), stop

    def _check_dropped(self, read: Sequence[Pair], missing: tuple[int, int], exists: bool) -> None:
        """Check that what is missing was dropped as the oldest, if that is how it is set: then what
        is left comes right before the messages in memory."""
        drops = self._copy.log.options.when_full == "drop_oldest"
        is_end = not read or (
            isinstance(read, PackedMessages) and read.start + len(read) == missing[1]
        )
        if not (drops and exists and is_end):
            raise ConversationInterrupted(
                "The conversation was deleted, shortened or has expired since it was loaded."
            )

    @alters_data
    def pop(self) -> Message:
        """Take back the last message and return it. See `truncate` for what others may have added.

        Raises:
            IndexError: there is none.
            BackendUnavailable: nothing is known here of what is stored.
        """
        self._copy.check_known()
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

        Raises:
            BackendUnavailable: nothing is known here of what is stored.
        """
        self._copy.check_known()
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
        first = last + 1 - len(found)  # the oldest may have been dropped meanwhile
        return [found[position - first] for position in positions if position >= first]

    def __iter__(self) -> Iterator[Message]:
        return iter(self._slice(0, len(self)))

    async def __aiter__(self) -> AsyncIterator[Message]:
        for message in await self.aall():
            yield message

    def __reversed__(self) -> Iterator[Message]:
        return reversed(self._slice(0, len(self)))

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of the first message that equals `value`, as a list does."""
        return self._slice(0, len(self)).index(value, start, len(self) if stop is None else stop)

    def __repr__(self) -> str:
        return f"<Messages: {len(self)}>"

    __sentry_repr__ = __repr__

    def _slice(self, start: int, stop: int) -> list[Message]:
        dropped = self._copy.log.dropped
        return self._between(dropped + start, dropped + stop)

    def _between(self, start: int, stop: int) -> list[Message]:
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

    def _find(self, id: str) -> bytes:
        data = self._copy.log.peek(id)
        if data is None:
            self._copy.check_known()
            if not self._copy.log.is_complete:
                data = self._copy.log.wanted(id, self._find_in_store(id))
        return _found(data)

    async def _afind(self, id: str) -> bytes:
        data = self._copy.log.peek(id)
        if data is None:
            self._copy.check_known()
            if not self._copy.log.is_complete:
                found = await self._repository.afind(self._copy.id, id)
                data = self._copy.log.wanted(id, found)
        return _found(data)

    @async_unsafe(
        "This message is not in memory, and looking for it here would block the event loop. Write "
        "`await` and `afind`, `aupdate` or `aredact`."
    )
    def _find_in_store(self, id: str) -> tuple[int, bytes] | None:
        return self._repository.find(self._copy.id, id)


def _found(data: bytes | None) -> bytes:
    if data is None:
        raise MessageNotFound("The conversation has no message with that id.")
    return data
