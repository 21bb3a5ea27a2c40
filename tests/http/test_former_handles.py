"""A request that has loaded a conversation before its visitor logged in with another request: a
thief's, who has copied the token, or one that takes long."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpResponse
from django.urls import path

from django_convstate import conversations
from tests.support import people
from tests.support.people import Person, use_people

BETWEEN: list[Callable[[], None]] = []  # what happens between the load and the call


def use(request: Any, name: str) -> HttpResponse:
    conversation = request.conversation
    assert len(conversation.messages) == 1
    BETWEEN[-1]()
    if name == "say":
        conversation.messages.append("user", "by the other")
    else:
        getattr(conversation, name)()
    return HttpResponse()


async def ause(request: Any, name: str) -> HttpResponse:
    conversation = await request.aconversation()
    assert len(conversation.messages) == 1
    await asyncio.to_thread(BETWEEN[-1])
    if name == "say":
        conversation.messages.append("user", "by the other")
    else:
        await getattr(conversation, f"a{name}")()
    return HttpResponse()


urlpatterns = [
    *people.urlpatterns,
    *(path("sync/use/<str:name>", use), path("async/use/<str:name>", ause)),
]


@pytest.fixture(autouse=True)
def _people(settings: Any) -> Iterator[None]:
    use_people(settings)
    settings.ROOT_URLCONF = __name__
    yield
    BETWEEN.clear()
    caches["default"].clear()


@pytest.mark.parametrize(
    ("name", "status"),
    [("delete", 404), ("cycle_id", 404), ("touch", 404), ("reload", 404), ("say", 409)],
)
def test_it_does_nothing_to_what_is_anothers_by_now(way: str, name: str, status: int) -> None:
    person = Person()
    person.say("http", "before")
    thief, id = person.twin(), person.id

    def claim() -> None:
        person.log_in("olga")
        assert person.say("http", "after").said == ["before", "after"]

    BETWEEN.append(claim)
    assert thief._get(f"/{way}/use/{name}").status == status
    assert person.look("http").said == ["before", "after"]
    assert (person.id, conversations.get(id).owner) == (id, "1")
    assert thief.look("http").said == []
