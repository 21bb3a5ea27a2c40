"""Consumers that are a chat each: a message is handled on a fresh load and committed after it, and
what others say in the same conversation arrives by itself. Sync code differs by the await alone.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer

from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.message_log import Message
from ..exceptions import BackendUnavailable, ConversationError, ConversationNotFound
from .listening import Listening, error_message, is_token, logger, news_message, pages


class AsyncConversationConsumer(Listening, AsyncJsonWebsocketConsumer):
    """Fill in `receive_message`. Has to be inside a `ConversationMiddlewareStack`."""

    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        """Handle one message of the client.

        Args:
            conversation: loaded just now, and saved after this; not if this raises.
            content: the message, decoded from JSON.

        What it may raise is answered so: `ConversationTooLarge` and `InvalidConversationValue`
        with a message of type "conversation.error", our other errors with a close code.
        """

    async def conversation_changed(
        self, conversation: Conversation, messages: list[Message]
    ) -> None:
        """Tell the client what others have said: `messages`, after which it has `self.seen` of
        them. Nothing, if others have only taken back what they had said.

        What is changed in `conversation` here is not saved.
        """
        await self.send_json(news_message(messages, self.seen or 0))

    async def save_conversation(self, conversation: Conversation) -> None:
        """Commit, and let the others hear. Done after each message; a handler that takes its time
        may do so in between, too.

        Raises as `Conversation.asave` does, and:
            ConversationNotFound: the handler has deleted it, or given it a new id.
        """
        try:
            self._check_id(conversation)
        except ConversationNotFound:
            await self._tell(0, 0)
            raise
        kept = working_copy_of(conversation).log.shortened_to
        await conversation.asave()
        has_said, slipped_in = self._note_said(conversation)
        if has_said or kept is not None:
            await self._tell(len(conversation.messages), kept)
        for positions in slipped_in:
            await self._hear(conversation, positions)

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        try:
            conversation = await self._load()
        except ConversationError as error:
            # Before it is open, a socket cannot be closed with a code.
            await self.accept()
            await self._answer(error)
            return
        await super().websocket_connect(message)
        async with self._answering():
            await self._catch_up(conversation)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if not self._door.is_open:
            return
        async with self._answering():
            if is_token(content):
                self._take_token(content)
                await self._catch_up(await self._load())
                return
            self._has_spoken = True
            conversation = await self._load()
            async with conversation.aturn() if self.one_turn else nullcontext():
                await self._catch_up(conversation)
                await self.receive_message(conversation, content)
                await self.save_conversation(conversation)

    async def conversation_news(self, event: dict[str, Any]) -> None:
        """Hear from another consumer that it has committed something."""
        if self._concerns(event):
            async with self._answering():
                await self._catch_up(await self._load(), event["kept"])

    async def conversation_idle(self, event: dict[str, Any]) -> None:
        """Keep alive what the client listens to without saying anything."""
        if self._has_to_join():
            await self._join()
        async with self._answering():
            try:
                await self._door.atouch()
            except BackendUnavailable as error:
                logger.warning("A conversation could not be kept alive: %s", error)

    async def _load(self) -> Conversation:
        # First the group, and then a look: so nothing is said in between.
        if self._has_to_join():
            await self._join()
        conversation = await self._door
        if self._has_to_join():
            await self._join()  # what the cookie named is gone, and this is a new one
        self._note_loaded(conversation)
        return conversation

    async def _catch_up(self, conversation: Conversation, kept: int | None = None) -> None:
        lacking = self._lacking(conversation, kept)
        if lacking is None:
            return
        self.seen = lacking.start
        if lacking:
            await self._hear(conversation, lacking)
        elif self._door.is_open:
            await self.conversation_changed(conversation, [])

    async def _hear(self, conversation: Conversation, positions: range) -> None:
        for page in pages(positions):
            messages = await conversation.messages.apage(page.start, page.stop)
            if not self._door.is_open:
                return
            self.seen = (self.seen or 0) + len(page)
            await self.conversation_changed(conversation, messages)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            yield
        except ConversationError as error:
            await self._answer(error)

    async def _answer(self, error: ConversationError) -> None:
        code = self._explain(error)
        if not self._door.is_open:
            return
        if code is None:
            await self.send_json(error_message(error))
        else:
            await self.close(code)


class ConversationConsumer(Listening, JsonWebsocketConsumer):
    """As `AsyncConversationConsumer`, in sync code: it runs in Channels' thread."""

    def receive_message(self, conversation: Conversation, content: Any) -> None:
        """See `AsyncConversationConsumer.receive_message`."""

    def conversation_changed(self, conversation: Conversation, messages: list[Message]) -> None:
        """See `AsyncConversationConsumer.conversation_changed`."""
        self.send_json(news_message(messages, self.seen or 0))

    def save_conversation(self, conversation: Conversation) -> None:
        """See `AsyncConversationConsumer.save_conversation`."""
        try:
            self._check_id(conversation)
        except ConversationNotFound:
            async_to_sync(self._tell)(0, 0)
            raise
        kept = working_copy_of(conversation).log.shortened_to
        conversation.save()
        has_said, slipped_in = self._note_said(conversation)
        if has_said or kept is not None:
            async_to_sync(self._tell)(len(conversation.messages), kept)
        for positions in slipped_in:
            self._hear(conversation, positions)

    def websocket_connect(self, message: dict[str, Any]) -> None:
        try:
            conversation = self._load()
        except ConversationError as error:
            self.accept()
            self._answer(error)
            return
        super().websocket_connect(message)
        with self._answering():
            self._catch_up(conversation)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        if not self._door.is_open:
            return
        with self._answering():
            if is_token(content):
                self._take_token(content)
                self._catch_up(self._load())
                return
            self._has_spoken = True
            conversation = self._load()
            with conversation.turn() if self.one_turn else nullcontext():
                self._catch_up(conversation)
                self.receive_message(conversation, content)
                self.save_conversation(conversation)

    def conversation_news(self, event: dict[str, Any]) -> None:
        """Hear from another consumer that it has committed something."""
        if self._concerns(event):
            with self._answering():
                self._catch_up(self._load(), event["kept"])

    def conversation_idle(self, event: dict[str, Any]) -> None:
        """Keep alive what the client listens to without saying anything."""
        if self._has_to_join():
            async_to_sync(self._join)()
        with self._answering():
            try:
                self._door.touch()
            except BackendUnavailable as error:
                logger.warning("A conversation could not be kept alive: %s", error)

    def _load(self) -> Conversation:
        if self._has_to_join():
            async_to_sync(self._join)()
        conversation = self._door.load()
        if self._has_to_join():
            async_to_sync(self._join)()
        self._note_loaded(conversation)
        return conversation

    def _catch_up(self, conversation: Conversation, kept: int | None = None) -> None:
        lacking = self._lacking(conversation, kept)
        if lacking is None:
            return
        self.seen = lacking.start
        if lacking:
            self._hear(conversation, lacking)
        elif self._door.is_open:
            self.conversation_changed(conversation, [])

    def _hear(self, conversation: Conversation, positions: range) -> None:
        for page in pages(positions):
            messages = conversation.messages.page(page.start, page.stop)
            if not self._door.is_open:
                return
            self.seen = (self.seen or 0) + len(page)
            self.conversation_changed(conversation, messages)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except ConversationError as error:
            self._answer(error)

    def _answer(self, error: ConversationError) -> None:
        code = self._explain(error)
        if not self._door.is_open:
            return
        if code is None:
            self.send_json(error_message(error))
        else:
            self.close(code)
