"""What becomes of open websockets at a logout."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import alogout, logout
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_convstate import conversations
from tests.support.consumers import Chat, SyncChat
from tests.support.tabs import IN_MEMORY, Browser

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls(__name__),
    pytest.mark.parametrize("consumer", [Chat, SyncChat]),
]

GONE = 4404


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


async def aleave(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse()


urlpatterns = [path("sync", leave), path("async", aleave)]


def log_in(user: User) -> str:
    """Return the cookie of a session in which a user is logged in."""
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_those_of_the_session_are_closed_and_no_others(
    consumer: Any, way: str, settings: Any
) -> None:
    settings.CHANNEL_LAYERS = IN_MEMORY
    user = await User.objects.acreate(username="anna")
    conversation = conversations.create(owner=user)
    conversation.messages.append("user", "mine")
    await conversation.asave()
    token = conversation.token
    here, elsewhere = [await sync_to_async(log_in)(user) for _ in range(2)]
    browser = Browser(consumer)
    ours = await browser.open(f"{token}; sessionid={here}")
    theirs = await browser.open(f"{token}; sessionid={elsewhere}")
    assert (await ours.ask())["count"] == (await theirs.ask())["count"] == 1
    client = AsyncClient()
    client.cookies["conversation"], client.cookies["sessionid"] = token, here
    assert (await client.get(f"/{way}")).status_code == 200
    assert await ours.close_code() == GONE
    assert (await theirs.ask(say="on another device"))["count"] == 2
    await browser.leave()
