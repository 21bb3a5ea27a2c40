"""What ownership costs: calls of the store, queries, session reads, commands of Redis."""

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import channel_layers
from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import caches
from django.http import HttpRequest
from django.test import AsyncClient, Client
from django.urls import path

from django_convstate import ConversationStore
from tests.support import people, urls
from tests.support.backends import CountingBackend
from tests.support.people import TRANSPORTS, Person, use_people
from tests.support.places import make_place, on
from tests.support.servers import Server
from tests.support.tabs import IN_MEMORY

BY_TOKEN = [name for name in TRANSPORTS if "list" not in name and "url" not in name]
urlpatterns = [
    *people.urlpatterns,
    *(path("sync/ignore", urls.ignore), path("async/ignore", urls.aignore)),
]


class CountingSession(SessionStore):
    """Counts its reads."""

    reads = 0

    def load(self) -> Any:
        type(self).reads += 1
        return super().load()

    async def aload(self) -> Any:
        type(self).reads += 1
        return await super().aload()


@pytest.fixture(autouse=True)
def _people(settings: Any, calls: Any) -> Iterator[None]:
    use_people(settings)
    settings.ROOT_URLCONF = __name__
    settings.CHANNEL_LAYERS = IN_MEMORY
    settings.CONVERSATION_STATE = {"HEADER_NAME": people.HEADER}
    yield
    channel_layers.backends = {}
    caches["default"].clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the conversations that are loaded."""
    ids: list[str] = []
    load, aload = CountingBackend.load, CountingBackend.aload

    def noting_load(self: Any, id: str, *args: Any) -> Any:
        ids.append(id)
        return load(self, id, *args)

    async def noting_aload(self: Any, id: str, *args: Any) -> Any:
        ids.append(id)
        return await aload(self, id, *args)

    monkeypatch.setattr(CountingBackend, "load", noting_load)
    monkeypatch.setattr(CountingBackend, "aload", noting_aload)
    return ids


@pytest.mark.parametrize("transport", BY_TOKEN)
@pytest.mark.parametrize("name", [None, "mallory"])
def test_a_token_with_anothers_digest_makes_no_call(
    calls: Any, asked: list[str], transport: str, name: str | None
) -> None:
    olga, other = Person("olga"), Person(name)
    olga.say("http", "secret")
    assert olga.look("http").said == ["secret"]
    assert asked == [olga.id]
    other.token = olga.token
    calls.clear()
    asked.clear()
    assert not other.look(transport).said
    if transport.startswith("websocket"):  # one that asks for the new one that it gets instead
        assert calls.keys() <= {"load", "aload"}
        assert olga.id not in asked
    else:
        assert not calls


class TestWhatIsNotTouched:
    @pytest.fixture(autouse=True)
    def _counting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # In the place of the store that the middleware of sessions makes for each request.
        monkeypatch.setattr("django.contrib.sessions.backends.cache.SessionStore", CountingSession)

    def ask(self, way: str, view: str, person: Person) -> HttpRequest:
        client: Any = Client() if way == "sync" else AsyncClient()
        for name, cookie in person.cookies.items():
            client.cookies[name] = cookie.value
        CountingSession.reads = 0
        get = client.get if way == "sync" else async_to_sync(client.get)
        response = get(f"/{way}/{view}")
        request: HttpRequest = response.wsgi_request if way == "sync" else response.asgi_request
        return request

    def test_a_request_that_does_not_touch_it_reads_no_session(self, way: str, calls: Any) -> None:
        olga = Person("olga")
        olga.say("http", "hello")
        calls.clear()
        request = self.ask(way, "ignore", olga)
        assert (request.session.accessed, CountingSession.reads) == (False, 0)
        assert not calls
        assert self.ask(way, "chat", olga).session.accessed
        assert CountingSession.reads == 1

    def test_without_a_session_cookie_nothing_is_read(self, way: str, calls: Any) -> None:
        anonymous = Person()
        anonymous.say("http", "hello")
        self.ask(way, "chat", anonymous)
        assert CountingSession.reads == 0
        assert "sessionid" not in anonymous.cookies


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("backend", ["db", "cache"])
def test_a_request_that_does_not_touch_it_makes_no_query(
    way: str, settings: Any, backend: str, django_assert_num_queries: Any
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{backend}"
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    client = Client()
    client.force_login(User.objects.create_user("olga"))
    client.get("/sync/chat", {"say": "hello"})
    aclient = AsyncClient()
    aclient.cookies = client.cookies
    get: Any = client.get if way == "sync" else async_to_sync(aclient.get)
    with django_assert_num_queries(0):
        get(f"/{way}/ignore")
    if way == "sync":
        with django_assert_num_queries(2 if backend == "db" else 1):  # of the session, the user
            assert get("/sync/chat").json()["said"] == ["hello"]
        with django_assert_num_queries(0):
            assert Client().get("/sync/chat").json()["said"] == []


class TestClaim:
    """As long as it may be: the owner is set in place."""

    LONG = 200_000

    @staticmethod
    def conversation_of(store: ConversationStore, count: int) -> str:
        conversation = store.create()
        conversation["topic"] = "long"
        for first in range(0, count, 5000):
            items = [{"n": number} for number in range(first, min(count, first + 5000))]
            conversation.messages.extend(items)
            conversation.save()
        return conversation.id

    def test_on_redis_it_takes_the_same_commands_whatever_the_length(
        self, settings: Any, server: Server
    ) -> None:
        store = ConversationStore(on(settings, f"redis://127.0.0.1:{server.port}/0"))
        taken = []
        for count in (20, 20, self.LONG):  # at first it sends its scripts
            id = self.conversation_of(store, count)
            conversation = store.get(id)
            with server.client() as client:
                client.config_resetstat()
                conversation.claim("1")
                stats = client.info("commandstats")
            del stats["cmdstat_config|resetstat"]
            taken.append({name: stat["calls"] for name, stat in stats.items()})
            assert [summary.id for summary in store.list(owner="1")].count(id) == 1
            assert (store.get(id).owner, len(store.get(id).messages)) == ("1", count)
        assert taken[1] == taken[2]
        store.backend.close()

    @pytest.mark.parametrize("place", ["locmem", "default"], indirect=True)
    def test_elsewhere_its_messages_are_not_read(self, place: str) -> None:
        backend = make_place(place)
        store = ConversationStore(backend)
        id = self.conversation_of(store, 2000)
        conversation = store.get(id)
        conversation.claim("1")
        assert conversation.id == id
        assert (store.get(id).owner, len(store.get(id).messages)) == ("1", 2000)
        if backend.can_scan:
            assert [summary.id for summary in store.list(owner="1")] == [id]
        store.delete(id)
