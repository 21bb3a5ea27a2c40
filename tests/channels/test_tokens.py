"""Tokens by which a websocket says which conversation it is of."""

import pytest

from django_convstate import conversations
from django_convstate.tokens import sign_id
from tests.support.tabs import PATIENCE, Browser, contents, id_of, stored

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


class TestTokens:
    async def test_as_a_subprotocol(self, browser: Browser) -> None:
        tab = browser.tab(cookie=stored("another"), token=stored("hello"))
        assert await tab.connect(PATIENCE) == (True, "convstate")
        assert tab.response_headers == []
        assert (await tab.ask())["messages"] == ["hello"]

    async def test_a_client_without_cookies_gets_one(self, browser: Browser) -> None:
        tab = browser.tab(subprotocols=["convstate"])
        assert await tab.connect(PATIENCE) == (True, "convstate")
        told = await tab.hear()
        assert told["type"] == "conversation.token"
        assert tab.response_headers == [], "whoever gets the token gets no cookie"
        again = await browser.open(token=told["token"])
        await again.ask(say="hello")
        assert (await tab.hear())["count"] == 1

    async def test_nobody_is_told_what_is_in_the_cookie(self, browser: Browser) -> None:
        tab = await browser.open(stored("hello"), subprotocols=["convstate"])
        assert (await tab.ask())["messages"] == ["hello"]

    @pytest.mark.parametrize("offer", ["convstate.token.Zm9yZ2Vk", "convstate.token.%%"])
    async def test_a_forged_one(self, browser: Browser, offer: str) -> None:
        tab = await browser.open(stored("hello"), subprotocols=["convstate", offer])
        assert await tab.close_code() == 4401

    async def test_of_a_conversation_that_is_gone(self, browser: Browser) -> None:
        token = stored("hello")
        conversations.delete(id_of(token))
        assert await (await browser.open(token=token)).close_code() == 4404

    async def test_as_the_first_message(self, browser: Browser) -> None:
        tab = await browser.open()
        token = stored("one", "two")
        await tab.send_json_to({"type": "conversation.token", "token": token, "seen": 1})
        assert contents(await tab.hear()) == ["two"]
        assert (await tab.ask(say="three"))["messages"] == ["one", "two", "three"]
        other = await browser.open(token)
        await other.ask(say="four")
        assert contents(await tab.hear()) == ["four"], "it is in the other group now"

    @pytest.mark.parametrize("token", ["forged", "mine:forged", 7, None])
    async def test_a_forged_first_message(self, browser: Browser, token: object) -> None:
        tab = await browser.open()
        await tab.send_json_to({"type": "conversation.token", "token": token})
        assert await tab.close_code() == 4401

    async def test_a_first_message_for_what_is_gone(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.send_json_to({"type": "conversation.token", "token": sign_id("gone")})
        assert await tab.close_code() == 4404

    async def test_a_token_that_comes_too_late(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.ask(say="hello")
        await tab.send_json_to({"type": "conversation.token", "token": stored("another")})
        assert await tab.close_code() == 4401
