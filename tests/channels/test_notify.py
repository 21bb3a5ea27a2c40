"""What open websockets hear of what was saved elsewhere: by requests, and by `notify`."""

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from django_convstate import Conversation, conversations, layer, news
from django_convstate.channels import anotify, notify
from django_convstate.layer import LAYER_TIMEOUT
from django_convstate.middleware import ConversationMiddleware
from tests.support.consumers import Chat, SyncChat
from tests.support.ruler import Stopwatch
from tests.support.tabs import Browser, contents, id_of, stored

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


class AwayLayer(InMemoryChannelLayer):
    async def group_send(self, *args: Any) -> None:
        raise OSError("away")


class HangingLayer(InMemoryChannelLayer):
    async def group_send(self, *args: Any) -> None:
        await asyncio.sleep(60)


class StuckLayer(InMemoryChannelLayer):
    """Which cannot be cancelled, as little as the lookup of a host."""

    async def group_send(self, *args: Any) -> None:
        time.sleep(3)  # noqa: ASYNC251 - on purpose


def configure(settings: Any, kind: type) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.{kind.__name__}"}}


@pytest.fixture(autouse=True)
def _no_memory_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_sender", type(news._sender)())


def speak(conversation: Conversation) -> HttpResponse:
    conversation.messages.append("user", "by HTTP")
    return HttpResponse()


def speak_in_turn(conversation: Conversation) -> HttpResponse:
    with conversation.turn():
        conversation.messages.append("user", "by HTTP")
    return HttpResponse()


def take_back(conversation: Conversation) -> HttpResponse:
    """Leave as many messages as there were, in more than one save."""
    conversation.messages.pop()
    conversation.save()
    conversation.messages.append("user", "instead")
    return HttpResponse()


def note(conversation: Conversation) -> HttpResponse:
    conversation["value"] = 1
    return HttpResponse()


def stream(conversation: Conversation) -> StreamingHttpResponse:
    return StreamingHttpResponse(conversation.messages.stream("assistant", ["one ", "two"]))


async def visit(way: str, view: Any, token: str) -> None:
    """Serve a request as a server does, and close its response."""
    factory: Any = RequestFactory() if way == "sync" else AsyncRequestFactory()
    request: Any = factory.get("/")
    request.COOKIES["conversation"] = token

    async def aview(request: Any) -> Any:
        return await sync_to_async(view)(await request.aconversation())

    def serve() -> None:
        response: Any = ConversationMiddleware(lambda request: view(request.conversation))(request)
        if response.streaming:
            list(response)
        response.close()

    if way == "sync":
        await sync_to_async(serve)()
        return
    middleware: Any = ConversationMiddleware(aview)
    response = await middleware(request)
    if response.streaming:
        _ = [part async for part in response]
    response.close()


@pytest.mark.parametrize("view", [speak, speak_in_turn])
async def test_a_request_tells_the_open_sockets(browser: Browser, way: str, view: Any) -> None:
    token = stored("hello")
    tab = await browser.open(token)
    await visit(way, view, token)
    assert contents(await tab.hear()) == ["by HTTP"]
    assert await tab.receive_nothing(), "it is told once"


async def test_a_stream_tells_them_at_its_end(browser: Browser, way: str) -> None:
    token = stored("hello")
    tab = await browser.open(token)
    if way == "sync":
        await visit(way, stream, token)
    else:
        response: Any = await ConversationMiddleware(_astream)(_request(token))  # type: ignore[misc]
        _ = [part async for part in response]
    assert contents(await tab.hear()) == ["one two"]


async def _astream(request: Any) -> StreamingHttpResponse:
    async def chunks() -> Any:
        yield "one "
        yield "two"

    conversation = await request.aconversation()
    return StreamingHttpResponse(conversation.messages.stream("assistant", chunks()))


def _request(token: str) -> Any:
    request: Any = AsyncRequestFactory().get("/")
    request.COOKIES["conversation"] = token
    return request


async def test_messages_that_were_replaced_are_sent_anew(browser: Browser, way: str) -> None:
    token = stored("hello", "wrong")
    tab = await browser.open(token)
    await visit(way, take_back, token)
    heard = await tab.hear()
    assert (contents(heard), heard["count"]) == (["instead"], 2)


async def test_a_save_without_messages_tells_nobody(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send(*args: Any) -> None:
        sent.append(args)

    sent: list[Any] = []
    monkeypatch.setattr(news, "_send", send)
    await visit(way, note, stored("hello"))
    assert sent == []
    await visit(way, speak, stored("hello"))
    assert len(sent) == 1


@pytest.mark.parametrize("kind", [AwayLayer, HangingLayer])
async def test_a_layer_that_is_away_fails_no_request_and_delays_one(
    settings: Any, way: str, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    configure(settings, kind)
    token = stored("hello")
    with Stopwatch() as watch:
        for _ in range(3):
            await visit(way, speak, token)
    assert watch.seconds < 2 * LAYER_TIMEOUT, "not each of them waits"
    assert len(conversations.get(id_of(token)).messages) == 4
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "not told" in warnings[0].getMessage()


def test_nor_does_one_that_cannot_be_cancelled(settings: Any) -> None:
    """Where no event loop runs, as under WSGI."""
    configure(settings, StuckLayer)
    conversation = conversations.get(id_of(stored("hello")))
    with Stopwatch() as watch:
        notify(conversation)
    assert watch.seconds < 2 * LAYER_TIMEOUT


async def test_it_is_tried_again_after_a_while(
    browser: Browser, settings: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "LAYER_RETRY_PAUSE", 0.1)
    token = stored("hello")
    tab = await browser.open(token)
    in_memory = settings.CHANNEL_LAYERS
    with monkeypatch.context() as patch:
        patch.setattr(InMemoryChannelLayer, "group_send", AwayLayer.group_send)
        await visit(way, speak, token)
    assert in_memory == settings.CHANNEL_LAYERS
    assert contents(await tab.hear()) == ["by HTTP"], "without another request"
    await visit(way, speak, token)
    assert contents(await tab.hear()) == ["by HTTP"]


async def test_anotify_tells_what_a_task_has_saved(browser: Browser) -> None:
    token = stored("hello")
    tab = await browser.open(token)
    await conversations.aappend(id_of(token), "user", "by a task")
    await anotify(await conversations.aget(id_of(token)))
    assert contents(await tab.hear()) == ["by a task"]


async def test_notify_tells_it_from_sync_code(browser: Browser) -> None:
    def work() -> None:
        conversations.append(id_of(token), "user", "by a task")
        notify(conversations.get(id_of(token)))

    token = stored("hello")
    tab = await browser.open(token)
    await sync_to_async(work)()
    assert contents(await tab.hear()) == ["by a task"]


async def test_notify_in_async_code_says_what_to_write() -> None:
    conversation = conversations.get(id_of(stored("hello")))
    with pytest.raises(SynchronousOnlyOperation, match="await anotify"):
        notify(conversation)


async def test_an_event_of_ones_own_goes_to_its_method() -> None:
    class Waving(Chat):
        async def chat_wave(self, event: dict[str, Any]) -> None:
            await self.send_json({"waved": event["hand"]})

    browser, token = Browser(Waving), stored("hello")
    tab = await browser.open(token)
    await anotify(await conversations.aget(id_of(token)), {"type": "chat.wave", "hand": "left"})
    assert await tab.hear() == {"waved": "left"}
    await browser.leave()


@pytest.mark.parametrize("layers", [{}, None])
async def test_without_a_layer_it_does_nothing(settings: Any, layers: Any) -> None:
    settings.CHANNEL_LAYERS = layers
    conversation = conversations.get(id_of(stored("hello")))
    await anotify(conversation)
    await sync_to_async(notify)(conversation)


def test_without_a_layer_a_request_imports_nothing_of_channels() -> None:
    code = """
import sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_convstate"], SECRET_KEY="x")
django.setup()
from django.http import HttpResponse
from django.test import RequestFactory
from django_convstate.middleware import ConversationMiddleware

def view(request):
    request.conversation.messages.append("user", "hello")
    return HttpResponse()

assert ConversationMiddleware(view)(RequestFactory().get("/")).cookies
assert "channels" not in sys.modules and "django_convstate.channels" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("consumer", [Chat, SyncChat])
async def test_a_consumer_that_saves_is_not_told_of_it(consumer: type) -> None:
    browser = Browser(consumer)
    tab = await browser.open()
    await tab.say("hello")
    assert await tab.receive_nothing()
    await browser.leave()
