"""Websockets through Channels' own test client: sync and async consumers do the same."""

import asyncio
import gc
import json
import sys
import tracemalloc
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.test import AsyncClient

from django_convstate import ConversationNotFound, InvalidBackend, conversations
from django_convstate.backends.records import Change
from django_convstate.channels import (
    ConversationMiddleware,
    ConversationMiddlewareStack,
    ScopeConversation,
)
from django_convstate.identity import as_subprotocol
from django_convstate.tokens import sign_id, unsign_token
from tests.support.backends import CountingBackend
from tests.support.consumers import Chat, Plain, SyncChat

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db

PATIENCE = 5.0  # seconds for whatever has to come

IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


class Tab(WebsocketCommunicator):
    """A browser's tab with an open socket."""

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.response_headers}

    @property
    def token(self) -> str | None:
        cookie = SimpleCookie(self.headers.get("set-cookie", ""))
        return cookie["conversation"].value if "conversation" in cookie else None

    async def ask(self, **content: Any) -> Any:
        """Return the answer. What was said is committed after it."""
        await self.send_json_to(content)
        return await self.hear()

    async def say(self, text: str) -> Any:
        """Return the answer when it is committed: the next message comes after that."""
        await self.ask(say=text)
        return await self.ask()

    async def hear(self) -> Any:
        return await self.receive_json_from(PATIENCE)

    async def close_code(self) -> int | None:
        message = await self.receive_output(PATIENCE)
        assert message["type"] == "websocket.close", message
        code: int | None = message.get("code")
        return code


class Browser:
    """Opens tabs, and closes them at the end of a test."""

    def __init__(self, consumer: Any) -> None:
        self.application = ConversationMiddlewareStack(consumer.as_asgi())
        self.tabs: list[Tab] = []

    def tab(
        self,
        cookie: str | None = None,
        token: str | None = None,
        query: str = "",
        subprotocols: list[str] | None = None,
    ) -> Tab:
        headers = [(b"origin", b"http://testserver")]
        if cookie is not None:
            headers.append((b"cookie", f"conversation={cookie}".encode()))
        if token is not None:
            subprotocols = ["convstate", as_subprotocol(token)]
        tab = Tab(self.application, f"/{query}", headers, subprotocols)
        self.tabs.append(tab)
        return tab

    async def open(self, *args: Any, **kwargs: Any) -> Tab:
        tab = self.tab(*args, **kwargs)
        is_open, _ = await tab.connect(PATIENCE)
        assert is_open
        return tab

    async def leave(self) -> None:
        still_open = [tab for tab in self.tabs if not tab.future.done()]
        for tab in still_open:
            await tab.send_input({"type": "websocket.disconnect", "code": 1000})
        for tab in still_open:
            await tab.wait(PATIENCE)


@pytest.fixture(autouse=True)
def _layer(settings: Any) -> Any:
    settings.CHANNEL_LAYERS = IN_MEMORY
    yield
    channel_layers.backends = {}


@pytest.fixture(params=[Chat, SyncChat], ids=["async", "sync"])
async def browser(request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    browser = Browser(request.param)
    yield browser
    await browser.leave()


@pytest.fixture
def calls(settings: Any) -> Any:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
    CountingBackend.calls.clear()
    yield CountingBackend.calls
    conversations.purge(everything=True)


def stored(*said: str, ttl: float | None = None) -> str:
    """Store a conversation and return its token."""
    conversation = conversations.create(ttl=ttl)
    conversation["value"] = 0
    for text in said:
        conversation.messages.append("user", text)
    conversation.save()
    return conversation.token


def id_of(token: str | None) -> str:
    id = unsign_token(token or "")
    assert id is not None
    return id


def contents(news: dict[str, Any]) -> list[str]:
    assert news["type"] == "conversation.messages"
    return [message["content"] for message in news["messages"]]


class TestRemembering:
    async def test_a_new_client_gets_the_cookie_with_the_handshake(self, browser: Browser) -> None:
        tab = await browser.open()
        assert "HttpOnly" in tab.headers["set-cookie"]
        assert "SameSite=Lax" in tab.headers["set-cookie"]
        assert list(conversations.list()) == [], "nothing is stored for nothing"
        assert (await tab.say("hello"))["messages"] == ["hello"]
        assert conversations.get(id_of(tab.token)).messages[0]["content"] == "hello"

    async def test_each_message_is_handled_on_a_fresh_load(self, browser: Browser) -> None:
        token = stored("before")
        tab = await browser.open(token)
        conversation = conversations.get(id_of(token))
        conversation["turns"] = 41
        conversation.save()
        assert (await tab.say("now"))["turns"] == 42
        assert conversations.get(id_of(token))["turns"] == 42

    async def test_a_known_client_gets_no_cookie_again(self, browser: Browser) -> None:
        tab = await browser.open(stored("hello"))
        assert tab.response_headers == []

    async def test_the_age_of_the_cookie_starts_anew(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"COOKIE_AGE": 60, "COOKIE_SECURE": True}
        tab = await browser.open(stored("hello"))
        assert "Max-Age=60" in tab.headers["set-cookie"]
        assert "Secure" in tab.headers["set-cookie"]

    async def test_a_header_in_place_of_the_cookie(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"HEADER_NAME": "X-Conversation-Token"}
        tab = await browser.open()
        assert unsign_token(tab.headers["x-conversation-token"])
        other = browser.tab("nonsense")
        other.scope["headers"].append((b"x-conversation-token", stored("hello").encode()))
        await other.connect(PATIENCE)
        assert (await other.ask())["messages"] == ["hello"]
        assert "set-cookie" not in other.headers

    async def test_a_second_tab_before_anything_was_said(self, browser: Browser) -> None:
        first = await browser.open()
        second = await browser.open(first.token)
        assert second.token is None
        await second.ask(say="from the second")
        assert (await first.hear())["count"] == 1
        assert (await first.ask(say="from the first"))["count"] == 2

    async def test_http_and_websocket_share_one_conversation(self, browser: Browser) -> None:
        tab, client = await browser.open(), AsyncClient()
        client.cookies["conversation"] = tab.token or ""
        response = await client.get("/async/look")
        assert response.cookies == {}, "a look takes nothing from a socket that is silent yet"
        await tab.say("by socket")
        response = await client.get("/async/say?text=by http")
        assert response.json()["messages"] == ["by socket", "by http"]
        cookie = response.cookies["conversation"].value
        assert cookie == sign_id(id_of(tab.token)), "and it is a stored one's from now on"
        assert (await (await browser.open(cookie)).ask())["count"] == 2

    async def test_http_may_say_the_first_word(self, browser: Browser) -> None:
        tab, client = await browser.open(), AsyncClient()
        client.cookies["conversation"] = tab.token or ""
        await client.get("/async/say?text=by http")
        heard = await tab.ask(say="by socket")
        assert [message["content"] for message in heard["messages"]] == ["by http"]
        assert (await tab.hear())["count"] == 2
        assert conversations.exists(id_of(tab.token))

    async def test_a_logout_takes_the_cookie_of_a_socket(self, browser: Browser) -> None:
        tab, client = await browser.open(), AsyncClient()
        await tab.say("mine")
        client.cookies["conversation"] = tab.token or ""
        response = await client.get("/async/log_out")
        assert response.cookies["conversation"].value == ""

    async def test_a_cookie_that_nobody_signed(self, browser: Browser) -> None:
        tab = await browser.open("mine:forged")
        assert tab.token
        await tab.say("hello")
        assert not conversations.exists("mine")

    async def test_a_cookie_whose_conversation_is_gone(self, browser: Browser) -> None:
        token = stored("hello")
        conversations.delete(id_of(token))
        tab = await browser.open(token)
        assert tab.token
        assert id_of(tab.token) != id_of(token)
        await tab.say("anew")
        assert not conversations.exists(id_of(token))
        assert conversations.exists(id_of(tab.token))

    async def test_nothing_is_saved_when_the_handler_fails(self, browser: Browser) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        await tab.send_json_to({"say": "lost", "fail": "RuntimeError"})
        with pytest.raises(RuntimeError, match="as asked for"):
            await tab.wait(PATIENCE)
        assert len(conversations.get(id_of(token)).messages) == 1

    async def test_a_socket_that_says_good_bye(self, browser: Browser) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        await tab.send_json_to({"say": "bye", "bye": True})
        assert await tab.close_code() is None
        await browser.leave()
        assert len(conversations.get(id_of(token)).messages) == 2


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


class TestClosing:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            ("ConversationNotFound", 4404),
            ("ConversationInterrupted", 4404),
            ("ConversationCorrupt", 4404),
            ("ConversationConflict", 4409),
            ("ConversationBusy", 4409),
            ("BackendUnavailable", 4503),
            ("InvalidConversationId", 4401),
        ],
    )
    async def test_what_a_handler_raises(self, browser: Browser, error: str, code: int) -> None:
        tab = await browser.open()
        await tab.send_json_to({"say": "lost", "fail": error})
        assert await tab.close_code() == code
        await tab.send_json_to({"say": "still there?"})
        assert await tab.receive_nothing()
        assert list(conversations.list()) == []

    async def test_what_is_no_business_of_the_client(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.send_json_to({"fail": "InvalidBackend"})
        with pytest.raises(InvalidBackend, match="as asked for"):
            await tab.wait(PATIENCE)

    async def test_deleted_while_the_socket_is_open(self, browser: Browser) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        conversations.delete(id_of(token))
        await tab.send_json_to({"say": "hello?"})
        assert await tab.close_code() == 4404
        again = await browser.open(token)
        assert id_of(again.token) != id_of(token)

    async def test_deleted_by_what_was_said_in_it(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.say("hello")
        conversations.delete(id_of(tab.token))
        await tab.send_json_to({"say": "hello?"})
        assert await tab.close_code() == 4404

    async def test_deleted_by_a_handler(self, browser: Browser) -> None:
        token = stored("hello")
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(delete=True)
        assert await tab.close_code() == 4404
        assert await other.close_code() == 4404

    async def test_a_store_that_is_away(self, browser: Browser, settings: Any) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        await tab.send_json_to({"say": "hello?"})
        assert await tab.close_code() == 4503
        late = await browser.open(token)
        assert await late.close_code() == 4503
        assert late.response_headers == [], "its cookie is as good as before"

    async def test_a_value_that_cannot_be_stored(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.send_to('{"set": NaN}')
        error = {"type": "conversation.error", "error": "InvalidConversationValue"}
        assert await tab.hear() == error
        assert (await tab.ask(say="x" * 70_000))["error"] == "ConversationTooLarge"
        assert (await tab.ask(say="hello"))["messages"] == ["hello"]

    async def test_an_origin_that_is_not_ours(self, browser: Browser, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["testserver"]
        browser = Browser(Chat)
        stranger = browser.tab()
        stranger.scope["headers"][0] = (b"origin", b"http://evil.example")
        assert await stranger.connect(PATIENCE) == (False, 1000)
        await browser.open()
        await browser.leave()


class TestOtherTabs:
    async def test_hear_what_is_said(self, browser: Browser) -> None:
        token = stored("before")
        tabs = [await browser.open(token) for _ in range(3)]
        stranger = await browser.open(stored())
        await tabs[0].ask(say="hello")
        for tab in tabs[1:]:
            news = await tab.hear()
            assert contents(news) == ["hello"]
            assert news["count"] == 2
        for tab in (*tabs, stranger):
            assert await tab.receive_nothing()

    async def test_hear_the_first_half_before_the_second(self, browser: Browser) -> None:
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(say="question", halfway="answer")
        heard = contents(await other.hear())
        while len(heard) < 2:
            heard += contents(await other.hear())
        assert heard == ["question", "answer"]
        assert await tab.receive_nothing()

    async def test_hear_nothing_of_what_is_no_message(self, browser: Browser) -> None:
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(set="a value")
        assert await other.receive_nothing()

    async def test_hear_that_something_was_taken_back(self, browser: Browser) -> None:
        token = stored("one", "two")
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(take_back=1)
        assert await other.hear() == {"type": "conversation.messages", "messages": [], "count": 1}
        await other.ask(take_back=0, say="instead")
        news = await tab.hear()
        assert (contents(news), news["count"]) == (["instead"], 1)

    async def test_what_was_said_by_http_is_told_with_the_next_message(
        self, browser: Browser
    ) -> None:
        token = stored("before")
        tab = await browser.open(token)
        conversation = conversations.get(id_of(token))
        conversation.messages.append("assistant", "by http")
        conversation.save()
        await tab.send_json_to({"say": "and now"})
        assert contents(await tab.hear()) == ["by http"]
        assert (await tab.hear())["count"] == 3

    async def test_each_hears_each_other_once_however_they_race(self, browser: Browser) -> None:
        token = stored()
        tabs = [await browser.open(token) for _ in range(4)]
        for number in range(10):
            for name, tab in enumerate(tabs):
                await tab.send_json_to({"say": f"{name}.{number}"})
        everything = {f"{name}.{number}" for name in range(4) for number in range(10)}
        for name, tab in enumerate(tabs):
            heard: list[str] = []
            answers = 0
            while len(heard) < 30 or answers < 10:
                message = await tab.hear()
                if "type" in message:
                    heard += contents(message)
                else:
                    answers += 1
            own = {text for text in everything if text.startswith(f"{name}.")}
            assert sorted(heard) == sorted(everything - own)
            assert await tab.receive_nothing()
        assert len(conversations.get(id_of(token)).messages) == 40

    async def test_what_slipped_in_during_a_commit_is_told(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = stored("before")
        tab = await browser.open(token)
        backend = conversations.backend

        def speak_first(id: str) -> None:
            monkeypatch.undo()
            another = conversations.get(id)
            another.messages.append("user", "slipped in")
            another.save()

        def commit(id: str, change: Any) -> Any:
            speak_first(id)
            return backend.commit(id, change)

        async def acommit(id: str, change: Any) -> Any:
            await sync_to_async(speak_first)(id)
            return await backend.acommit(id, change)

        monkeypatch.setattr(backend, "commit", commit)
        monkeypatch.setattr(backend, "acommit", acommit)
        assert (await tab.ask(say="mine"))["count"] == 2
        news = await tab.hear()
        assert (contents(news), news["count"]) == (["slipped in"], 3)

    async def test_a_tab_that_comes_back_has_missed_nothing(self, browser: Browser) -> None:
        token = stored(*map(str, range(250)))
        tab = await browser.open(token, query="?seen=3")
        heard: list[str] = []
        while len(heard) < 247:
            heard += contents(await tab.hear())
        assert heard == [str(number) for number in range(3, 250)]
        assert await tab.receive_nothing()

    async def test_a_tab_that_has_seen_what_is_gone(self, browser: Browser) -> None:
        tab = await browser.open(query="?seen=12")
        assert (await tab.hear())["count"] == 0

    @pytest.mark.parametrize("seen", ["", "-1", "x", "1e9", "9" * 40, "²"])
    async def test_a_number_that_is_none(self, browser: Browser, seen: str) -> None:
        tab = await browser.open(stored("hello"), query=f"?seen={seen}")
        assert await tab.receive_nothing()

    async def test_without_a_channel_layer(self, browser: Browser, settings: Any) -> None:
        settings.CHANNEL_LAYERS = {}
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(say="hello")
        assert await other.receive_nothing()
        await other.send_json_to({"say": "hello, too"})
        assert contents(await other.hear()) == ["hello"]

    async def test_nobody_is_left_in_a_group(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.say("hello")
        layer: Any = channel_layers["default"]
        (group,) = layer.groups
        assert id_of(tab.token) not in group
        await tab.disconnect(timeout=PATIENCE)
        assert layer.groups == {}


class TestOneTurn:
    async def test_at_a_time(self, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        for consumer in (Chat, SyncChat):
            monkeypatch.setattr(consumer, "one_turn", True)
        token = stored()
        tabs = [await browser.open(token) for _ in range(3)]
        for tab in tabs:
            await tab.send_json_to({"say": "question", "halfway": "answer"})
        for tab in tabs:
            while "type" in await tab.hear():
                pass
        await browser.leave()
        said = [message["content"] for message in conversations.get(id_of(token)).messages]
        assert said == ["question", "answer"] * 3

    async def test_who_has_waited_for_too_long(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"TURN_WAIT": 0.3}
        for consumer in (Chat, SyncChat):
            monkeypatch.setattr(consumer, "one_turn", True)
        token = stored()
        tab = await browser.open(token)
        async with conversations.get(id_of(token)).aturn():
            await tab.send_json_to({"say": "me, too"})
            assert await tab.close_code() == 4409
        assert len(conversations.get(id_of(token)).messages) == 0


class TestStayingOpen:
    async def test_who_only_listens_keeps_it_alive(self, browser: Browser) -> None:
        token = stored("hello", ttl=1.5)
        tab = await browser.open(token)
        for _ in range(3):
            await asyncio.sleep(1)
            assert conversations.exists(id_of(token))
        assert (await tab.ask())["messages"] == ["hello"]

    async def test_what_is_gone_meanwhile_closes_it(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.6}
        token = stored("hello")
        tab = await browser.open(token)
        conversations.delete(id_of(token))
        assert await tab.close_code() == 4404

    async def test_a_store_that_is_away_for_a_while(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.6}
        tab = await browser.open()
        await tab.say("hello")
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        await asyncio.sleep(0.5)
        assert await tab.receive_nothing()

    async def test_what_came_home_is_heard_again(self, browser: Browser, settings: Any) -> None:
        """For others may have spoken in between."""
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SwitchedFailover"
        backend: Any = conversations.backend
        tab = await browser.open()
        await tab.say("before")
        backend.primary.away = True
        await tab.say("mine")
        backend.primary.others.commit(
            id_of(tab.token), Change(append=[b'{"role":"user","content":"theirs"}'])
        )
        backend.primary.away = False
        await backend.aclose()
        heard = await tab.ask(say="after")
        assert contents(heard) == ["theirs", "mine"]
        assert heard["count"] == 3
        assert (await tab.hear())["count"] == 4

    async def test_silence_stores_nothing_and_asks_nothing(
        self, browser: Browser, settings: Any, calls: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.3}
        await browser.open()
        await asyncio.sleep(0.5)
        assert {name.removeprefix("a") for name in calls} == {"load"}

    async def test_membership_is_renewed_before_it_is_forgotten(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_convstate.channels.listening.REJOIN_INTERVAL", 0.3)
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        layer: Any = channel_layers["default"]
        layer.groups.clear()
        await asyncio.sleep(0.6)
        await tab.ask(say="hello")
        assert contents(await other.hear()) == ["hello"]

    @pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
    async def test_nothing_grows_over_many_messages(self, count: int) -> None:
        browser = Browser(Chat)
        tab = await browser.open()

        async def turns(count: int) -> int:
            for _ in range(count):
                answer = await tab.ask(take_back=0, say="x" * 100)
                assert answer["count"] == 1
            gc.collect()
            return sys.getallocatedblocks()

        await turns(500)
        before = await turns(100)
        after = await turns(count)
        await browser.leave()
        assert after - before < 1000, "not a block of memory for every tenth of 10,000 messages"

    async def test_an_idle_socket_is_small(self) -> None:
        plain, chat = Browser(Plain), Browser(Chat)
        token = stored(*["x" * 1000] * 50)

        async def size_of(browser: Browser, count: int) -> float:
            gc.collect()
            tracemalloc.start()
            try:
                for _ in range(count):
                    await browser.open(token)
                gc.collect()
                return tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()

        await size_of(plain, 10), await size_of(chat, 10)
        ours = await size_of(chat, 100) - await size_of(plain, 100)
        await plain.leave()
        await chat.leave()
        assert ours < 10 * 1024


class TestTheScope:
    async def test_a_plain_consumer(self) -> None:
        browser = Browser(Plain)
        tab = await browser.open()
        await tab.ask(say="hello")
        assert (await tab.ask(say="again"))["messages"] == ["hello", "again"]
        again = await browser.open(tab.token)
        assert (await again.ask())["count"] == 2
        await browser.leave()

    async def test_attaching_costs_nothing(self, calls: Any) -> None:
        browser = Browser(Plain)
        await browser.open()
        await browser.open(sign_id("somebody"))
        assert not calls
        await browser.leave()

    async def test_a_plain_consumer_that_loads_early_begins_anew(self) -> None:
        browser = Browser(Plain)
        tab = await browser.open(sign_id("gone"), query="?early")
        assert tab.token
        await tab.ask(say="hello")
        late = await browser.open(sign_id("gone"))
        await late.send_json_to({"say": "hello"})
        with pytest.raises(ConversationNotFound):
            await late.wait(PATIENCE)
        await browser.leave()

    async def test_session_and_user_are_beside_it(self) -> None:
        seen: dict[str, Any] = {}

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.update(scope)
            await send({"type": "websocket.close"})

        tab = Tab(ConversationMiddlewareStack(application), "/", [(b"origin", b"http://x")])
        await tab.connect(PATIENCE)
        assert seen["user"].is_anonymous
        assert seen["session"].is_empty()
        assert isinstance(seen["conversation"], ScopeConversation)

    async def test_without_their_apps_it_is_there_alone(self, settings: Any) -> None:
        settings.INSTALLED_APPS = ["django_convstate"]
        browser = Browser(Chat)
        tab = await browser.open()
        assert (await tab.ask(say="hello"))["count"] == 1
        await browser.leave()

    async def test_a_forgotten_await_says_what_to_write(self) -> None:
        scope: Any = {"type": "websocket", "path": "/", "headers": []}
        door: Any = ScopeConversation(scope, conversations)
        for wrong in (
            lambda: door["city"],
            lambda: door.update(city="Jaipur"),
            lambda: door.messages,
            lambda: "city" in door,
            lambda: bool(door),
        ):
            with pytest.raises(SynchronousOnlyOperation, match=r'await scope\["conversation"\]'):
                wrong()
        with pytest.raises(AttributeError):
            _ = door.nonsense
        assert door.id not in repr(door)

    async def test_a_consumer_without_the_stack_says_so(self) -> None:
        tab = Tab(Chat.as_asgi(), "/")
        await tab.send_input({"type": "websocket.connect"})
        with pytest.raises(ImproperlyConfigured, match="ConversationMiddlewareStack"):
            await tab.wait(PATIENCE)

    async def test_other_protocols_pass_through(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)

        seen: list[Any] = []
        scope = {"type": "http"}
        await ConversationMiddleware(application)(scope, None, None)  # type: ignore[arg-type]
        assert seen == [scope]

    def test_what_goes_through_a_layer_is_small(self) -> None:
        assert len(json.dumps({"type": "conversation.news", "count": 2**31, "kept": 2**31})) < 100
