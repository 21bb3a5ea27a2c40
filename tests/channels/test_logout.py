"""What becomes of open websockets at a logout."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import channel_layers, get_channel_layer
from django.contrib.auth import alogout, logout
from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path

from django_convstate import Conversation, conversations
from django_convstate.http.login import end_login
from django_convstate.middleware import ConversationMiddleware
from django_convstate.news import session_group
from tests.support.consumers import Chat, SyncChat
from tests.support.tabs import IN_MEMORY, PATIENCE, Browser, Tab, id_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]
both = pytest.mark.parametrize("consumer", [Chat, SyncChat])

GONE = 4404


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


async def aleave(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse()


def leave_in_stream(request: HttpRequest) -> StreamingHttpResponse:
    logout(request)
    return StreamingHttpResponse(iter(["bye"]))


async def aleave_in_stream(request: HttpRequest) -> StreamingHttpResponse:
    await alogout(request)

    async def parts() -> Any:
        yield "bye"

    return StreamingHttpResponse(parts())


urlpatterns = [
    *(path("sync", leave), path("async", aleave)),
    *(path("stream/sync", leave_in_stream), path("stream/async", aleave_in_stream)),
]


def id_in(scope: Any) -> str:
    return str(scope["query_string"].decode().partition("id=")[2])


class Room(Chat):
    async def get_conversation(self) -> Conversation:
        return await conversations.aget(id_in(self.scope), owner=self.scope["user"])


class SyncRoom(SyncChat):
    def get_conversation(self) -> Conversation:
        return conversations.get(id_in(self.scope), owner=self.scope["user"])


ROOMS: dict[Any, Any] = {Chat: Room, SyncChat: SyncRoom}


@pytest.fixture(autouse=True)
def _layer(settings: Any) -> Any:
    settings.CHANNEL_LAYERS = IN_MEMORY
    yield
    channel_layers.backends = {}


@pytest.fixture
async def user() -> User:
    return await User.objects.acreate(username="anna")


@pytest.fixture
async def token(user: User) -> str:
    """That of a conversation of the user's."""
    conversation = conversations.create(owner=user)
    conversation.messages.append("user", "mine")
    await conversation.asave()
    return conversation.token


def log_in(user: User) -> str:
    """Return the cookie of a session in which a user is logged in."""
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


async def log_out(session: str, url: str, **cookies: str) -> None:
    client = AsyncClient()
    client.cookies.load({"sessionid": session, **cookies})
    response: Any = await client.get(url)
    assert response.status_code == 200
    if response.streaming:
        parts = [part async for part in response] if response.is_async else list(response)
        assert b"".join(parts) == b"bye"


async def open_by(means: str, browser: Browser, token: str, session: str) -> Tab:
    """Open a tab of a session, in which there is another conversation, and in the tab this one."""
    cookies = f"{token if means == 'cookie' else ''}; sessionid={session}"
    if means == "url":
        return await browser.open(cookies, query=f"?id={id_of(token)}")
    tab = await browser.open(cookies, token if means == "subprotocol" else None)
    if means == "message":
        await tab.send_json_to({"type": "conversation.token", "token": token})
    return tab


@both
@pytest.mark.parametrize("means", ["cookie", "url", "subprotocol", "message"])
@pytest.mark.parametrize("url", ["sync", "async", "stream/sync", "stream/async"])
async def test_those_of_the_session_are_closed_and_no_others(
    consumer: Any, url: str, means: str, user: User, token: str
) -> None:
    here, elsewhere = [await sync_to_async(log_in)(user) for _ in range(2)]
    browser = Browser(ROOMS[consumer] if means == "url" else consumer)
    ours, theirs = [await open_by(means, browser, token, each) for each in (here, elsewhere)]
    assert (await ours.ask())["count"] == (await theirs.ask())["count"] == 1
    await log_out(here, f"/{url}")
    assert await ours.close_code() == GONE
    assert (await theirs.ask(say="on another device"))["count"] == 2
    await browser.leave()


@both
async def test_one_of_the_session_is_closed_whatever_it_has_had_before(
    consumer: Any, user: User, token: str
) -> None:
    browser = Browser(consumer)
    session = await sync_to_async(log_in)(user)
    tab = await browser.open(f"; sessionid={session}")
    for each in (token, token):
        await tab.send_json_to({"type": "conversation.token", "token": each})
    assert (await tab.ask())["count"] == 1
    await log_out(session, "/async")
    assert await tab.close_code() == GONE
    await browser.leave()


@both
async def test_one_in_which_nobody_is_logged_in_stays_open(
    consumer: Any, user: User, token: str
) -> None:
    browser = Browser(consumer)
    tab = await browser.open()
    await tab.say("hello")
    session = await sync_to_async(log_in)(user)
    await log_out(session, "/async", conversation=str(tab.token))
    assert (await tab.ask())["count"] == 1
    await browser.leave()


@pytest.mark.parametrize("url", ["sync", "async", "stream/sync", "stream/async"])
async def test_they_are_told_once(user: User, url: str) -> None:
    session = await sync_to_async(log_in)(user)
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(session_group(session), channel)
    await log_out(session, f"/{url}")
    async with asyncio.timeout(PATIENCE):
        assert await layer.receive(channel) == {"type": "conversation.logout"}
    await layer.send(channel, {"type": "the next"})
    assert await layer.receive(channel) == {"type": "the next"}


async def test_a_sync_middleware_within_an_event_loop_says_that_they_stay_open(
    rf: RequestFactory, caplog: pytest.LogCaptureFixture
) -> None:
    def log_out(request: HttpRequest) -> HttpResponse:
        end_login(None, request)
        return HttpResponse()

    request = rf.get("/")
    request.session = SessionStore("0123456789")
    assert ConversationMiddleware(log_out)(request).status_code == 200  # type: ignore[union-attr]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("django_convstate", "WARNING")
    assert "stay open" in record.getMessage()
