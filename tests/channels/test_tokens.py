"""Tokens by which a websocket says which conversation it is of."""

from typing import Any

import pytest

from django_convstate import ConversationNotFound, ConversationStore, conversations
from django_convstate.channels import ScopeConversation
from django_convstate.http.visitor import Visitor
from django_convstate.tokens import sign_id
from tests.support.backends import SwitchedFailover
from tests.support.tabs import PATIENCE, Browser, contents, id_of, stored

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


class TestTokens:
    async def test_a_token_as_subprotocol_counts_for_more_than_the_cookie(
        self, browser: Browser
    ) -> None:
        tab = browser.tab(cookie=stored("another"), token=stored("hello"))
        assert await tab.connect(PATIENCE) == (True, "convstate")
        assert tab.response_headers == []
        assert (await tab.ask())["messages"] == ["hello"]

    async def test_a_client_without_cookies_is_told_a_token(self, browser: Browser) -> None:
        tab = browser.tab(subprotocols=["convstate"])
        assert await tab.connect(PATIENCE) == (True, "convstate")
        told = await tab.hear()
        assert told["type"] == "conversation.token"
        assert tab.response_headers == [], "whoever gets the token gets no cookie"
        again = await browser.open(token=told["token"])
        await again.ask(say="hello")
        assert (await tab.hear())["count"] == 1

    async def test_a_client_with_a_cookie_is_told_no_token(self, browser: Browser) -> None:
        tab = await browser.open(stored("hello"), subprotocols=["convstate"])
        assert (await tab.ask())["messages"] == ["hello"]

    @pytest.mark.parametrize("offer", ["convstate.token.Zm9yZ2Vk", "convstate.token.%%"])
    async def test_a_forged_token_as_subprotocol_closes_the_socket(
        self, browser: Browser, offer: str
    ) -> None:
        tab = await browser.open(stored("hello"), subprotocols=["convstate", offer])
        assert await tab.close_code() == 4401

    async def test_a_token_of_a_deleted_conversation_closes_the_socket(
        self, browser: Browser
    ) -> None:
        token = stored("hello")
        conversations.delete(id_of(token))
        assert await (await browser.open(token=token)).close_code() == 4404

    async def test_a_token_as_first_message_changes_the_conversation(
        self, browser: Browser
    ) -> None:
        tab = await browser.open()
        token = stored("one", "two")
        await tab.send_json_to({"type": "conversation.token", "token": token, "seen": 1})
        assert contents(await tab.hear()) == ["two"]
        assert (await tab.ask(say="three"))["messages"] == ["one", "two", "three"]
        other = await browser.open(token)
        await other.ask(say="four")
        assert contents(await tab.hear()) == ["four"], "it is in the other group now"

    @pytest.mark.parametrize("token", ["forged", "mine:forged", 7, None])
    async def test_a_forged_token_as_first_message_closes_the_socket(
        self, browser: Browser, token: object
    ) -> None:
        tab = await browser.open()
        await tab.send_json_to({"type": "conversation.token", "token": token})
        assert await tab.close_code() == 4401

    async def test_a_token_of_a_deleted_conversation_as_first_message_closes_the_socket(
        self, browser: Browser
    ) -> None:
        tab = await browser.open()
        await tab.send_json_to({"type": "conversation.token", "token": sign_id("gone")})
        assert await tab.close_code() == 4404

    async def test_a_token_after_the_first_message_closes_the_socket(
        self, browser: Browser
    ) -> None:
        tab = await browser.open()
        await tab.ask(say="hello")
        await tab.send_json_to({"type": "conversation.token", "token": stored("another")})
        assert await tab.close_code() == 4401


def test_a_socket_of_a_conversation_that_began_in_an_outage_goes_on_after_it() -> None:
    """The process that has accepted it may not have replayed it yet, when another one is asked."""
    backend = SwitchedFailover()
    store = ConversationStore(backend)
    token = sign_id("elsewhere", unsaved=True)
    headers = [(b"cookie", f"conversation={token}".encode())]
    scope: Any = {"type": "websocket", "path": "/", "headers": headers}
    handle = ScopeConversation(scope, store, Visitor(None))
    backend.primary.away = backend.primary.slow = True
    assert handle.load().degraded
    backend.primary.away = False
    handle.touch()  # nothing is there, and that is no error
    headers = dict(handle.accept(scope, {"type": "websocket.accept"})[0]).get("headers", ())
    assert headers == (), "it has its token"
    conversation = handle.load()
    assert conversation.id == "elsewhere"
    conversation["said"] = 1
    conversation.save()
    handle.note_saved(conversation)
    store.delete("elsewhere")
    with pytest.raises(ConversationNotFound):
        handle.touch()
    with pytest.raises(ConversationNotFound):
        handle.load()
    backend.close()
