"""The websockets of bench_live.py: a chat, and beside it a consumer that Channels has alone."""

from typing import Any

import django

django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from django_convstate import Conversation  # noqa: E402
from django_convstate.channels import (  # noqa: E402
    AsyncConversationConsumer,
    ConversationMiddlewareStack,
)


class Chat(AsyncConversationConsumer):
    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        conversation.messages.append("user", content["text"])
        conversation.messages.append("assistant", f"You said {content['text']}.")
        await self.save_conversation(conversation)
        await self.send_json({"count": len(conversation.messages)})


class Plain(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json(content)


def as_view(application: Any) -> Any:
    """Channels routes applications as Django does views; only Django's types do not know that."""
    return application


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("chat", as_view(ConversationMiddlewareStack(Chat.as_asgi()))),
                path("plain", as_view(Plain.as_asgi())),
            ]
        )
    }
)
