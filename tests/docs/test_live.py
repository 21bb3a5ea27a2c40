"""docs/live.md does what it says: its Python is run."""

import re
import sys
from textwrap import dedent
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.testing import WebsocketCommunicator

from django_convstate import conversations
from django_convstate.channels import (
    AsyncConversationConsumer,
    ConversationMiddlewareStack,
    listening,
)
from tests.support.docs import ROOT, ask, blocks


@pytest.mark.django_db
class TestLive:
    """docs/live.md"""

    text = (ROOT / "docs/live.md").read_text()

    def define(self, words: str, **names: Any) -> dict[str, Any]:
        (block,) = [block for block in blocks(self.text, "python") if words in block]
        exec(compile(dedent(block), "live.md", "exec"), names)
        return names

    async def test_the_first_consumer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        consumers = self.define("class Chat(")
        monkeypatch.setitem(sys.modules, "chat", ModuleType("chat"))
        monkeypatch.setitem(sys.modules, "chat.consumers", SimpleNamespace(**consumers))
        websocket = self.define("application = ")["websocket"]
        answer = {"answer": "You have said 1 things so far.", "count": 2}
        assert await ask(websocket, text="hello") == [answer]

    async def test_the_words_of_a_model(self) -> None:
        async def words_of(messages: list[dict[str, Any]]) -> Any:
            for word in messages[-1]["content"].split():
                yield word

        names = {"words_of": words_of, "AsyncConversationConsumer": AsyncConversationConsumer}
        application = self.define("class Assistant(", **names)["Assistant"].as_asgi()
        heard = await ask(ConversationMiddlewareStack(application), text="one two")
        assert heard == [{"word": "one"}, {"word": "two"}]

    async def test_a_consumer_of_ones_own(self) -> None:
        names = {"AsyncJsonWebsocketConsumer": AsyncJsonWebsocketConsumer}
        status = self.define("class Status(", **names)["Status"]
        application = ConversationMiddlewareStack(status.as_asgi())
        socket = WebsocketCommunicator(application, "/", [(b"origin", b"http://testserver")])
        await socket.connect(5)
        await socket.send_json_to({"status": "busy"})
        await socket.disconnect(timeout=5)
        (summary,) = conversations.list()
        assert conversations.get(summary.id)["status"] == "busy"

    async def test_what_a_client_is_told(self) -> None:
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
        await socket.connect(5)
        assert await socket.receive_json_from(5) == {"news": ["hello"]}
        await socket.disconnect(timeout=5)

    def test_the_close_codes(self) -> None:
        told = {int(code) for code in re.findall(r"^\| (\d{4}) \|", self.text, re.MULTILINE)}
        assert told == {
            listening.TOKEN_REFUSED,
            listening.GONE,
            listening.BUSY,
            listening.UNAVAILABLE,
        }
