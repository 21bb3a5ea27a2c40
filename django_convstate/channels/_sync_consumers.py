# Generated from consumers.py by tools/unasync.py. Change that, and run this.
# fmt: off
"""Consumers for chats: a message is handled on a fresh load and committed after it, and what others
add to the same conversation is sent to the client. A sync one runs in Channels' thread.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from channels.generic.websocket import JsonWebsocketConsumer

from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.message import Message
from ..exceptions import BackendUnavailable, ConversationError
from ..ids import hashed_id
from ..tracebacks import clears_own_locals
from . import listening

logger = logging.getLogger("django_convstate")


@clears_own_locals
class ConversationConsumer(listening.Listening, JsonWebsocketConsumer):
    """Override `receive_message`. Has to be inside a `ConversationMiddlewareStack`."""

    def receive_message(self, conversation: Conversation, content: Any) -> None:
        """Handle one message of the client.

        Args:
            conversation: loaded just now, and saved after this; not if this raises.
            content: the message, decoded from JSON.

        `ConversationTooLarge`, `InvalidConversationValue` and `MessageNotFound`, raised here or by
        the save, are answered with a message of type "conversation.error"; our other errors with a
        close code.
        """

    def get_conversation(self) -> Conversation:
        """Return the conversation of this socket, loaded just now. Called for each message, and for
        each that is heard of others.

        Override it for another one than the cookie's, that of a URL, say; all else follows it:

            id = self.scope["url_route"]["kwargs"]["id"]
            return conversations.open(id, owner=self.scope["user"])

        The errors of `conversations` close the socket as those of the cookie's conversation do. No
        cookie is sent for one that is returned here.
        """
        self._handle.is_used = True
        self._join(self._handle.id)  # before the load, so that no commit falls between
        return self._handle.load()

    def conversation_changed(
        self, conversation: Conversation, messages: list[Message]
    ) -> None:
        """Send the client what others have added: `messages`, with which it has `self.seen` of
        them. Empty, if others have only removed messages.

        What is changed in `conversation` here is not saved.
        """
        self.send_json(listening.news_message(messages, self.seen or 0))

    def save_conversation(self, conversation: Conversation) -> None:
        """Commit, and notify the others. Done after each message; a handler that takes long may do
        so in between, too.

        Raises as `Conversation.save` does, and:
            ConversationNotFound: the handler has deleted it, or given it a new id.
        """
        if conversation.id != self._id:
            self._notify(0, 0)
            raise listening.id_changed()
        log = working_copy_of(conversation).log
        kept = log.shortened_to
        conversation.save()
        has_changed, remote = self._note_saved(conversation)
        if has_changed or kept is not None:
            self._notify(log.end, kept)
        self._deliver(conversation, remote)

    def websocket_connect(self, message: dict[str, Any]) -> None:
        """Load the conversation, accept the socket, and send what the client has missed."""
        try:
            conversation = self._load()
        except ConversationError as error:
            # A socket can be closed with a code only after it was accepted.
            self.accept()
            self._send_error(error)
            return
        super().websocket_connect(message)
        with self._sending_errors():
            self._catch_up(conversation)

    def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode one frame of the client. One that is not JSON is answered with an error."""
        with self._sending_errors():
            self.receive_json(self._decoded(text_data), **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle one message of the client between a load and a save."""
        if not self._handle.is_open:
            return
        with self._sending_errors():
            if listening.is_token(content):
                self._accept_token(content)
                self._catch_up(self._load())
                return
            self._has_handled_message = True
            conversation = self._load()
            with conversation.turn() if self.one_turn else nullcontext():
                self._catch_up(conversation)
                with listening.saving_interrupted(conversation, self.save_conversation):
                    self.receive_message(conversation, content)
                self.save_conversation(conversation)

    def _decoded(self, text: str | None) -> Any:
        if text is None:
            raise listening.not_json("is binary")
        try:
            return self.decode_json(text)
        except (ValueError, RecursionError) as error:
            raise listening.not_json(f"cannot be decoded: {type(error).__name__}") from None

    def conversation_news(self, event: dict[str, Any]) -> None:
        """Receive from another consumer that it has committed something."""
        if self._is_relevant(event):
            with self._sending_errors():
                self._catch_up(self._load(), event["kept"])

    def conversation_logout(self, event: dict[str, Any]) -> None:
        """Receive that the session has ended in which this socket was opened, and close it."""
        if self._handle.is_open:
            self.close(listening.GONE)

    def conversation_idle(self, event: dict[str, Any]) -> None:
        """Keep the conversation alive while the client sends nothing."""
        with self._sending_errors():
            try:
                self._touch()
            except BackendUnavailable as error:
                logger.warning(
                    "Conversation %s of an idle socket may expire, because its expiry could not be "
                    "slid; that is tried again. %s",
                    hashed_id(self._id or ""),
                    error,
                )

    def _load(self) -> Conversation:
        self._handle.is_used = False  # unless it is loaded
        if self._id is not None:
            self._join(self._id)
        conversation = self.get_conversation()
        # Another conversation than before was loaded, and its group was joined only now: a second
        # load reads what was committed in between. The new conversation in the place of an expired
        # one needs none: no other process knows its id yet.
        if self._join(conversation.id) and not self._handle.is_used:
            conversation = self.get_conversation()
        self._note_loaded(conversation)
        return conversation

    def _touch(self) -> None:
        if self._handle.is_used:
            self._join(self._handle.id)
            self._handle.touch()
        else:
            self._catch_up(self._load())  # which touches it

    def _catch_up(self, conversation: Conversation, kept: int | None = None) -> None:
        self._deliver(conversation, self._missing(conversation, kept))

    def _deliver(self, conversation: Conversation, missing: list[range]) -> None:
        for page in listening.pages(missing):
            messages = conversation.messages.page(page.start, page.stop)
            if not self._handle.is_open:
                return
            self.seen = (self.seen or 0) + len(page)
            self.conversation_changed(conversation, messages)

    @contextmanager
    def _sending_errors(self) -> Iterator[None]:
        try:
            yield
        except ConversationError as error:
            self._send_error(error)

    def _send_error(self, error: ConversationError) -> None:
        code = listening.log_error(error)
        if self._handle.is_open and code is not None:
            self.close(code)
        elif self._handle.is_open:
            # Its kind alone, for its text may name keys of the state.
            self.send_json({"type": "conversation.error", "error": type(error).__name__})
