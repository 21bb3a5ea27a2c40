"""The concierge on a websocket: {"text": ..., "id": ...} in, the events of `live` out."""

from contextlib import aclosing
from typing import Any

from django_convstate import Conversation, Message
from django_convstate.channels import AsyncConversationConsumer

from .live import answering, messages_event
from .refusals import Refused, said


class ChatConsumer(AsyncConversationConsumer):
    one_turn = True

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        await super().websocket_connect(message)
        if self.scope["conversation"].is_open:
            await self.send_json({"type": "ready", "seen": self.seen})

    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        try:
            text, id = said(content)
        except Refused as refused:
            await self.send_json({"type": "refused", "error": refused.as_json()})
            return
        async with aclosing(answering(conversation, text, id, self.save_conversation)) as events:
            async for event in events:
                await self.send_json(event)

    async def conversation_changed(
        self, conversation: Conversation, messages: list[Message]
    ) -> None:
        await self.send_json(messages_event(conversation, messages, self.seen or 0))

    async def conversation_idle(self, event: dict[str, Any]) -> None:
        """Do not prolong it for a page that is open and says nothing: the clock in the page counts
        down to its end."""

    async def chat_answer(self, message: dict[str, Any]) -> None:
        """Show an answer that another tab is given."""
        is_in_the_making = message["at"] >= (self.seen or 0)
        if is_in_the_making and self.scope["conversation"].is_open:
            await self.send_json(message["event"])
