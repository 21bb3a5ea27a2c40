"""Users of any model own conversations, whatever their primary key is."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.test import AsyncClient, Client
from django.utils.decorators import sync_and_async_middleware

from django_convstate import conversations
from django_convstate.ids import owner_of
from tests.support.people import use_people


class Key:
    """A user of any model."""

    is_authenticated = True

    def __init__(self, pk: object) -> None:
        self.pk = pk


KEYS = [
    *(0, 1, -1, 2**80),
    *("", "None", "a b", "ü", "a\0b", "x" * 300, "sha256:" + "0" * 64),
    *(uuid.UUID(int=7), (1, 2), b"1"),
]


def test_users_with_any_primary_key_are_different_owners() -> None:
    owners = [owner_of(Key(key)) for key in KEYS]
    assert None not in owners
    assert len(set(owners)) == len(KEYS)
    assert all(owner is not None and 0 < len(owner) <= 256 for owner in owners)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_each_owns_what_it_says(key: Any) -> None:
    user = Key(key)
    conversation = conversations.create(user)
    conversation["mine"] = True
    conversation.save()
    assert conversations.get(conversation.id, owner=user)["mine"]
    assert [summary.id for summary in conversations.list(owner=user)] == [conversation.id]
    assert list(conversations.list(owner=Key("another"))) == []


CURRENT: list[Any] = []


@sync_and_async_middleware
def authenticating(get_response: Any) -> Any:
    """Has its own users, as some projects have."""

    async def amiddleware(request: Any) -> Any:
        request.user = CURRENT[-1]
        return await get_response(request)

    def middleware(request: Any) -> Any:
        request.user = CURRENT[-1]
        return get_response(request)

    return amiddleware if iscoroutinefunction(get_response) else middleware


@pytest.fixture
def _own_users(settings: Any) -> Iterator[None]:
    use_people(settings)
    settings.MIDDLEWARE = [
        f"{__name__}.authenticating",
        "django_convstate.middleware.ConversationMiddleware",
    ]
    yield
    CURRENT.clear()


@pytest.mark.usefixtures("_own_users")
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_over_http(way: str, key: Any) -> None:
    client: Any = Client() if way == "sync" else AsyncClient()
    get: Any = client.get if way == "sync" else async_to_sync(client.get)
    for user, said in [(Key(key), ["hello"]), (Key(key), ["hello"] * 2), (Key("another"), [])]:
        CURRENT.append(user)
        query = {"say": "hello"} if said else {}
        assert get(f"/{way}/chat", query).json()["said"] == said
