"""Consumers for chats: a message is handled on a fresh load and committed after it, and what others
add to the same conversation is sent to the client. A sync one runs in Channels' thread.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.message import Message
from ..exceptions import BackendUnavailable, ConversationError
from ..ids import hashed_id
from ..tracebacks import clears_own_locals
from . import listening

logger = logging.getLogger("django_convstate")


@clears_own_locals
class AsyncConversationConsumer(listening.Listening, AsyncJsonWebsocketConsumer):
    """Override `receive_message`. Has to be inside a `ConversationMiddlewareStack`."""

    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        """Handle one message of the client.

        Args:
            conversation: loaded just now, and saved after this; not if this raises.
            content: the message, decoded from JSON.

        `ConversationTooLarge`, `InvalidConversationValue` and `MessageNotFound`, raised here or by
        the save, are answered with a message of type "conversation.error"; our other errors with a
        close code.
        """

    async def get_conversation(self) -> Conversation:
        """Return the conversation of this socket, loaded just now. Called for each message, and for
        each that is heard of others.

        Override it for another one than the cookie's, that of a URL, say; all else follows it:

            id = self.scope["url_route"]["kwargs"]["id"]
            return await conversations.aopen(id, owner=self.scope["user"])

        The errors of `conversations` close the socket as those of the cookie's conversation do. No
        cookie is sent for one that is returned here.
        """
        self._handle.is_used = True
        await self._ajoin(self._handle.id)  # before the load, so that no commit falls between
        return await self._handle.aload()

    async def conversation_changed(
        self, conversation: Conversation, messages: list[Message]
    ) -> None:
        """Send the client what others have added: `messages`, with which it has `self.seen` of
        them. Empty, if others have only removed messages.

        What is changed in `conversation` here is not saved.
        """
        await self.send_json(listening.news_message(messages, self.seen or 0))

    async def save_conversation(self, conversation: Conversation) -> None:
        """Commit, and notify the others. Done after each message; a handler that takes long may do
        so in between, too.

        Raises as `Conversation.save` does, and:
            ConversationNotFound: the handler has deleted it, or given it a new id.
        """
        if conversation.id != self._id:
            await self._anotify(0, 0)
            raise listening.id_changed()
        log = working_copy_of(conversation).log
        kept = log.shortened_to
        await conversation.asave()
        has_changed, remote = self._note_saved(conversation)
        if has_changed or kept is not None:
            await self._anotify(log.end, kept)
        await self._deliver(conversation, remote)

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        """Load the conversation, accept the socket, and send what the client has missed."""
        try:
            conversation = await self._load()
        except ConversationError as error:
            # A socket can be closed with a code only after it was accepted.
            await self.accept()
            await self._send_error(error)
            return
        await super().websocket_connect(message)
        async with self._sending_errors():
            await self._catch_up(conversation)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode one frame of the client. One that is not JSON is answered with an error."""
        async with self._sending_errors():
            await self.receive_json(await self._decoded(text_data), **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle one message of the client between a load and a save."""
        if not self._handle.is_open:
            return
        async with self._sending_errors():
            if listening.is_token(content):
                self._accept_token(content)
                await self._catch_up(await self._load())
                return
            self._has_handled_message = True
            conversation = await self._load()
            async with conversation.aturn() if self.one_turn else nullcontext():
                await self._catch_up(conversation)
                async with listening.asaving_interrupted(conversation, self.save_conversation):
                    await self.receive_message(conversation, content)
                await self.save_conversation(conversation)

    async def _decoded(self, text: str | None) -> Any:
        if text is None:
            raise listening.not_json("is binary")
        try:
            return await self.decode_json(text)
        except (ValueError, RecursionError) as error:
            raise listening.not_json(f"cannot be decoded: {type(error).__name__}") from None

    async def conversation_news(self, event: dict[str, Any]) -> None:
        """Receive from another consumer that it has committed something."""
        if self._is_relevant(event):
            async with self._sending_errors():
                await self._catch_up(await self._load(), event["kept"])

    async def conversation_logout(self, event: dict[str, Any]) -> None:
        """Receive that the session has ended in which this socket was opened, and close it."""
        if self._handle.is_open:
            await self.close(listening.GONE)

    async def conversation_idle(self, event: dict[str, Any]) -> None:
        """Keep the conversation alive while the client sends nothing."""
        async with self._sending_errors():
            try:
                await self._touch()
            except BackendUnavailable as error:
                logger.warning(
                    "Conversation %s of an idle socket may expire, because its expiry could not be "
                    "slid; that is tried again. %s",
                    hashed_id(self._id or ""),
                    error,
                )

    async def _load(self) -> Conversation:
        self._handle.is_used = False  # unless it is loaded
        if self._id is not None:
            await self._ajoin(self._id)
        conversation = await self.get_conversation()
        # Another conversation than before was loaded, and its group was joined only now: a second
        # load reads what was committed in between. The new conversation in the place of an expired
        # one needs none: no other process knows its id yet.
        if await self._ajoin(conversation.id) and not self._handle.is_used:
            conversation = await self.get_conversation()
        self._note_loaded(conversation)
        return conversation

    async def _touch(self) -> None:
        if self._handle.is_used:
            await self._ajoin(self._handle.id)
            await self._handle.atouch()
        else:
            await self._catch_up(await self._load())  # which touches it

    async def _catch_up(self, conversation: Conversation, kept: int | None = None) -> None:
        await self._deliver(conversation, self._missing(conversation, kept))

    async def _deliver(self, conversation: Conversation, missing: list[range]) -> None:
        for page in listening.pages(missing):
            messages = await conversation.messages.apage(page.start, page.stop)
            if not self._handle.is_open:
                return
            self.seen = (self.seen or 0) + len(page)
            await self.conversation_changed(conversation, messages)

    @asynccontextmanager
    async def _sending_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except ConversationError as error:
            await self._send_error(error)

    async def _send_error(self, error: ConversationError) -> None:
        code = listening.log_error(error)
        if self._handle.is_open and code is not None:
            await self.close(code)
        elif self._handle.is_open:
            # Its kind alone, for its text may name keys of the state.
            await self.send_json({"type": "conversation.error", "error": type(error).__name__})
