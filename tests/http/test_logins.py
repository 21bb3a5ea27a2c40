"""What becomes of a conversation when its visitor logs in or out, over whatever they come by."""

import threading
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import channel_layers
from django.contrib.auth import (
    alogin,
    alogout,
    aupdate_session_auth_hash,
    login,
    logout,
    update_session_auth_hash,
)
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import Signer
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response

from django_convstate import (
    InvalidConversationValue,
    aclaim_conversation,
    claim_conversation,
    conversations,
)
from django_convstate.http.login import end_login, note_login
from django_convstate.tokens import sign_id
from tests.support import people
from tests.support.outage import PlaceWithOutage
from tests.support.people import TRANSPORTS, Person, Users, talked, use_people
from tests.support.servers import Server
from tests.support.tabs import IN_MEMORY

TRANSPORT_OF = {"sync": "http", "async": "async"}
GIVEN = ("websocket subprotocol", "websocket message")  # by the client, which gets no other
BY_TOKEN = [name for name in TRANSPORTS if "list" not in name and "url" not in name]


@pytest.fixture(autouse=True)
def _people(settings: Any) -> Iterator[None]:
    use_people(settings)
    settings.ROOT_URLCONF = __name__
    settings.CHANNEL_LAYERS = IN_MEMORY
    settings.CONVERSATION_STATE = {"HEADER_NAME": people.HEADER}
    yield
    conversations.purge(everything=True)
    channel_layers.backends = {}
    caches["default"].clear()


def stored(id: str) -> list[Any]:
    return [message["content"] for message in conversations.get(id).messages.all()]


def anonymous(said: str = "before") -> Person:
    person = Person()
    person.say("http", said)
    return person


# Views that log in or out in the midst of a conversation.


def logs_in(request: Any, first: str) -> HttpResponse:
    if first == "assigned":
        request.conversation = conversations.create()
    if first in ("loaded", "unsaved", "assigned"):
        _ = len(request.conversation.messages)
    if first in ("unsaved", "assigned"):
        request.conversation.messages.append("user", "in the request")
    login(request, Users.named("olga"))
    request.conversation.messages.append("user", "after")
    return HttpResponse()


async def alogs_in(request: Any, first: str) -> HttpResponse:
    if first == "assigned":
        request.conversation = conversations.create()
    if first in ("loaded", "unsaved", "assigned"):
        await request.aconversation()
    if first in ("unsaved", "assigned"):
        request.conversation.messages.append("user", "in the request")
    await alogin(request, Users.named("olga"))
    (await request.aconversation()).messages.append("user", "after")
    return HttpResponse()


def logs_in_both(request: Any, first: str) -> HttpResponse:
    if first == "loaded":
        _ = len(request.conversation.messages)
    login(request, Users.named("olga"))
    request.conversation.messages.append("user", "of olga")
    login(request, Users.named("mallory"))
    request.conversation.messages.append("user", "of mallory")
    return HttpResponse()


async def alogs_in_both(request: Any, first: str) -> HttpResponse:
    if first == "loaded":
        await request.aconversation()
    await alogin(request, Users.named("olga"))
    (await request.aconversation()).messages.append("user", "of olga")
    await alogin(request, Users.named("mallory"))
    (await request.aconversation()).messages.append("user", "of mallory")
    return HttpResponse()


def leaves(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", "goodbye")
    logout(request)
    request.conversation.messages.append("user", "anew")
    return HttpResponse()


async def aleaves(request: Any) -> HttpResponse:
    (await request.aconversation()).messages.append("user", "goodbye")
    await alogout(request)
    (await request.aconversation()).messages.append("user", "anew")
    return HttpResponse()


def leaves_in_stream(request: Any) -> StreamingHttpResponse:
    leaves(request)
    return StreamingHttpResponse(iter(["bye"]), content_type="text/event-stream")


async def aleaves_in_stream(request: Any) -> StreamingHttpResponse:
    await aleaves(request)

    async def events() -> Any:
        yield "bye"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


@api_view(["GET"])  # type: ignore[untyped-decorator]
def leaves_by_rest_framework(request: Any) -> Response:
    leaves(request)
    return Response("bye")


def changes_password(request: Any) -> HttpResponse:
    user = request.user
    user.password = "another"
    update_session_auth_hash(request, user)
    return HttpResponse()


async def achanges_password(request: Any) -> HttpResponse:
    user = request.user = await request.auser()
    user.password = "another"
    await aupdate_session_auth_hash(request, user)
    return HttpResponse()


def turn(request: Any) -> HttpResponse:
    with request.conversation.turn():
        return JsonResponse(talked(request, request.conversation))


async def aturn(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    async with conversation.aturn():
        return JsonResponse(talked(request, conversation))


def announces_login(request: Any) -> HttpResponse:
    """As django-rest-knox does: it sends the signal, and makes no session."""
    if "token" in request.GET:
        request.user = Users.named("olga")
    if "no_session" in request.GET:
        del request.session
    user_logged_in.send(sender=User, request=request, user=Users.named("olga"))
    return HttpResponse()


def by_api_token(request: Any) -> HttpResponse:
    claim_conversation(request, Users.named("olga"))
    return HttpResponse(str(talked(request, request.conversation)))


async def aby_api_token(request: Any) -> HttpResponse:
    await aclaim_conversation(request, Users.named("olga"))
    return HttpResponse(str(talked(request, await request.aconversation())))


urlpatterns = [
    *people.urlpatterns,
    *(path("sync/logs_in/<first>", logs_in), path("async/logs_in/<first>", alogs_in)),
    path("sync/logs_in_both/<first>", logs_in_both),
    path("async/logs_in_both/<first>", alogs_in_both),
    *(path("sync/leaves", leaves), path("async/leaves", aleaves)),
    *(path("sync/stream_leaves", leaves_in_stream), path("async/stream_leaves", aleaves_in_stream)),
    path("sync/rest_leaves", leaves_by_rest_framework),
    *(path("sync/password", changes_password), path("async/password", achanges_password)),
    path("announces_login", announces_login),
    *(path("sync/turn", turn), path("async/turn", aturn)),
    *(path("sync/by_api_token", by_api_token), path("async/by_api_token", aby_api_token)),
]


ORDERS = [
    order
    for order in permutations(("log in 0", "log in 1", "look 0", "look 1"))
    if all(order.index(f"log in {n}") < order.index(f"look {n}") for n in (0, 1))
]


class TestLogin:
    @pytest.mark.parametrize("transport", BY_TOKEN)
    def test_the_next_load_claims_what_was_said_before(self, transport: str, way: str) -> None:
        person = anonymous()
        id, thief = person.id, person.twin()
        person.log_in("olga", way)
        assert conversations.get(id).owner is None
        assert person.look(transport).said == ["before"]
        assert conversations.get(id).owner == "1"
        assert person.id == id
        assert person.say(transport, "after").said == ["before", "after"]
        for other in (thief, Person("mallory")):
            other.token = thief.token
            assert not other.look(transport).said

    @pytest.mark.parametrize("transport", BY_TOKEN)
    def test_or_begins_anew(self, transport: str, way: str, settings: Any) -> None:
        settings.CONVERSATION_STATE |= {"ON_LOGIN": "fresh"}
        person = anonymous()
        id = person.id
        person.log_in("olga", way)
        assert not person.look(transport).said
        person.say("http", "after")
        assert (person.id != id, conversations.get(person.id).owner) == (True, "1")
        assert (stored(id), conversations.get(id).owner) == (["before"], None)

    def test_who_logs_in_again_keeps_their_own(self, way: str, settings: Any) -> None:
        settings.CONVERSATION_STATE |= {"ON_LOGIN": "fresh"}
        person = Person("olga")
        person.say("http", "mine")
        id = person.id
        for _ in range(2):
            person.log_in("olga", way)
            assert person.look("http").said == ["mine"]
        person.log_out(way)
        assert person.look("http").said == []
        assert (person.id != id, stored(id)) == (True, ["mine"])

    @pytest.mark.parametrize("query", ["", "?token", "?token&no_session"])
    def test_a_login_without_a_session_makes_none(self, query: str) -> None:
        person = anonymous()
        assert person._get(f"/announces_login{query}").status == 200
        assert "sessionid" not in person.cookies
        assert person.look("http").said == ["before"]
        assert conversations.get(person.id).owner is None

    @pytest.mark.parametrize("query", ["", "?token"])
    def test_nor_where_there_is_no_middleware_for_sessions(self, query: str, settings: Any) -> None:
        settings.MIDDLEWARE = ["django_convstate.middleware.ConversationMiddleware"]
        seen = Person()._get(f"/announces_login{query}")
        assert (seen.status, list(seen.cookies)) == (200, [])

    def test_without_a_conversation_nothing_is_stored(self, way: str) -> None:
        person = Person()
        person.log_in("olga", way)
        assert person.look("http").said == []
        assert list(conversations.list()) == []
        person.say("http", "hello")
        assert conversations.get(person.id).owner == "1"

    def test_a_test_client_logs_in_without_a_request_of_ours(self) -> None:
        client = Client()
        client.get("/sync/chat", {"say": "before"})
        client.force_login(Users.named("olga"))
        assert client.get("/sync/chat").json()["said"] == []
        client.get("/sync/chat", {"say": "after"})
        assert [summary.owner for summary in conversations.list(owner="1")] == ["1"]

    def test_it_works_without_our_middleware(self, rf: RequestFactory) -> None:
        request = rf.get("/")
        request.session = SessionStore()
        login(request, Users.named("olga"))
        logout(request)

    @pytest.mark.parametrize("first", ["nothing", "loaded", "unsaved", "assigned"])
    def test_in_the_midst_of_a_conversation(self, first: str, way: str) -> None:
        person = anonymous()
        id = person.id
        person._get(f"/{way}/logs_in/{first}")
        said = {
            "nothing": ["before", "after"],
            "loaded": ["before", "after"],
            "unsaved": ["before", "in the request", "after"],
            "assigned": ["in the request", "after"],
        }[first]
        assert person.look("http").said == said
        assert conversations.get(person.id).owner == "1"
        assert (person.id == id) == (first != "assigned")

    @pytest.mark.parametrize("first", ["nothing", "loaded", "unsaved", "assigned"])
    def test_in_the_midst_of_a_new_one(self, first: str, way: str) -> None:
        person = Person()
        person._get(f"/{way}/logs_in/{first}")
        said = person.look("http").said
        assert said is not None
        assert said[-1] == "after"
        assert [summary.owner for summary in conversations.list()] == ["1"]

    @pytest.mark.parametrize("first", ["nothing", "loaded"])
    def test_as_one_and_then_as_another_in_one_request(self, way: str, first: str) -> None:
        person = anonymous()
        id = person.id
        person._get(f"/{way}/logs_in_both/{first}")
        assert person.look("http").said == ["of mallory"]
        assert conversations.get(person.id).owner == "2"
        assert (stored(id), conversations.get(id).owner) == (["before", "of olga"], "1")

    @pytest.mark.parametrize("first", ["nothing", "loaded"])
    def test_as_both_with_nothing_before(self, way: str, first: str) -> None:
        person = Person()
        person._get(f"/{way}/logs_in_both/{first}")
        assert person.look("http").said == ["of mallory"]
        (of_olga,) = conversations.list(owner="1")
        assert stored(of_olga.id) == ["of olga"]

    @pytest.mark.parametrize("order", ORDERS, ids=", ".join)
    @pytest.mark.parametrize("second", ["olga", "mallory"])
    def test_twice_in_any_order(self, order: tuple[str, ...], second: str) -> None:
        person = anonymous()
        both, names = [person, person.twin()], ["olga", second]
        for step in order:
            what, number = step.rsplit(" ", 1)
            each = both[int(number)]
            seen = each.log_in(names[int(number)]) if what == "log in" else each.look("http")
            assert seen.status == 200
        shown = [each.look("http").said for each in both]
        if second == "olga":
            assert shown == [["before"]] * 2
        else:
            first = 0 if order.index("look 0") < order.index("look 1") else 1
            assert (shown[first], shown[1 - first]) == (["before"], [])

    def test_twice_at_the_same_time(self, way: str) -> None:
        for _ in range(10):
            person = anonymous()
            both, barrier = [person, person.twin()], threading.Barrier(2)
            statuses: list[int | None] = []

            def go(each: Person, barrier: threading.Barrier, statuses: list[Any]) -> None:
                barrier.wait(30)
                statuses += [each.log_in("olga", way).status, each.say("http", "hi").status]

            threads = [threading.Thread(target=go, args=(p, barrier, statuses)) for p in both]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert statuses == [200] * 4
            assert stored(person.id) == ["before", "hi", "hi"]
            assert both[0].id == both[1].id


class TestLoginInAnOutage:
    @pytest.fixture(params=[True, False], ids=["known here", "not known here"])
    def place(
        self, request: pytest.FixtureRequest, settings: Any, stoppable: Server
    ) -> Iterator[PlaceWithOutage]:
        place = PlaceWithOutage(settings, stoppable, is_known=request.param)
        yield place
        place.clear()

    def test_the_claim_is_in_the_store_afterwards(self, place: PlaceWithOutage, way: str) -> None:
        person = anonymous()
        id, thief = person.id, person.twin()
        place.begin_outage()
        assert person.log_in("olga", way).status == 200
        said = person.say(TRANSPORT_OF[way], "in the outage").said
        assert said is not None
        assert said[-1] == "in the outage"
        assert "in the outage" not in thief.look("http").everything
        place.end_outage()
        assert person.look("http").said == ["before", "in the outage"]
        assert (person.id, conversations.get(id).owner) == (id, "1")
        assert thief.look("http").said == []

    def test_so_it_is_if_nothing_was_said(self, place: PlaceWithOutage, way: str) -> None:
        person = anonymous()
        id = person.id
        place.begin_outage()
        person.log_in("olga", way)
        assert person.look(TRANSPORT_OF[way]).status == 200
        place.end_outage()
        assert person.look(TRANSPORT_OF[way]).said == ["before"]
        assert conversations.get(id).owner == "1"

    def test_what_was_said_there_before_the_login_goes_along(
        self, place: PlaceWithOutage, way: str
    ) -> None:
        person = anonymous()
        place.begin_outage()
        person.say("http", "not logged in")
        person.log_in("olga", way)
        person.say(TRANSPORT_OF[way], "logged in")
        place.end_outage()
        assert person.look("http").said == ["before", "not logged in", "logged in"]
        assert conversations.get(person.id).owner == "1"

    def test_what_is_known_from_before_the_claim_is_not_shown_and_the_cookie_stays(
        self, place: PlaceWithOutage, way: str
    ) -> None:
        person = anonymous()
        id, stranger = person.id, person.twin()
        place.claim_elsewhere(id, "1")
        person.token = token = sign_id(id, "1")
        session = Person("olga")
        person.cookies["sessionid"] = session.cookies["sessionid"].value
        place.begin_outage()
        stranger.say("http", "by a stranger")
        seen = person.say(TRANSPORT_OF[way], "hello")
        assert (seen.status, "stranger" in seen.everything, person.token) == (503, False, token)
        place.end_outage()
        assert person.look("http").said == ["before"]
        assert stranger.look("http").said == []

    @pytest.mark.parametrize("place", [False], indirect=True, ids=["not known here"])
    @pytest.mark.parametrize("view", ["chat", "turn"])
    def test_the_owner_of_what_is_not_known_here_goes_on(
        self, place: PlaceWithOutage, way: str, view: str
    ) -> None:
        person = Person("olga")
        person.say("http", "before")
        id, token = person.id, person.token
        place.begin_outage()
        for text in ("one", "two"):
            assert person._get(f"/{way}/{view}", text).status == 200
        assert conversations.get(id, owner="1").degraded
        place.end_outage()
        assert person.look("http").said == ["before", "one", "two"]
        assert (person.token, conversations.get(id).owner) == (token, "1")

    def test_with_a_token_from_before_the_login_it_is_503(
        self, place: PlaceWithOutage, way: str
    ) -> None:
        """Which a login elsewhere may have claimed, of them or of another."""
        person, session = anonymous(), Person("olga")
        person.cookies["sessionid"] = session.cookies["sessionid"].value
        id, token = person.id, person.token
        place.begin_outage()
        for seen in (person.look(TRANSPORT_OF[way]), person.say(TRANSPORT_OF[way], "hello")):
            assert (seen.status, person.token) == (503, token)
        place.end_outage()
        assert person.look("http").said == []
        assert stored(id) == ["before"]

    def test_a_logout_begins_a_new_one(self, place: PlaceWithOutage, way: str) -> None:
        person = Person("olga")
        person.say("http", "before")
        id = person.id
        place.begin_outage()
        assert person.log_out(way).status == 200
        assert person.say(TRANSPORT_OF[way], "after").said == ["after"]
        place.end_outage()
        assert person.look("http").said == ["after"]
        assert stored(id) == ["before"]
        assert (conversations.get(id).owner, conversations.get(person.id).owner) == ("1", None)

    def test_it_may_be_at_its_end(self, place: PlaceWithOutage, way: str) -> None:
        """The note waits in the session."""
        person = anonymous()
        place.begin_outage()
        person.log_in("olga", way)
        place.end_outage()
        assert person.look("http").said == ["before"]
        assert conversations.get(person.id).owner == "1"


@pytest.mark.parametrize("is_known", [True, False])
def test_where_sessions_are_unavailable_too_django_ends_them(
    way: str, settings: Any, stoppable: Server, is_known: bool
) -> None:
    place = PlaceWithOutage(settings, stoppable, is_known=is_known)
    settings.SESSION_CACHE_ALIAS = settings.CONVERSATION_STATE["CACHE_ALIAS"]
    person = Person("olga")
    person.say("http", "before")
    id, token, transport = person.id, person.token, TRANSPORT_OF[way]
    place.begin_outage()
    seen = person.look(transport)
    assert (seen.status, seen.said, person.token) == (200, [], token)
    assert person.cookies["sessionid"].value == "", "by Django"
    assert person.say(transport, "in the outage").said == ["in the outage"]
    assert person.id != id
    place.end_outage()
    assert person.look("http").said == ["in the outage"]
    assert conversations.get(person.id).owner is None
    assert (stored(id), conversations.get(id).owner) == (["before"], "1")
    place.clear()


class TestLogout:
    @pytest.mark.parametrize("view", ["leaves", "stream_leaves", "rest_leaves"])
    @pytest.mark.parametrize("name", [None, "olga"])
    def test_what_was_said_before_is_kept_and_what_comes_after_is_not_theirs(
        self, way: str, view: str, name: str | None
    ) -> None:
        if (way, view) == ("async", "rest_leaves"):
            way = "sync"  # REST framework has no async views
        person = Person(name)
        person.say("http", "hello")
        id = person.id
        person._get(f"/{way}/{view}")
        assert stored(id) == ["hello", "goodbye"]
        assert conversations.get(id).owner == ("1" if name else None)
        assert person.look("http").said == ["anew"]
        assert conversations.get(person.id).owner is None

    def test_the_next_login_does_not_claim_it(self, way: str) -> None:
        person = Person("olga")
        person.say("http", "of olga")
        person.log_out(way)
        person.log_in("mallory", way)
        assert person.look("http").said == []

    def test_a_new_password_ends_the_other_browsers_only(self, way: str) -> None:
        here = Person("olga")
        here.say("http", "hello")
        elsewhere = here.twin()
        elsewhere.log_in("olga")
        here._get(f"/{way}/password")
        assert here.look("http").said == ["hello"]
        assert elsewhere.look("http").said == []


class TestRecipesOf01:
    """Of the README of 0.1, which projects may still have."""

    @staticmethod
    def on_login(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
        conversation = request.conversation
        if conversation.owner not in (None, str(user.pk)):
            request.conversation = conversations.create()
        elif conversation:
            conversation.cycle_id()
            conversation.claim(str(user.pk))

    @staticmethod
    def on_logout(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
        request.conversation = conversations.create()

    @pytest.fixture(params=["before ours", "after ours"])
    def _recipes(self, request: pytest.FixtureRequest) -> Iterator[None]:
        ours: Any = [
            (user_logged_in, note_login, "django_convstate.note_login"),
            (user_logged_out, end_login, "django_convstate.end_login"),
        ]
        is_before = request.param == "before ours"
        if is_before:
            assert all(signal.disconnect(dispatch_uid=uid) for signal, _, uid in ours)
        user_logged_in.connect(self.on_login)
        user_logged_out.connect(self.on_logout)
        for signal, receiver, uid in ours if is_before else ():
            signal.connect(receiver, dispatch_uid=uid)
        yield
        user_logged_in.disconnect(self.on_login)
        user_logged_out.disconnect(self.on_logout)

    @pytest.mark.usefixtures("_recipes")
    def test_they_are_harmless(self, way: str) -> None:
        person = anonymous()
        thief = person.twin()
        assert person.log_in("olga", way).status == 200
        assert person.say(TRANSPORT_OF[way], "after").said == ["before", "after"]
        mine = person.id
        assert conversations.get(mine).owner == "1"
        assert thief.look("http").said == []
        assert person.log_in("mallory", way).status == 200
        assert person.look("http").said == []
        person.log_in("olga", way)
        person.say("http", "again")
        mine = person.id  # the recipe may have given it a new one
        assert person.log_out(way).status == 200
        assert person.look("http").said == []
        assert stored(mine) == ["before", "after", "again"]


class TestClaimConversation:
    """For what logs in without Django's login()."""

    def test_it_claims_what_is_presented(self, way: str) -> None:
        person = anonymous()
        id, thief = person.id, person.twin()
        assert "before" in person._get(f"/{way}/by_api_token", "after").body
        assert (stored(id), conversations.get(id).owner) == (["before", "after"], "1")
        assert thief.look("http").said == []
        assert "after" in person._get(f"/{way}/by_api_token").body

    def test_or_begins_anew(self, way: str, settings: Any) -> None:
        settings.CONVERSATION_STATE |= {"ON_LOGIN": "fresh"}
        person = anonymous()
        assert "before" not in person._get(f"/{way}/by_api_token", "after").body
        assert conversations.get(person.id).owner == "1"

    def test_of_anothers_it_begins_anew(self, way: str) -> None:
        person = Person("mallory")
        person.say("http", "of mallory")
        id = person.id
        del person.cookies["sessionid"]
        assert "of mallory" not in person._get(f"/{way}/by_api_token", "of olga").body
        assert (stored(id), stored(person.id)) == (["of mallory"], ["of olga"])

    def test_for_nobody_it_is_refused(self, way: str, rf: RequestFactory) -> None:
        for user in (None, AnonymousUser()):
            with pytest.raises(InvalidConversationValue):
                _claim(way, rf.get("/"), user)

    def test_without_the_middleware_it_is_refused(self, way: str, rf: RequestFactory) -> None:
        with pytest.raises(ImproperlyConfigured, match="MIDDLEWARE"):
            _claim(way, rf.get("/"), Users.named("olga"))

    @pytest.mark.parametrize("is_known", [True, False])
    def test_in_an_outage(self, way: str, settings: Any, stoppable: Server, is_known: bool) -> None:
        place = PlaceWithOutage(settings, stoppable, is_known=is_known)
        person = anonymous()
        place.begin_outage()
        status = person._get(f"/{way}/by_api_token", "in the outage").status
        assert status in (200, 503)
        place.end_outage()
        said = ["before", "in the outage"] if status == 200 else ["before"]
        assert stored(person.id) == said
        assert conversations.get(person.id).owner == ("1" if status == 200 else None)
        place.clear()


def _claim(way: str, request: Any, user: Any) -> None:
    if way == "sync":
        claim_conversation(request, user)
    else:
        async_to_sync(aclaim_conversation)(request, user)


def of_header(request: Any) -> str | None:
    tenant: str | None = request.headers.get("X-Tenant")
    return tenant


async def aof_header(request: Any) -> str | None:
    return of_header(request)


class TestOwnerSetting:
    @pytest.mark.parametrize("name", ["of_header", "aof_header"])
    def test_a_callable_says_who_the_owner_is(self, way: str, settings: Any, name: str) -> None:
        settings.CONVERSATION_STATE |= {"OWNER": f"{__name__}.{name}"}
        ask = f"/{way}/chat"
        get: Any = Client().get if way == "sync" else async_to_sync(AsyncClient().get)
        get(ask, {"say": "of acme"}, headers={"X-Tenant": "acme"})
        (summary,) = conversations.list(owner="acme")
        assert get(ask, headers={"X-Tenant": "acme"}).json()["said"] == ["of acme"]
        assert get(ask, headers={"X-Tenant": "other"}).json()["said"] == []
        assert stored(summary.id) == ["of acme"]

    @pytest.mark.parametrize("name", ["of_header", "aof_header"])
    @pytest.mark.parametrize("transport", ["websocket", "websocket subprotocol"])
    def test_over_a_websocket(self, settings: Any, name: str, transport: str) -> None:
        settings.CONVERSATION_STATE |= {"OWNER": f"{__name__}.{name}"}
        conversation = conversations.create("acme")
        conversation.messages.append("user", "of acme")
        conversation.save()
        person = Person()
        person.token = conversation.token
        assert not person.look(transport).said, "the handshake has no tenant"

    def test_none_is_as_in_01(self, way: str, settings: Any) -> None:
        settings.CONVERSATION_STATE |= {"OWNER": None}
        person = anonymous()
        thief = person.twin()
        person.log_in("olga", way)
        for each in (person, thief, Person("mallory")):
            each.token = thief.token
            assert each.say(TRANSPORT_OF[way], "hi").status == 200
        assert stored(person.id) == ["before", "hi", "hi", "hi"]
        assert conversations.get(person.id).owner is None


class TestTokens:
    @pytest.mark.parametrize("transport", BY_TOKEN)
    def test_they_stay_valid_when_the_secret_is_rotated(
        self, settings: Any, transport: str
    ) -> None:
        olga, mallory = Person("olga"), Person("mallory")
        olga.say("http", "hello")
        mallory.token = token = olga.token
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another secret, made of other letters"
        for each in (olga, mallory):
            each.look("list")  # renews the session, for Channels does not look at the fallbacks
        assert olga.look(transport).said == ["hello"]
        assert not mallory.look(transport).said
        assert (olga.token != token) == (transport not in GIVEN), "it is signed anew"
        settings.SECRET_KEY_FALLBACKS = []
        assert (olga.look("http").said == ["hello"]) == (transport not in GIVEN)

    @pytest.mark.parametrize("transport", BY_TOKEN)
    def test_those_of_01_have_no_owner(self, transport: str) -> None:
        """They open what is nobody's for who is not logged in, and what is owned for nobody but its
        owner."""

        def token_of_01(owner: str | None) -> str:
            conversation = conversations.create(owner)
            conversation.messages.append("user", "of 0.1")
            conversation.save()
            return Signer(salt="django_convstate.token").sign(conversation.id)

        shown = []
        for owner in (None, "1"):
            for name in (None, "olga", "mallory"):
                person = Person(name)
                person.token = token_of_01(owner)
                shown.append(person.look(transport).said or [])
        assert shown == [["of 0.1"], [], [], [], ["of 0.1"], []]

    @pytest.mark.parametrize("is_reversed", [False, True])
    @pytest.mark.parametrize("name", [None, "olga", "mallory"])
    def test_of_two_cookies_that_of_ones_own_conversation_is_taken(
        self, way: str, is_reversed: bool, name: str | None
    ) -> None:
        mine, others = Person(name), Person("mallory" if name == "olga" else "olga")
        mine.say("http", "mine")
        others.say("http", "secret")
        tokens = [mine.token, others.token]
        if is_reversed:
            tokens.reverse()
        cookies = "; ".join(f"conversation={token}" for token in tokens)
        if "sessionid" in mine.cookies:
            cookies += f"; sessionid={mine.cookies['sessionid'].value}"
        get: Any = Client().get if way == "sync" else async_to_sync(AsyncClient().get)
        response = get(f"/{way}/chat", headers={"Cookie": cookies + "; a=1"})
        assert response.json()["said"] == ["mine"]
        assert response.cookies == {}
