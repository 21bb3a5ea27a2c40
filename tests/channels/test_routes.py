"""Consumers whose conversation is chosen by the URL, and not by the cookie."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.routing import URLRouter
from django.urls import path

from django_convstate import Conversation, ConversationStore, conversations
from django_convstate.channels import ConversationMiddlewareStack
from tests.support.consumers import Chat, SyncChat
from tests.support.tabs import Browser, Tab, contents, id_of, stored, until_slid

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


class Room(Chat):
    async def get_conversation(self) -> Conversation:
        return await conversations.aopen(self.scope["url_route"]["kwargs"]["id"])


class SyncRoom(SyncChat):
    def get_conversation(self) -> Conversation:
        return conversations.open(self.scope["url_route"]["kwargs"]["id"])


class Theirs(Chat):
    async def get_conversation(self) -> Conversation:
        return await conversations.aget(self.scope["url_route"]["kwargs"]["id"], owner="42")


class Lobby(Chat):
    """Whose conversation changes while a socket is open."""

    where = "lobby"

    async def get_conversation(self) -> Conversation:
        return await conversations.aopen(self.where)


class Overtaken(Chat):
    """Which others write to between its first load and its joining of the group."""

    overtaken = False

    async def get_conversation(self) -> Conversation:
        conversation = await conversations.aopen("busy")
        if not self.overtaken:
            self.overtaken = True
            await conversations.aappend("busy", "user", "in between")
        return conversation


ELSEWHERE = ConversationStore("locmem", key_prefix="elsewhere")


class Elsewhere(Chat):
    async def get_conversation(self) -> Conversation:
        return await ELSEWHERE.aopen("far")


class Doors(Browser):
    """Opens tabs at URLs."""

    def __init__(self, consumer: Any) -> None:
        routes = URLRouter([path("<id>/", consumer.as_asgi())])
        self.application = ConversationMiddlewareStack(routes)
        self.tabs: list[Tab] = []

    async def enter(self, id: str, *args: Any, **kwargs: Any) -> Tab:
        return await self.open(*args, query=f"{id}/", **kwargs)


@pytest.fixture(params=[Room, SyncRoom], ids=["async", "sync"])
async def rooms(request: pytest.FixtureRequest) -> AsyncIterator[Doors]:
    doors = Doors(request.param)
    yield doors
    await doors.leave()


async def opened(consumer: Any) -> tuple[Doors, Tab]:
    doors = Doors(consumer)
    return doors, await doors.enter("room")


def said(id: str) -> list[Any]:
    return [message["content"] for message in conversations.get(id).messages.all()]


async def test_what_is_said_is_in_the_conversation_of_the_url(rooms: Doors) -> None:
    cookie = stored("mine")
    tab = await rooms.enter("kitchen", cookie)
    await tab.say("hello")
    assert said("kitchen") == ["hello"]
    assert said(id_of(cookie)) == ["mine"]


async def test_sockets_at_one_url_hear_each_other_and_no_others(rooms: Doors) -> None:
    one, other = await rooms.enter("kitchen"), await rooms.enter("kitchen", stored("mine"))
    garden = await rooms.enter("garden")
    await one.say("hello")
    assert contents(await other.hear()) == ["hello"]
    assert await garden.receive_nothing()
    assert await one.receive_nothing()


async def test_no_cookie_is_sent_for_it(rooms: Doors) -> None:
    assert "set-cookie" not in (await rooms.enter("kitchen")).headers
    tab = await rooms.enter("kitchen", subprotocols=["convstate"])
    assert (await tab.ask())["count"] == 0, "nor a token"


async def test_it_stays_as_long_as_a_socket_is_open(rooms: Doors, settings: Any) -> None:
    settings.CONVERSATION_STATE = {"TTL": 3}
    tab = await rooms.enter("kitchen")
    await tab.say("hello")
    await until_slid(conversations, "kitchen")
    assert said("kitchen") == ["hello"]


async def test_one_that_is_deleted_closes_only_sockets_that_cannot_begin_it(rooms: Doors) -> None:
    tab = await rooms.enter("kitchen")
    await tab.send_json_to({"say": "hello", "delete": True})
    await tab.hear()
    assert await tab.close_code() == 4404


@pytest.mark.parametrize("owner", ["43", None])
async def test_another_owners_closes_the_socket_as_an_absent_one(owner: str | None) -> None:
    conversation = conversations.create(owner=owner, id="private")
    conversation["a"] = 1
    await conversation.asave()
    doors = Doors(Theirs)
    for id in ("private", "absent"):
        assert await (await doors.enter(id)).close_code() == 4404
    await doors.leave()


async def test_a_conversation_of_another_store_is_kept_alive_there(settings: Any) -> None:
    doors, tab = await opened(Elsewhere)
    await tab.say("hello")
    conversation = await ELSEWHERE.aget("far")
    conversation.ttl = 3.0
    await conversation.asave()
    await tab.ask()
    await until_slid(ELSEWHERE, "far")
    assert not await conversations.aexists("far")
    assert (await tab.ask())["messages"] == ["hello"]
    await doors.leave()


async def test_what_is_committed_while_a_socket_joins_is_heard() -> None:
    doors = Doors(Overtaken)
    tab = await doors.open(query="room/?seen=0")
    assert contents(await tab.hear()) == ["in between"]
    await doors.leave()


async def test_a_socket_follows_when_the_hook_returns_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doors, tab = await opened(Lobby)
    await tab.say("in the lobby")
    await conversations.aappend("stage", "user", "on the stage")
    monkeypatch.setattr(Lobby, "where", "stage")
    assert (await tab.say("here, too"))["messages"] == ["on the stage", "here, too"]
    other = await doors.enter("room")
    await other.say("and others")
    assert contents(await tab.hear()) == ["and others"]
    await doors.leave()
