"""docs/live.md does what it says: its Python is run."""

import re
import sys
from textwrap import dedent
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.urls import path

from django_convstate import Conversation, ConversationStore, conversations
from django_convstate.channels import (
    AsyncConversationConsumer,
    ConversationMiddleware,
    ConversationMiddlewareStack,
    listening,
)
from tests.support.docs import PATIENCE, ROOT, ask, blocks


@pytest.mark.django_db
class TestLive:
    """docs/live.md"""

    text = (ROOT / "docs/live.md").read_text()

    def define(self, words: str, **names: Any) -> dict[str, Any]:
        (block,) = [block for block in blocks(self.text, "python") if words in block]
        exec(compile(dedent(block), "live.md", "exec"), names)
        return names

    async def test_the_first_consumer_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        consumers = self.define("class Chat(")
        monkeypatch.setitem(sys.modules, "chat", ModuleType("chat"))
        monkeypatch.setitem(sys.modules, "chat.consumers", SimpleNamespace(**consumers))
        websocket = self.define("application = ")["websocket"]
        answer = {"answer": "You have said 1 things so far.", "count": 2}
        assert await ask(websocket, text="hello") == [answer]

    async def test_the_example_of_tenants_asks_for_their_store(self) -> None:
        asked = []

        def store_of(tenant: str) -> ConversationStore:
            asked.append(tenant)
            return ConversationStore(key_prefix=tenant)

        class Chatting(AsyncConversationConsumer):
            async def receive_message(self, conversation: Conversation, content: Any) -> None:
                conversation.messages.append("user", content["text"])
                await conversation.asave()
                is_here = await conversations.aexists(conversation.id)
                await self.send_json({"is_elsewhere": not is_here})

        names = {
            "Chat": Chatting,
            "store_of": store_of,
            "ConversationMiddleware": ConversationMiddleware,
            "ConversationMiddlewareStack": ConversationMiddlewareStack,
        }
        websocket = self.define("store_of(", **names)["websocket"]

        async def with_tenant(scope: Any, receive: Any, send: Any) -> None:
            await websocket({**scope, "tenant": "acme"}, receive, send)

        assert await ask(with_tenant, text="hello") == [{"is_elsewhere": True}]
        assert asked == ["acme"]

    async def test_the_example_of_a_model_sends_its_words(self) -> None:
        async def words_of(messages: list[dict[str, Any]]) -> Any:
            for word in messages[-1]["content"].split():
                yield word

        names = {"words_of": words_of, "AsyncConversationConsumer": AsyncConversationConsumer}
        application = self.define("class Assistant(", **names)["Assistant"].as_asgi()
        heard = await ask(ConversationMiddlewareStack(application), answers=2, text="one two")
        assert heard == [{"word": "one"}, {"word": "two"}]

    async def test_the_example_of_a_conversation_by_url_is_that_of_the_url(self) -> None:
        class Chatting(AsyncConversationConsumer):
            async def receive_message(self, conversation: Conversation, content: Any) -> None:
                conversation.messages.append("user", content["text"])
                await self.send_json({"id": conversation.id})

        names = {"AsyncConversationConsumer": Chatting, "conversations": conversations}
        room = self.define("class Room(", **names)["Room"]
        routes = URLRouter([path("<room>/", room.as_asgi())])
        application = ConversationMiddlewareStack(routes)
        socket = WebsocketCommunicator(application, "/a/", [(b"origin", b"http://testserver")])
        await socket.connect(PATIENCE)
        await socket.send_json_to({"text": "hello"})
        assert await socket.receive_json_from(PATIENCE) == {"id": "room-a"}
        await socket.disconnect(timeout=PATIENCE)

    async def test_the_example_of_another_consumer_saves(self) -> None:
        names = {"AsyncJsonWebsocketConsumer": AsyncJsonWebsocketConsumer}
        status = self.define("class Status(", **names)["Status"]
        application = ConversationMiddlewareStack(status.as_asgi())
        socket = WebsocketCommunicator(application, "/", [(b"origin", b"http://testserver")])
        await socket.connect(PATIENCE)
        await socket.send_json_to({"status": "busy"})
        await socket.disconnect(timeout=PATIENCE)
        (summary,) = conversations.list()
        assert conversations.get(summary.id)["status"] == "busy"

    async def test_the_example_of_conversation_changed_is_called(self) -> None:
        names = self.define("async def conversation_changed")
        told = {"conversation_changed": names["conversation_changed"]}
        news: Any = type("News", (AsyncConversationConsumer,), told)
        conversation = conversations.create()
        conversation.messages.append("user", "hello")
        await conversation.asave()
        application = ConversationMiddlewareStack(news.as_asgi())
        headers = [(b"origin", b"http://testserver")]
        headers.append((b"cookie", f"conversation={conversation.token}".encode()))
        socket = WebsocketCommunicator(application, "/?seen=0", headers)
        await socket.connect(PATIENCE)
        assert await socket.receive_json_from(PATIENCE) == {"news": ["hello"]}
        await socket.disconnect(timeout=PATIENCE)

    def test_all_close_codes_are_listed(self) -> None:
        told = {int(code) for code in re.findall(r"^\| (\d{4}) \|", self.text, re.MULTILINE)}
        assert told == {
            listening.TOKEN_REFUSED,
            listening.GONE,
            listening.BUSY,
            listening.UNAVAILABLE,
        }
