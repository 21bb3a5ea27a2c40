"""The list half of a conversation: what was said, of which the newest window is in memory."""

import operator
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from typing import overload

from django.utils.asyncio import async_unsafe

from ..codec import JSON
from ..exceptions import InvalidConversationType, MessageNotFound
from ..ids import validate_message_id
from ..tracebacks import clears_locals
from .message import Message, message_of
from .reading import ReadMessages
from .streamed import StreamedMessage
from .templating import alters_data

Finish = Callable[[], Mapping[str, JSON]]


@clears_locals
class Messages(ReadMessages):
    """What was said in a conversation, and what is said now; see `ReadMessages`."""

    __slots__ = ()

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

    @overload
    def stream(
        self,
        role: str,
        chunks: Iterable[str],
        *,
        id: str | None = None,
        finish: Finish | None = None,
        **extra: JSON,
    ) -> Generator[str, None, None]: ...
    @overload
    def stream(
        self,
        role: str,
        chunks: AsyncIterable[str],
        *,
        id: str | None = None,
        finish: Finish | None = None,
        **extra: JSON,
    ) -> AsyncGenerator[str, None]: ...
    def stream(
        self,
        role: str,
        chunks: Iterable[str] | AsyncIterable[str],
        *,
        id: str | None = None,
        finish: Finish | None = None,
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
            finish: returns further fields, which are known only when the stream has ended: tokens,
                the time to the first one. Called once, before the message is appended, also if it
                was interrupted. If it raises, or what it returns cannot be stored, that is logged,
                and the message is kept without.

        Returns:
            A generator or async generator, as `chunks` is.

        Raises as `append` does, and while it is iterated:
            InvalidConversationType: a chunk is not a str.
            InvalidConversationValue: a lone surrogate is left alone.
            ConversationTooLarge: the message has grown over MAX_MESSAGE_BYTES. What fits is
                appended as interrupted.
        """
        message = StreamedMessage(self._copy.log, role, id, extra, finish)
        if isinstance(chunks, Iterable):
            return message.pass_on(chunks)
        if isinstance(chunks, AsyncIterable):
            return message.apass_on(chunks)
        raise InvalidConversationType(
            f"Chunks come from an iterable or an async iterable, not {type(chunks).__name__}."
        )

    @alters_data
    def pop(self) -> Message:
        """Take back the last message and return it. See `truncate` for what others may have added.

        Raises:
            IndexError: there is none.
            BackendUnavailable: nothing is known here of what is stored.
        """
        self._copy.check_known()
        log = self._copy.log
        while True:  # another thread may append meanwhile
            view = log.view()
            if view.end == view.dropped:
                raise IndexError("pop from a conversation without messages")
            message = self._slice(view, view.end - 1, view.end)[0]
            if log.take_back(view.end):
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
