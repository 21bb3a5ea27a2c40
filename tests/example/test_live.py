"""The example's answers as they come: by websocket, as server-sent events, and to other tabs."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from itertools import pairwise
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator
from django.test import AsyncClient, Client

from django_convstate import Conversation, conversations
from django_convstate.layer import breaker
from django_convstate.testing import clock
from django_convstate.tokens import unsign_token
from tests.support.example_site import use_settings_of_example
from tests.support.places import on
from tests.support.servers import Server, free_ports

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db

PATIENCE = 30.0  # seconds for whatever has to come
TRIP = "A 4 day trip to Jaipur, relaxed, we love food and forts, under $500"
HOTEL = "a hotel in Paris"
STREAM, MESSAGES = "/api/stream", "/api/messages"


@pytest.fixture(autouse=True)
def site(settings: Any, empty_conversations: None) -> Any:
    """Run the test under the settings of the example, but for where conversations are kept."""
    use_settings_of_example(settings)
    yield settings
    channel_layers.backends = {}
    breaker.begin_anew()


class Tab(WebsocketCommunicator):
    """A page with an open line."""

    @property
    def token(self) -> str:
        headers = {name.decode().lower(): value.decode() for name, value in self.response_headers}
        return SimpleCookie(headers["set-cookie"])["conversation"].value

    async def say(self, text: str, **more: Any) -> None:
        await self.send_json_to({"text": text, **more})

    async def hear(self) -> Any:
        return await self.receive_json_from(PATIENCE)

    async def hear_until(self, kind: str, count: int = 1) -> list[Any]:
        """Return the events up to the `count`th of this `type`."""
        events: list[Any] = []
        while sum(event["type"] == kind for event in events) < count:
            events.append(await self.hear())
        return events

    async def hear_messages(self, count: int) -> list[Any]:
        """Return `count` messages, in however many events they come."""
        messages: list[Any] = []
        while len(messages) < count:
            event = await self.hear()
            messages += event["messages"] if event["type"] == "messages" else []
        return messages

    async def close_code(self) -> Any:
        message = await self.receive_output(PATIENCE)
        assert message["type"] == "websocket.close"
        return message["code"]

    async def hang_up(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1001})


class Browser:
    """Keeps the cookie for its tabs."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.token: str | None = None
        self.tabs: list[Tab] = []

    async def open(self, seen: int = 0) -> Tab:
        headers = [(b"origin", b"http://testserver")]
        if self.token:
            headers.append((b"cookie", f"conversation={self.token}".encode()))
        tab = Tab(self.application, f"/live?seen={seen}", headers)
        self.tabs.append(tab)
        is_open, _ = await tab.connect(PATIENCE)
        assert is_open
        self.token = self.token or tab.token
        return tab

    async def open_and_listen(self, seen: int = 0) -> Tab:
        tab = await self.open(seen)
        await tab.hear_until("ready")
        return tab

    async def stored(self) -> Conversation:
        id = unsign_token(self.token or "")
        assert id is not None
        return await conversations.aget(id)

    async def leave(self) -> None:
        for tab in self.tabs:
            if not tab.future.done():
                await tab.hang_up()
                await tab.wait(PATIENCE)


@pytest.fixture
def application() -> Any:
    """The whole ASGI application, made under these settings."""
    return importlib.reload(importlib.import_module("example_project.asgi")).application


@pytest.fixture
async def browser(application: Any) -> AsyncIterator[Browser]:
    browser = Browser(application)
    yield browser
    await browser.leave()


def roles(conversation: Conversation) -> list[str]:
    return [message["role"] for message in conversation.messages.all()]


class TestSocket:
    async def test_the_answer_comes_word_by_word(self, browser):
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        said, *answers, whole = await tab.hear_until("messages", 2)
        assert said["type"] == "messages"
        assert [message["content"] for message in said["messages"]] == [TRIP]
        assert (said["seen"], whole["seen"]) == (1, 2)
        texts = [answer["text"] for answer in answers]
        assert texts[0] == ""
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        assert len(texts) > 20
        assert whole["messages"][0]["content"] == texts[-1]
        assert whole["messages"][0]["image"] == answers[0]["image"]
        assert whole["status"]["state"]["lastAnswer"] == texts[-1]
        assert whole["status"]["degraded"] is False

    async def test_what_is_said_is_stored_before_the_answer_begins(self, browser, site):
        site.CONCIERGE_PAUSE = 0.02
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        await tab.hear()
        assert roles(await browser.stored()) == ["user"]
        await tab.hear_until("messages")
        assert roles(await browser.stored()) == ["user", "assistant"]

    async def test_other_tabs_see_the_same_answer(self, browser):
        one, two = await browser.open_and_listen(), await browser.open_and_listen()
        await one.say(TRIP)
        heard = [await tab.hear_messages(2) for tab in (one, two)]
        assert heard[0] == heard[1]

    async def test_a_tab_opened_during_an_answer_sees_all_of_it(self, browser, site):
        site.CONCIERGE_PAUSE = 0.02
        one = await browser.open_and_listen()
        await one.say(TRIP)
        await one.hear_until("answer", 5)
        await one.hang_up()
        two = await browser.open(seen=1)
        events = await two.hear_until("messages")
        assert events[0] == {"type": "ready", "seen": 1}
        answers = [event["text"] for event in events if event["type"] == "answer"]
        assert len(answers[0].split()) >= 5
        assert events[-1]["messages"][0]["content"] == answers[-1]
        assert "interrupted" not in events[-1]["messages"][0]

    async def test_two_tabs_that_speak_at_once_are_answered_one_after_the_other(
        self, browser, site
    ):
        site.CONCIERGE_PAUSE = 0.002
        one, two = await browser.open_and_listen(), await browser.open_and_listen()
        await asyncio.gather(one.say(TRIP), two.say(HOTEL))
        for tab in (one, two):
            while (await tab.hear()).get("seen") != 4:
                pass
        conversation = await browser.stored()
        assert roles(conversation) == ["user", "assistant"] * 2
        # What is late in the layer, of an answer that is finished, is not shown any more.
        await one.say("thanks")
        late = await two.hear_until("messages", 1)
        assert [event["type"] for event in late] == ["messages"]

    async def test_a_tab_that_comes_back_hears_what_it_missed(self, browser):
        tab = await browser.open_and_listen()
        for text in (HOTEL, "under $90"):
            await tab.say(text)
            await tab.hear_until("messages", 2)
        await tab.hang_up()
        missed, ready = await (await browser.open(seen=1)).hear_until("ready")
        assert len(missed["messages"]) == 3
        assert missed["seen"] == ready["seen"] == 4

    async def test_a_stopping_server_keeps_the_answer_as_interrupted(self, browser, site):
        site.CONCIERGE_PAUSE = 0.02
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        await tab.hear_until("answer", 5)
        tab.future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await tab.future
        conversation = await browser.stored()
        assert roles(conversation) == ["user", "assistant"]
        assert conversation.messages[-1]["interrupted"] is True
        assert len(conversation.messages[-1]["content"].split()) >= 4
        assert "lastAnswer" not in conversation
        again = await browser.open_and_listen(seen=2)
        await again.say("under $200")
        await again.hear_until("messages", 2)

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            ([], "bad_json"),
            ({}, "missing_text"),
            ({"text": " "}, "empty_text"),
            ({"text": "hi", "id": 5}, "bad_id"),
            ({"text": "hi", "id": "x" * 65}, "bad_id"),
        ],
    )
    async def test_an_invalid_message_is_refused(self, browser, content, code):
        tab = await browser.open_and_listen()
        await tab.send_json_to(content)
        refused = await tab.hear()
        assert refused["type"] == "refused"
        assert refused["error"]["code"] == code
        await tab.say("hi")
        await tab.hear_until("messages", 2)

    async def test_an_open_page_does_not_keep_its_conversation_alive(self, browser):
        tab = await browser.open_and_listen()
        await tab.say(HOTEL)
        await tab.hear_until("messages", 2)
        clock.move(3601)
        await tab.say("under $90")
        assert await tab.close_code() == 4404

    async def test_a_socket_hears_what_is_posted(self, browser):
        tab = await browser.open_and_listen()
        await tab.say(HOTEL)
        await tab.hear_until("messages", 2)
        client = AsyncClient()
        client.cookies["conversation"] = browser.token or ""
        await client.post(MESSAGES, {"text": "under $90"}, content_type="application/json")
        news = await tab.hear()
        assert [message["role"] for message in news["messages"]] == ["user", "assistant"]
        await client.post("/", {"text": "thanks"})
        assert (await tab.hear())["seen"] == 6


class TestStream:
    async def post(self, client: AsyncClient, **content: Any) -> Any:
        return await client.post(STREAM, content, content_type="application/json")

    async def events(self, response: Any) -> list[Any]:
        body = b"".join([part async for part in response.streaming_content]).decode()
        return [json.loads(block.removeprefix("data: ")) for block in body.split("\n\n") if block]

    async def test_a_stream_has_the_events_of_a_socket(self, browser):
        client = AsyncClient()
        response = await self.post(client, text=TRIP)
        assert response.headers["Content-Type"] == "text/event-stream"
        assert "no-store" in response.headers["Cache-Control"]
        streamed = await self.events(response)
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        spoken = await tab.hear_until("messages", 2)
        assert [event.get("text") for event in streamed] == [event.get("text") for event in spoken]
        assert [event.get("seen") for event in streamed] == [event.get("seen") for event in spoken]
        again = await self.events(await self.post(client, text="under $200"))
        assert again[-1]["seen"] == 4

    async def test_a_streamed_answer_is_seen_in_other_tabs(self, browser):
        tab = await browser.open_and_listen()
        await tab.say(HOTEL)
        await tab.hear_until("messages", 2)
        client = AsyncClient()
        client.cookies["conversation"] = browser.token or ""
        await self.events(await self.post(client, text="under $90"))
        while (await tab.hear()).get("seen") != 4:
            pass

    @pytest.mark.parametrize(
        ("content", "content_type", "status", "code"),
        [
            ({"text": ""}, "application/json", 400, "empty_text"),
            ({"text": "hi", "id": ""}, "application/json", 400, "bad_id"),
            ("hi", "text/plain", 415, "not_json"),
        ],
    )
    async def test_an_invalid_request_is_refused(
        self, async_client, content, content_type, status, code
    ):
        response = await async_client.post(STREAM, content, content_type=content_type)
        assert response.status_code == status
        assert response.json()["error"]["code"] == code
        refused = await async_client.get(STREAM)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "POST, DELETE")

    async def test_an_outage_is_answered_with_503(self, async_client, site):
        site.CONVERSATION_STATE_BACKEND = "cache"
        site.CONVERSATION_STATE = {"CACHE_ALIAS": "unreachable"}
        response = await self.post(async_client, text="hi")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "unavailable"

    def test_a_wsgi_server_is_answered_with_501(self):
        response = Client().post(STREAM, {"text": "hi"}, content_type="application/json")
        assert response.status_code == 501

    async def test_a_client_that_hangs_up_leaves_the_answer_as_interrupted(self, application, site):
        site.CONCIERGE_PAUSE = 0.02
        headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": STREAM, "headers": headers}
        request = ApplicationCommunicator(application, {**scope, "query_string": b""})
        await request.send_input(
            {"type": "http.request", "body": json.dumps({"text": TRIP}).encode()}
        )
        start = await request.receive_output(PATIENCE)
        token = SimpleCookie(dict(start["headers"])[b"Set-Cookie"].decode())["conversation"].value
        for _ in range(6):
            await request.receive_output(PATIENCE)
        await request.send_input({"type": "http.disconnect"})
        await request.wait(PATIENCE)
        conversation = await conversations.aget(unsign_token(token) or "")
        async with asyncio.timeout(PATIENCE):  # nobody has the turn any more
            async with conversation.aturn():
                assert roles(conversation) == ["user", "assistant"]
                assert conversation.messages[-1]["interrupted"] is True
        client = AsyncClient()
        client.cookies["conversation"] = token
        assert "This answer was interrupted." in (await client.get("/")).content.decode()


class TestStop:
    async def test_a_stopped_answer_is_kept_as_far_as_it_came(self, browser, site):
        site.CONCIERGE_PAUSE = 0.02
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        await tab.hear_until("answer", 5)
        site.CONCIERGE_PAUSE = 1  # the next words take as long as it needs
        assert (await stop(browser.token)).status_code == 204
        *_, last = await tab.hear_until("messages")
        message = last["messages"][0]
        assert (message["interrupted"], message["stopped"]) == (True, True)
        assert len(message["content"].split()) >= 4
        conversation = await browser.stored()
        assert conversation.messages[-1] == message
        assert "lastAnswer" not in conversation
        site.CONCIERGE_PAUSE = 0
        await tab.say("under $200")  # nobody has the turn any more
        *_, answer = await tab.hear_until("messages", 2)
        assert "stopped" not in answer["messages"][0]

    async def test_a_stream_is_stopped_too_and_other_tabs_hear_so(self, browser, site):
        tab = await browser.open_and_listen()
        await tab.say(HOTEL)
        await tab.hear_until("messages", 2)
        site.CONCIERGE_PAUSE = 0.02
        client = AsyncClient()
        client.cookies["conversation"] = browser.token or ""
        response: Any = await client.post(STREAM, {"text": TRIP}, content_type="application/json")
        parts = aiter(response.streaming_content)
        for _ in range(5):
            await anext(parts)
        site.CONCIERGE_PAUSE = 1
        await stop(browser.token)
        *_, last = [json.loads(part.removeprefix(b"data: ")) async for part in parts]
        assert last["messages"][0]["stopped"] is True
        *_, heard = await tab.hear_until("messages", 2)
        assert heard["messages"] == last["messages"]

    async def test_one_conversation_does_not_stop_another(self, browser, application, site):
        site.CONCIERGE_PAUSE = 0.005
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        await tab.hear_until("answer", 2)
        other = Browser(application)
        await other.open_and_listen()
        assert (await stop(other.token)).status_code == 204
        assert (await stop(None)).status_code == 204
        *_, last = await tab.hear_until("messages")
        assert "stopped" not in last["messages"][0]
        await other.leave()

    async def test_without_the_server_of_the_layer_an_answer_is_given(self, browser, site):
        (port,) = free_ports(1)  # where nobody listens
        use_layer_on(site, port)
        tab = await browser.open_and_listen()
        await tab.say(HOTEL)
        await tab.hear_until("messages", 2)
        response = await stop(browser.token)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "unavailable"

    async def test_also_when_that_server_goes_away_meanwhile(self, browser, server: Server, site):
        use_layer_on(site, server.port)
        site.CONCIERGE_PAUSE = 0.02
        tab = await browser.open_and_listen()
        await tab.say(TRIP)
        await tab.hear_until("answer", 5)
        site.CONCIERGE_PAUSE = 1
        await stop(browser.token)
        *_, last = await tab.hear_until("messages")
        assert last["messages"][0]["stopped"] is True
        site.CONCIERGE_PAUSE = 0.02
        await tab.say(HOTEL)
        await tab.hear_until("answer", 5)
        await sync_to_async(server.kill)()
        *_, last = await tab.hear_until("messages")
        assert "stopped" not in last["messages"][0]
        await tab.say("thanks")
        await tab.hear_until("messages", 2)


def use_layer_on(site: Any, port: int) -> None:
    hosts = [{"address": f"redis://127.0.0.1:{port}/0", "socket_timeout": 15}]
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
    site.CHANNEL_LAYERS = {"default": layer}
    channel_layers.backends = {}


async def stop(token: str | None) -> Any:
    client = AsyncClient()
    if token:
        client.cookies["conversation"] = token
    return await client.delete(STREAM)


class TestSaidTwice:
    """A client whose line has broken says it again under the same name, whichever way."""

    async def test_a_message_sent_twice_under_one_id_is_answered_once(self, browser):
        tab = await browser.open_and_listen()
        await tab.say(HOTEL, id="mine")
        said, *_ = await tab.hear_until("messages", 2)
        assert said["messages"][0]["id"] == "mine"
        await tab.say(HOTEL, id="mine")
        await tab.say("thanks", id="other")
        assert (await tab.hear())["messages"][0]["id"] == "other"
        await tab.hear_until("messages")
        client = AsyncClient()
        client.cookies["conversation"] = browser.token or ""
        body = {"text": HOTEL, "id": "mine"}
        response: Any = await client.post(STREAM, body, content_type="application/json")
        assert b"".join([part async for part in response.streaming_content]) == b""
        response = await client.post(MESSAGES, body, content_type="application/json")
        assert response.json()["message_count"] == 4


async def test_a_conversation_goes_on_through_an_outage(browser, server: Server, site):
    """A newcomer by websocket keeps the history, is told so, and finds all of it afterwards."""
    url = f"redis://127.0.0.1:{server.port}/0"
    on(site, url, SOCKET_TIMEOUT=0.5, SOCKET_CONNECT_TIMEOUT=0.5)
    site.CONVERSATION_STATE = {"CACHE_ALIAS": "own"}
    site.CONVERSATION_STATE_BACKEND = "redis"
    tab = await browser.open_and_listen()
    await tab.say(HOTEL)
    await tab.hear_until("messages", 2)
    await sync_to_async(server.kill)()
    await tab.say("under $90")
    *_, answer = await tab.hear_until("messages", 2)
    assert answer["status"]["degraded"] is True
    assert answer["status"]["state"]["city"] == "Paris"
    assert answer["seen"] == 4
    await sync_to_async(server.start)()
    async with asyncio.timeout(60):
        while (await browser.stored()).degraded:  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.1)
    await tab.say("thanks")
    *_, answer = await tab.hear_until("messages", 3)  # once more what was said in the outage
    assert answer["status"]["degraded"] is False
    assert answer["seen"] == 6
    await browser.leave()
    await conversations.aclose()
