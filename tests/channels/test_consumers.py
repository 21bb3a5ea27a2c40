"""Websockets through Channels' own test client: sync and async consumers do the same."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient

from django_convstate import Conversation, InvalidBackend, conversations
from django_convstate.tokens import sign_id, unsign_token
from tests.support.consumers import Chat, SyncChat
from tests.support.tabs import PATIENCE, Browser, contents, id_of, stored

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


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

    async def test_a_cookie_with_an_age_is_sent_again(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"COOKIE_AGE": 60, "COOKIE_SECURE": True}
        tab = await browser.open(stored("hello"))
        assert "Max-Age=60" in tab.headers["set-cookie"]
        assert "Secure" in tab.headers["set-cookie"]

    async def test_a_header_counts_instead_of_the_cookie(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"HEADER_NAME": "X-Conversation-Token"}
        tab = await browser.open()
        assert unsign_token(tab.headers["x-conversation-token"])
        other = browser.tab("nonsense")
        other.scope["headers"].append((b"x-conversation-token", stored("hello").encode()))
        await other.connect(PATIENCE)
        assert (await other.ask())["messages"] == ["hello"]
        assert "set-cookie" not in other.headers

    async def test_a_second_tab_shares_a_conversation_that_is_not_stored_yet(
        self, browser: Browser
    ) -> None:
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

    async def test_http_may_store_the_first_message_of_a_socket(self, browser: Browser) -> None:
        tab, client = await browser.open(), AsyncClient()
        client.cookies["conversation"] = tab.token or ""
        await client.get("/async/say?text=by http")
        heard = await tab.ask(say="by socket")
        assert [message["content"] for message in heard["messages"]] == ["by http"]
        assert (await tab.hear())["count"] == 2
        assert conversations.exists(id_of(tab.token))

    async def test_a_logout_deletes_the_cookie_that_a_socket_gave(self, browser: Browser) -> None:
        tab, client = await browser.open(), AsyncClient()
        await tab.say("mine")
        client.cookies["conversation"] = tab.token or ""
        response = await client.get("/async/log_out")
        assert response.cookies["conversation"].value == ""

    async def test_a_cookie_without_our_signature_is_replaced(self, browser: Browser) -> None:
        tab = await browser.open("mine:forged")
        assert tab.token
        await tab.say("hello")
        assert not conversations.exists("mine")

    async def test_a_cookie_of_a_deleted_conversation_is_replaced(self, browser: Browser) -> None:
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

    async def test_a_message_is_saved_when_the_handler_closes_the_socket(
        self, browser: Browser
    ) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        await tab.send_json_to({"say": "bye", "bye": True})
        assert await tab.close_code() is None
        await browser.leave()
        assert len(conversations.get(id_of(token)).messages) == 2


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
    async def test_an_error_of_a_handler_closes_the_socket_with_its_code(
        self, browser: Browser, error: str, code: int
    ) -> None:
        tab = await browser.open()
        await tab.send_json_to({"say": "lost", "fail": error})
        assert await tab.close_code() == code
        await tab.send_json_to({"say": "still there?"})
        assert await tab.receive_nothing()
        assert list(conversations.list()) == []

    async def test_an_error_of_the_configuration_is_raised(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.send_json_to({"fail": "InvalidBackend"})
        with pytest.raises(InvalidBackend, match="as asked for"):
            await tab.wait(PATIENCE)

    async def test_a_conversation_deleted_elsewhere_closes_the_socket(
        self, browser: Browser
    ) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        conversations.delete(id_of(token))
        await tab.send_json_to({"say": "hello?"})
        assert await tab.close_code() == 4404
        again = await browser.open(token)
        assert id_of(again.token) != id_of(token)

    async def test_a_conversation_deleted_after_its_first_message_closes_the_socket(
        self, browser: Browser
    ) -> None:
        tab = await browser.open()
        await tab.say("hello")
        conversations.delete(id_of(tab.token))
        await tab.send_json_to({"say": "hello?"})
        assert await tab.close_code() == 4404

    async def test_a_conversation_deleted_by_a_handler_closes_all_sockets(
        self, browser: Browser
    ) -> None:
        token = stored("hello")
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(delete=True)
        assert await tab.close_code() == 4404
        assert await other.close_code() == 4404

    async def test_an_unavailable_store_closes_the_socket_and_keeps_the_cookie(
        self, browser: Browser, settings: Any
    ) -> None:
        token = stored("hello")
        tab = await browser.open(token)
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        await tab.send_json_to({"say": "hello?"})
        assert await tab.close_code() == 4503
        late = await browser.open(token)
        assert await late.close_code() == 4503
        assert late.response_headers == [], "its cookie is as good as before"

    async def test_a_value_that_cannot_be_stored_is_answered_with_an_error(
        self, browser: Browser
    ) -> None:
        tab = await browser.open()
        await tab.send_to('{"set": NaN}')
        error = {"type": "conversation.error", "error": "InvalidConversationValue"}
        assert await tab.hear() == error
        assert (await tab.ask(say="x" * 70_000))["error"] == "ConversationTooLarge"
        assert (await tab.ask(say="hello"))["messages"] == ["hello"]

    async def test_another_origin_is_refused(self, browser: Browser, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["testserver"]
        browser = Browser(Chat)
        stranger = browser.tab()
        stranger.scope["headers"][0] = (b"origin", b"http://evil.example")
        assert await stranger.connect(PATIENCE) == (False, 1000)
        await browser.open()
        await browser.leave()


class TestOneTurn:
    async def test_messages_of_several_sockets_are_handled_one_at_a_time(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    async def test_a_socket_that_waited_too_long_for_its_turn_is_closed(
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


class TestCancelled:
    """By the server, which some seconds after a client has disconnected ends what it began."""

    @pytest.mark.parametrize("one_turn", [False, True])
    async def test_what_a_handler_had_said_is_saved(
        self, one_turn: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Chat, "one_turn", one_turn)
        browser, token = Browser(Chat), stored("hello")
        tab, other = await browser.open(token), await browser.open(token)
        assert await tab.ask(say="unanswered", dawdle=60) == {"type": "dawdling"}
        tab.future.cancel()
        with suppress(asyncio.CancelledError):
            await tab.future
        assert contents(await other.hear()) == ["unanswered"]
        conversation = conversations.get(id_of(token))
        assert [m["content"] for m in conversation.messages] == ["hello", "unanswered"]
        async with conversation.aturn("reject"):
            pass
        await browser.leave()

    async def test_an_error_of_that_save_is_logged(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        browser, token = Browser(Chat), stored("hello")
        tab = await browser.open(token)
        assert await tab.ask(say="unanswered", dawdle=60) == {"type": "dawdling"}
        conversations.delete(id_of(token))
        tab.future.cancel()
        with suppress(asyncio.CancelledError):
            await tab.future
        assert "ConversationInterrupted" in caplog.text
        await browser.leave()

    async def test_a_sync_handler_that_waits_for_async_code_is_saved(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = asyncio.Event()

        async def model() -> None:
            asked.set()
            await asyncio.sleep(60)

        class Waiting(SyncChat):
            def receive_message(self, conversation: Conversation, content: Any) -> None:
                conversation.messages.append("user", content["say"])
                async_to_sync(model)()

        browser, token = Browser(Waiting), stored("hello")
        tab = await browser.open(token)
        await tab.send_json_to({"say": "unanswered"})
        await asked.wait()
        tab.future.cancel()
        with suppress(asyncio.CancelledError):
            await tab.future
        assert conversations.get(id_of(token)).messages[-1]["content"] == "unanswered"
        await browser.leave()
