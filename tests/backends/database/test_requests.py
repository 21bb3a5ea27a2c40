"""Requests whose views run in a transaction."""

from typing import Any

import pytest
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from django_convstate import conversations
from django_convstate.backends.database.models import Conversation


def answers(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", "hello")
    return HttpResponse(str(len(request.conversation.messages)))


def saves_and_fails(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", "hello")
    request.conversation.save()
    raise RuntimeError("after the save")


def takes_a_turn(request: Any) -> HttpResponse:
    with request.conversation.turn() as conversation:
        conversation.messages.append("user", "hello")
    return HttpResponse(str(len(request.conversation.messages)))


urlpatterns = [path("", answers), path("fail/", saves_and_fails), path("turn/", takes_a_turn)]


@pytest.fixture
def client(database: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    settings.ROOT_URLCONF = __name__
    settings.CONVERSATION_STATE_BACKEND = "database"
    settings.CONVERSATION_STATE = {"DATABASE_ALIAS": database, "OWNER": None}
    monkeypatch.setitem(connections[database].settings_dict, "ATOMIC_REQUESTS", True)
    return Client(raise_request_exception=False)


def test_what_the_middleware_saves(client: Client, database: str) -> None:
    assert [client.get("/").content for _ in range(3)] == [b"1", b"2", b"3"]
    (found,) = conversations.list()
    assert found.message_count == 3
    assert Conversation.objects.using(database).get().key == found.id


def test_what_a_view_has_saved_before_it_fails_is_rolled_back(client: Client) -> None:
    client.get("/")
    assert client.get("/fail/").status_code == 500
    (found,) = conversations.list()
    assert (found.message_count, found.version) == (1, 1)
    assert client.get("/").content == b"2"


def test_turns(client: Client) -> None:
    assert [client.get("/turn/").content for _ in range(3)] == [b"1", b"2", b"3"]
    assert client.get("/").content == b"4"
