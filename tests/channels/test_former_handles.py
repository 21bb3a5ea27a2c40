"""A handler that has begun before its visitor logged in over HTTP, and ends after it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from django_convstate import Conversation, conversations
from django_convstate.channels import AsyncConversationConsumer, ConversationConsumer
from tests.support.conversations import contents
from tests.support.tabs import PATIENCE, Browser, id_of, stored

pytestmark = pytest.mark.django_db

GONE = 4404
GO_ON = threading.Event()


class Slow(AsyncConversationConsumer):
    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        await self.send_json({"type": "begun"})
        await asyncio.to_thread(GO_ON.wait, PATIENCE)
        await getattr(conversation, f"a{content['then']}")()


class SyncSlow(ConversationConsumer):
    def receive_message(self, conversation: Conversation, content: Any) -> None:
        self.send_json({"type": "begun"})
        GO_ON.wait(PATIENCE)
        getattr(conversation, content["then"])()


@pytest.fixture(params=[Slow, SyncSlow], ids=["async", "sync"])
async def browser(request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    GO_ON.clear()
    browser = Browser(request.param)
    yield browser
    GO_ON.set()
    await browser.leave()


@pytest.mark.parametrize("name", ["delete", "cycle_id", "touch", "reload"])
async def test_it_does_nothing_to_what_is_anothers_by_now(browser: Browser, name: str) -> None:
    token = stored("before")
    tab = await browser.open(token)
    await tab.send_json_to({"then": name})
    assert await tab.hear() == {"type": "begun"}
    theirs = conversations.get(id_of(token))
    theirs.messages.append("user", "of olga")
    await theirs.aclaim("olga")
    GO_ON.set()
    assert await tab.close_code() == GONE
    after = conversations.get(id_of(token))
    assert (contents(after), after.owner) == (["before", "of olga"], "olga")
