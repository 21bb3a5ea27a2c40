"""Requests that meet a damaged conversation: their own begins anew, that of another costs them
nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_convstate import conversations
from tests.support import people
from tests.support.people import Person, talked, use_people
from tests.support.redis import key_of, raw

OTHER = "of-another"
TRANSPORT_OF = {"sync": "http", "async": "async"}


def shows_other(request: Any, uses: str) -> HttpResponse:
    if uses == "own":
        _ = len(request.conversation.messages)
    return JsonResponse(talked(request, conversations.get(OTHER)))


async def ashows_other(request: Any, uses: str) -> HttpResponse:
    if uses == "own":
        await request.aconversation()
    return JsonResponse(talked(request, await conversations.aget(OTHER)))


def reloads(request: Any) -> HttpResponse:
    conversation = request.conversation
    damage(conversation.id)
    conversation.reload()
    return HttpResponse()


async def areloads(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    damage(conversation.id)
    await conversation.areload()
    return HttpResponse()


urlpatterns = [
    *people.urlpatterns,
    *(path("sync/other/<uses>", shows_other), path("async/other/<uses>", ashows_other)),
    *(path("sync/reloads", reloads), path("async/reloads", areloads)),
]


def damage(id: str) -> None:
    """Have the server lose a part of a conversation."""
    assert raw().delete(key_of(id, "messages")) == 1


@pytest.fixture(autouse=True)
def _people(valkey: None, settings: Any) -> Iterator[None]:
    use_people(settings)
    settings.ROOT_URLCONF = __name__
    settings.CONVERSATION_STATE_BACKEND = "redis"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    yield
    conversations.purge(everything=True)
    conversations.backend.close()
    caches["default"].clear()


@pytest.mark.parametrize("name", [None, "olga"])
class TestDamage:
    @pytest.mark.parametrize("uses", ["own", "nothing"])
    def test_of_another_leaves_the_visitors_own(
        self, way: str, name: str | None, uses: str, errors: Callable[[], list[str]]
    ) -> None:
        person = Person(name)
        person.say("http", "mine")
        id, token = person.id, person.token
        conversations.append(OTHER, "user", "of another")
        damage(OTHER)
        seen = person._get(f"/{way}/other/{uses}")
        assert (seen.status, "conversation" in seen.cookies) == (400, False)
        assert person.look("http").said == ["mine"]
        assert (person.id, person.token) == (id, token)
        assert not any("gets a new one" in error for error in errors())

    def test_of_ones_own_begins_anew(self, way: str, name: str | None) -> None:
        person = Person(name)
        person.say("http", "before")
        id = person.id
        damage(id)
        assert person.say(TRANSPORT_OF[way], "after").said == ["after"]
        self.check(person, id, name)

    def test_amid_a_view_the_next_request_begins_anew(
        self, way: str, name: str | None, errors: Callable[[], list[str]]
    ) -> None:
        person = Person(name)
        person.say("http", "before")
        id = person.id
        assert person._get(f"/{way}/reloads").status == 400
        assert any("gets a new one" in error for error in errors())
        assert person.token == ""
        assert person.say(TRANSPORT_OF[way], "after").said == ["after"]
        self.check(person, id, name)

    @staticmethod
    def check(person: Person, former: str, name: str | None) -> None:
        assert person.id != former
        assert conversations.get(person.id).owner == ("1" if name else None)
        assert person.look("http").said == ["after"]
