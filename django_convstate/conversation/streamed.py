"""A message that arrives in chunks: passed through unchanged, and appended as one at its end."""

import logging
from bisect import bisect_right
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from functools import partial
from typing import Final

from ..codec import JSON, encode
from ..exceptions import ConversationTooLarge, InvalidConversationType, InvalidConversationValue
from ..ids import validate_message_id
from ..tracebacks import clear_own_locals, without_locals
from .message import encode_message
from .message_log import MessageLog

logger = logging.getLogger("django_convstate")

MADE_ID: Final = "0" * 20  # takes as many bytes as the id that the message will get


class StreamedMessage:
    """One message in the making: what has arrived of it so far."""

    def __init__(
        self,
        log: MessageLog,
        role: str,
        id: str | None,
        extra: dict[str, JSON],
        finish: Callable[[], Mapping[str, JSON]] | None = None,
    ) -> None:
        """Expect the content of a message. `finish` returns what else it has in the end. Raises as
        `MessageLog.check` does."""
        if "content" in extra:
            raise InvalidConversationType("The content of a streamed message is made of chunks.")
        self._log = log
        self._role = role
        self._id = id
        self._extra = extra
        self._finish = finish
        # How many bytes of JSON the content may take.
        made = MADE_ID if id is None else validate_message_id(id)
        self._room = log.options.max_message_bytes - len(log.check(role, "", made, extra))
        self._parts: list[str] = []
        # The first half of a character beyond 16 bits, whose other half is to come: a source that
        # cuts its text by the units of UTF-16, as JavaScript does, may cut there.
        self._half = ""
        self._is_over = False

    def pass_on(self, chunks: Iterable[str]) -> Generator[str, None, None]:
        """Yield each chunk, and append the message when the chunks have ended. Half a character at
        the end of a chunk is yielded with the next one.

        Raises:
            InvalidConversationValue: a chunk cannot be stored, or half a character is all that
                came of it. What came before was appended, and marked as interrupted.
        """
        close, chunk, text = getattr(chunks, "close", None), "", ""
        try:
            for chunk in chunks:
                text = self._add(chunk)
                if text or not chunk:
                    yield text
                if self._room < 0:
                    break
            else:
                self._check_whole()
            self.end()
        except BaseException as error:
            chunk = text = ""
            del chunks  # none of them is for an error report
            self.end(interrupted=True)
            clear_own_locals(error)
            raise
        finally:
            if close is not None:
                close()

    async def apass_on(self, chunks: AsyncIterable[str]) -> AsyncGenerator[str, None]:
        """See `pass_on`."""
        close, chunk, text = getattr(chunks, "aclose", None), "", ""
        try:
            async for chunk in chunks:
                text = self._add(chunk)
                if text or not chunk:
                    yield text
                if self._room < 0:
                    break
            else:
                self._check_whole()
            self.end()
        except BaseException as error:
            chunk = text = ""
            del chunks  # none of them is for an error report
            self.end(interrupted=True)
            clear_own_locals(error)
            raise
        finally:
            if close is not None:
                await close()

    def end(self, *, interrupted: bool = False) -> None:
        """Append what has arrived as one message, the first time that this is called.

        Raises:
            ConversationTooLarge: what fits was appended, and marked as interrupted.
        """
        with self._log.lock.held:  # a turn may interrupt it from another thread
            if self._is_over or not self._parts:
                return
            self._is_over = True
            del self._log.streams[self]
            text = "".join(self._parts)
        if not text:
            return
        extra = self._extra | self._last_fields()
        marked = extra | {"interrupted": True}
        try:
            self._log.append(self._role, text, self._id, marked if interrupted else extra)
        except ConversationTooLarge:
            self._log.append(self._role, self._cut(text, marked), self._id, marked)
            if not interrupted:
                raise

    def _last_fields(self) -> dict[str, JSON]:
        """Return what `finish` adds; nothing, if that fails: what was said is worth more."""
        if self._finish is None:
            return {}
        try:
            fields = dict(self._finish())
            if not fields.keys().isdisjoint({"role", "content", "id"}):
                raise InvalidConversationType("finish() cannot set role, content or id.")
            size = len(encode(fields, "finish()")) + len(',"interrupted":true')
            # A text that has to be cut anyway leaves them as much room as they need.
            if size > (self._room if self._room >= 0 else self._log.options.max_message_bytes // 2):
                raise ConversationTooLarge(f"What finish() returns has {size} bytes.")
        except Exception as error:
            logger.error(
                "finish() of a streamed message failed. The message is kept, without the fields "
                "that it was to add.",
                exc_info=without_locals(error),
            )
            return {}
        return fields

    def _add(self, chunk: object) -> str:
        """Take a chunk, and return what can be sent on."""
        if not isinstance(chunk, str):
            raise InvalidConversationType(
                f"Chunk {len(self._parts)} of a stream is of type {type(chunk).__name__}; write "
                "an iterator that yields the text of each, and nothing else."
            )
        text = self._with_half(chunk)
        self._room -= len(encode(text, f"chunk {len(self._parts)}")) - len('""')
        if not self._parts:
            self._log.streams[self] = partial(self.end, interrupted=True)
        self._parts.append(text)
        return text

    def _with_half(self, chunk: str) -> str:
        """Return a chunk with the half character that came before it, and without one at its
        end."""
        text = chunk
        if self._half and chunk:
            text, self._half = self._half + chunk, ""
            if "\udc00" <= chunk[0] <= "\udfff":
                text = text[:2].encode("utf-16", "surrogatepass").decode("utf-16") + text[2:]
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text

    def _check_whole(self) -> None:
        if self._half:
            raise InvalidConversationValue(
                "The stream ended in a lone surrogate, which UTF-8 cannot hold: the other half of "
                "its last character did not come."
            )

    def _cut(self, text: str, extra: dict[str, JSON]) -> str:
        """Return as much from the beginning of `text` as there is room for."""

        def size(length: int) -> int:
            id = self._id or MADE_ID
            return len(encode_message(self._role, text[:length], id, extra))

        fitting = bisect_right(range(len(text)), self._log.options.max_message_bytes, key=size)
        return text[: max(0, fitting - 1)]
