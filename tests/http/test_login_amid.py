"""A login in the midst of a request: while its conversation is being loaded, while the view holds
it, before our middleware, or one that makes no owner yet. And whose it is what a view begins."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth import alogin, login
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

from django_convstate import Conversation, conversations
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Record
from django_convstate.tokens import read_token
from tests.support import people
from tests.support.people import Person, Users, use_people
from tests.support.tabs import PATIENCE

TRANSPORT_OF = {"sync": "http", "async": "async"}
BETWEEN: list[Callable[[], object]] = []  # what happens in the midst of a view


class Waiting(LocMemBackend):
    """Holds as many loads as it is told to, after they have read, until they may go on."""

    name: ClassVar = "waiting"
    to_hold: ClassVar = threading.Semaphore(0)
    held: ClassVar = threading.Semaphore(0)
    go_on: ClassVar = threading.Event()

    @classmethod
    def hold(cls, count: int) -> None:
        cls.to_hold, cls.held = threading.Semaphore(count), threading.Semaphore(0)
        cls.go_on.clear()

    @classmethod
    def until_held(cls, count: int) -> None:
        for _ in range(count):
            assert cls.held.acquire(timeout=PATIENCE)

    @classmethod
    def wait(cls) -> None:
        cls.held.release()
        assert cls.go_on.wait(PATIENCE)

    def load(self, id: str, window: int, known: Record | None = None) -> Any:
        record = super().load(id, window)
        if self.to_hold.acquire(blocking=False):
            self.wait()
        return record

    async def aload(self, id: str, window: int, known: Record | None = None) -> Any:
        record = super().load(id, window)
        if self.to_hold.acquire(blocking=False):
            await asyncio.to_thread(self.wait)
        return record


def say(conversation: Conversation, text: str) -> None:
    conversation.messages.append("user", text)


# Views that log in while the conversation is being loaded, or load it twice at the same time.


def logs_in_amid_load(request: Any) -> HttpResponse:
    Waiting.hold(1)
    thread = threading.Thread(target=lambda: say(request.conversation, "by a thread"))
    thread.start()
    Waiting.until_held(1)
    login(request, Users.named("olga"))
    Waiting.go_on.set()
    thread.join()
    say(request.conversation, "after")
    return HttpResponse(request.conversation.owner)


async def alogs_in_amid_load(request: Any) -> HttpResponse:
    Waiting.hold(1)
    loading = asyncio.ensure_future(request.aconversation())
    await asyncio.to_thread(Waiting.until_held, 1)
    await alogin(request, Users.named("olga"))
    Waiting.go_on.set()
    conversation = await loading
    assert await request.aconversation() is conversation
    say(conversation, "by a task")
    say(await request.aconversation(), "after")
    return HttpResponse(conversation.owner)


def loads_twice(request: Any) -> HttpResponse:
    Waiting.hold(2)

    async def in_task() -> None:
        say(await request.aconversation(), "by a task")

    targets = [lambda: say(request.conversation, "by a thread"), lambda: asyncio.run(in_task())]
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    Waiting.until_held(2)
    Waiting.go_on.set()
    for thread in threads:
        thread.join()
    return HttpResponse(request.conversation.owner or "")


async def aloads_twice(request: Any) -> HttpResponse:
    return await asyncio.to_thread(loads_twice, request)


# Views that hold a conversation during a login.


def holds(request: Any, names: str) -> HttpResponse:
    conversation = request.conversation
    assert not conversation
    for name in names.split(","):
        login(request, Users.named(name))
    conversation.messages.append("user", "held")
    if "again" in request.GET:
        request.conversation.messages.append("user", "again")
    return HttpResponse()


async def aholds(request: Any, names: str) -> HttpResponse:
    conversation = await request.aconversation()
    assert not conversation
    for name in names.split(","):
        await alogin(request, Users.named(name))
    conversation.messages.append("user", "held")
    if "again" in request.GET:
        (await request.aconversation()).messages.append("user", "again")
    return HttpResponse()


def logs_in_and_waits(request: Any) -> HttpResponse:
    conversation = request.conversation
    assert len(conversation.messages) == 1
    login(request, Users.named("olga"))
    BETWEEN[-1]()
    say(conversation, "of olga")
    return HttpResponse()


async def alogs_in_and_waits(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    assert len(conversation.messages) == 1
    await alogin(request, Users.named("olga"))
    BETWEEN[-1]()
    say(conversation, "of olga")
    return HttpResponse()


# Views that begin another conversation.


def begins(request: Any, how: str) -> HttpResponse:
    if how == "created":
        request.conversation = conversations.create()
    elif how == "saved_deleted":
        say(request.conversation, "first")
        request.conversation.save()
    if how != "created":
        request.conversation.delete()
    say(request.conversation, "secret")
    return HttpResponse()


async def abegins(request: Any, how: str) -> HttpResponse:
    conversation = await request.aconversation()
    if how == "created":
        conversation = request.conversation = conversations.create()
    elif how == "saved_deleted":
        say(conversation, "first")
        await conversation.asave()
    if how != "created":
        await conversation.adelete()
    say(conversation, "secret")
    return HttpResponse()


def begins_in_stream(request: Any, when: str) -> StreamingHttpResponse:
    if when == "before":
        request.conversation = conversations.create()

    def parts() -> Iterator[str]:
        if when == "inside":
            request.conversation = conversations.create()
        say(request.conversation, "secret")
        yield "noted"

    return StreamingHttpResponse(parts())


async def abegins_in_stream(request: Any, when: str) -> StreamingHttpResponse:
    if when == "before":
        request.conversation = conversations.create()

    async def parts() -> AsyncIterator[str]:
        if when == "inside":
            request.conversation = conversations.create()
        say(request.conversation, "secret")
        yield "noted"

    return StreamingHttpResponse(parts())


def room(request: Any) -> HttpResponse:
    request.conversation = conversations.open("room")
    say(request.conversation, "for all")
    return HttpResponse()


async def aroom(request: Any) -> HttpResponse:
    request.conversation = await conversations.aopen("room")
    say(request.conversation, "for all")
    return HttpResponse()


urlpatterns = [
    *people.urlpatterns,
    *(path("sync/amid_load", logs_in_amid_load), path("async/amid_load", alogs_in_amid_load)),
    *(path("sync/twice", loads_twice), path("async/twice", aloads_twice)),
    *(path("sync/holds/<names>", holds), path("async/holds/<names>", aholds)),
    *(path("sync/waits", logs_in_and_waits), path("async/waits", alogs_in_and_waits)),
    *(path("sync/begins/<how>", begins), path("async/begins/<how>", abegins)),
    path("sync/begins_late/<when>", begins_in_stream),
    path("async/begins_late/<when>", abegins_in_stream),
    *(path("sync/room", room), path("async/room", aroom)),
]


@pytest.fixture(autouse=True)
def _people(settings: Any) -> Iterator[None]:
    use_people(settings)
    settings.ROOT_URLCONF = __name__
    yield
    BETWEEN.clear()
    conversations.purge(everything=True)
    caches["default"].clear()


def anonymous() -> Person:
    person = Person()
    person.say("http", "before")
    return person


def stored(id: str) -> list[Any]:
    return [message["content"] for message in conversations.get(id).messages.all()]


class TestWhileItIsLoaded:
    @pytest.fixture(autouse=True)
    def _waiting(self, settings: Any) -> Iterator[None]:
        settings.CONVERSATION_STATE_BACKEND = f"{__name__}.Waiting"
        yield
        Waiting.go_on.set()

    def test_a_login_has_it_loaded_for_who_logs_in(self, way: str) -> None:
        person = anonymous()
        id, thief = person.id, person.twin()
        assert person._get(f"/{way}/amid_load").body == "1"
        by = "by a thread" if way == "sync" else "by a task"
        assert (stored(id), conversations.get(id).owner) == (["before", by, "after"], "1")
        assert person.look("http").said == ["before", by, "after"]
        assert thief.look("http").said == []

    @pytest.mark.parametrize("name", [None, "olga"])
    def test_a_thread_and_a_task_get_one_object(self, way: str, name: str | None) -> None:
        person = Person(name)
        person.say("http", "before")
        assert person._get(f"/{way}/twice").body == ("1" if name else "")
        said = person.look("http").said
        assert said is not None
        assert (said[0], sorted(said[1:])) == ("before", ["by a task", "by a thread"])
        assert len(list(conversations.list())) == 1

    def test_which_a_login_has_noted(self, way: str) -> None:
        person = anonymous()
        person.log_in("olga", way)
        assert person._get(f"/{way}/twice").body == "1"
        assert len(stored(person.id)) == 3
        assert conversations.get(person.id).owner == "1"


class TestWhileTheViewHoldsIt:
    @pytest.mark.parametrize("name", [None, "olga"])
    @pytest.mark.parametrize("query", ["", "?again"])
    def test_what_is_said_in_an_empty_one_is_not_lost(
        self, way: str, name: str | None, query: str
    ) -> None:
        person = Person(name)
        person._get(f"/{way}/holds/olga{query}")
        assert person.look("http").said == (["held", "again"] if query else ["held"])
        assert [summary.owner for summary in conversations.list()] == ["1"]

    def test_nor_after_a_second_login(self, way: str) -> None:
        person = Person()
        person._get(f"/{way}/holds/olga,olga")
        assert person.look("http").said == ["held"]

    @pytest.mark.parametrize(("name", "names"), [("olga", "mallory"), (None, "olga,mallory")])
    def test_it_stays_with_who_was_the_visitor_first(
        self, way: str, name: str | None, names: str
    ) -> None:
        person = Person(name)
        person._get(f"/{way}/holds/{names}?again")
        assert person.look("http").said == ["again"]
        (of_olga,), (of_mallory,) = (conversations.list(owner=owner) for owner in ("1", "2"))
        assert (stored(of_olga.id), stored(of_mallory.id)) == (["held"], ["again"])

    def test_a_login_that_makes_no_owner_yet_leaves_the_check_on(
        self, way: str, settings: Any
    ) -> None:
        """For example because a second factor is missing."""
        settings.CONVERSATION_STATE = {"OWNER": f"{__name__}.with_second_factor"}
        person = anonymous()
        id = person.id
        BETWEEN.append(lambda: conversations.get(id).claim("mallory"))
        assert person._get(f"/{way}/waits").status == 409
        assert (stored(id), conversations.get(id).owner) == (["before"], "mallory")


def with_second_factor(request: Any) -> None:
    return None


@sync_and_async_middleware
def logging_in(get_response: Any) -> Any:
    """Logs in who is named in a header, as RemoteUserMiddleware does."""

    async def amiddleware(request: Any) -> Any:
        if (name := request.headers.get("X-Remote-User")) is not None:
            await alogin(request, Users.named(name))
        return await get_response(request)

    def middleware(request: Any) -> Any:
        if (name := request.headers.get("X-Remote-User")) is not None:
            login(request, Users.named(name))
        return get_response(request)

    return amiddleware if iscoroutinefunction(get_response) else middleware


class TestByAnotherMiddleware:
    @pytest.fixture(params=["before ours", "after ours"])
    def _middleware(self, request: pytest.FixtureRequest, settings: Any) -> None:
        *others, ours = settings.MIDDLEWARE
        mine = f"{__name__}.logging_in"
        last = [mine, ours] if request.param == "before ours" else [ours, mine]
        settings.MIDDLEWARE = [*others, *last]

    @pytest.mark.usefixtures("_middleware")
    @pytest.mark.parametrize("on_login", ["claim", "fresh"])
    def test_it_is_noted(self, way: str, settings: Any, on_login: str) -> None:
        settings.CONVERSATION_STATE = {"ON_LOGIN": on_login}
        person = anonymous()
        id, thief = person.id, person.twin()
        said = ["before", "after"] if on_login == "claim" else ["after"]
        response = get(person, f"/{way}/chat?say=after", {"X-Remote-User": "olga"})
        assert response.json()["said"] == said
        assert conversations.get(id).owner == ("1" if on_login == "claim" else None)
        assert thief.look("http").said == ([] if on_login == "claim" else ["before"])

    @pytest.mark.usefixtures("_middleware")
    def test_without_a_conversation_nothing_is(self, way: str) -> None:
        response = get(Person(), f"/{way}/chat?say=after", {"X-Remote-User": "olga"})
        assert response.json()["said"] == ["after"]
        assert [summary.owner for summary in conversations.list()] == ["1"]

    @pytest.mark.usefixtures("_middleware")
    def test_anothers_is_not_claimed(self, way: str) -> None:
        mallory = Person("mallory")
        mallory.say("http", "of mallory")
        planted = Person()
        planted.token = mallory.token
        response = get(planted, f"/{way}/chat?say=after", {"X-Remote-User": "olga"})
        assert response.json()["said"] == ["after"]
        assert mallory.look("http").said == ["of mallory"]


def get(person: Person, url: str, headers: dict[str, str]) -> Any:
    client: Any = AsyncClient() if url.startswith("/async") else Client()
    client.cookies = person.twin().cookies
    if isinstance(client, Client):
        return client.get(url, headers=headers)
    return asyncio.run(client.get(url, headers=headers))


class TestWhatTheViewBegins:
    @pytest.mark.parametrize("name", [None, "olga"])
    @pytest.mark.parametrize("how", ["deleted", "saved_deleted", "created"])
    def test_it_is_the_visitors(self, way: str, name: str | None, how: str) -> None:
        person = Person(name)
        person._get(f"/{way}/begins/{how}")
        self.check(person, name)

    @pytest.mark.parametrize("name", [None, "olga"])
    def test_so_it_is_after_one_of_before(self, way: str, name: str | None) -> None:
        person = Person(name)
        person.say("http", "before")
        person._get(f"/{way}/begins/deleted")
        self.check(person, name)

    @pytest.mark.parametrize("name", [None, "olga"])
    def test_so_it_is_if_it_is_filled_by_a_stream(self, way: str, name: str | None) -> None:
        person = Person(name)
        person._get(f"/{way}/begins_late/before")
        self.check(person, name)

    @pytest.mark.parametrize("name", [None, "olga"])
    def test_so_it_is_if_a_stream_begins_it(self, way: str, name: str | None) -> None:
        Person(name)._get(f"/{way}/begins_late/inside")
        assert [summary.owner for summary in conversations.list()] == ["1" if name else None]

    @staticmethod
    def check(person: Person, name: str | None) -> None:
        assert conversations.get(person.id).owner == ("1" if name else None)
        assert getattr(read_token(person.token), "is_owned", None) == (name is not None)
        thief = Person()
        thief.token = person.token
        assert thief.look("http").said == ([] if name else ["secret"])
        assert person.look("http").said == ["secret"]

    @pytest.mark.parametrize("is_there", [False, True])
    def test_what_is_opened_by_its_id_is_for_others_too(self, way: str, is_there: bool) -> None:
        if is_there:
            conversations.append("room", "user", "for all")
        for name in ("olga", "mallory", None):
            assert Person(name)._get(f"/{way}/room").status == 200
        assert stored("room") == ["for all"] * (4 if is_there else 3)
        assert conversations.get("room").owner is None


def of_conversation(request: Any) -> str | None:
    return "1" if request.conversation else None


async def aof_conversation(request: Any) -> str | None:
    return "1" if await request.aconversation() else None


class TestOwnerThatAsksForTheConversation:
    @pytest.mark.parametrize("name", ["of_conversation", "aof_conversation"])
    @pytest.mark.parametrize("presents", [False, True])
    def test_it_is_told_so(self, way: str, settings: Any, name: str, presents: bool) -> None:
        person = anonymous() if presents else Person()
        settings.CONVERSATION_STATE = {"OWNER": f"{__name__}.{name}"}
        errors: list[Exception] = []

        def visit() -> None:
            try:
                person.look(TRANSPORT_OF[way])
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=visit, daemon=True)  # it may wait for itself
        thread.start()
        thread.join(PATIENCE)
        assert [type(error) for error in errors] == [ImproperlyConfigured]
        assert "OWNER" in str(errors[0])
