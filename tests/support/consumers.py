"""The consumers of the test project, a sync and an async one that do the same."""

import asyncio
import time
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from django_convstate import Conversation, exceptions
from django_convstate.channels import AsyncConversationConsumer, ConversationConsumer


def talk(conversation: Conversation, content: dict[str, Any]) -> dict[str, Any]:
    """Do what the client asks for; each key is a request."""
    if "take_back" in content:
        conversation.messages.truncate(content["take_back"])
    if "say" in content:
        conversation.messages.append("user", content["say"])
        conversation.incr("turns")
    if "set" in content:
        conversation["value"] = content["set"]
    if "inside" in content:  # which is found out when it is saved
        conversation["nested"] = []
        conversation["nested"].append(content["inside"])
    if "find" in content:
        conversation.messages.find(content["find"])
    if "fail" in content:
        raise getattr(exceptions, content["fail"], RuntimeError)("as asked for")
    return {
        "turns": conversation.get("turns", 0),
        "messages": [m["content"] for m in conversation.messages.window(50)],
        "count": len(conversation.messages),
    }


class Chat(AsyncConversationConsumer):
    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        answer = talk(conversation, content)
        if "dawdle" in content:
            await self.send_json({"type": "dawdling"})
            await asyncio.sleep(content["dawdle"])
        if "delete" in content:
            await conversation.adelete()
        if "halfway" in content:
            await self.save_conversation(conversation)
            conversation.messages.append("assistant", content["halfway"])
        if "bye" in content:
            await self.close()
        else:
            await self.send_json(answer)


class SyncChat(ConversationConsumer):
    def receive_message(self, conversation: Conversation, content: Any) -> None:
        answer = talk(conversation, content)
        if "dawdle" in content:
            self.send_json({"type": "dawdling"})
            time.sleep(content["dawdle"])
        if "delete" in content:
            conversation.delete()
        if "halfway" in content:
            self.save_conversation(conversation)
            conversation.messages.append("assistant", content["halfway"])
        if "bye" in content:
            self.close()
        else:
            self.send_json(answer)


class Plain(AsyncJsonWebsocketConsumer):
    """A consumer that knows nothing of ours but the scope."""

    async def connect(self) -> None:
        if b"early" in self.scope["query_string"]:
            await self.scope["conversation"]
        await self.accept()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        conversation = await self.scope["conversation"]
        answer = talk(conversation, content)
        await conversation.asave()
        await self.send_json(answer)
