"""A response that was made from a conversation is in no cache of pages, whatever the order."""

import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.http import HttpResponse
from django.middleware.cache import UpdateCacheMiddleware
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from django_convstate import Conversation, conversations
from django_convstate.middleware import ConversationMiddleware
from django_convstate.tokens import unsign_token
from tests.support.browsers import Browser, varies

SECRET = "my diagnosis"
OURS = "django_convstate.middleware.ConversationMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
BOTH = "django.middleware.cache.CacheMiddleware"
TOUCHER = f"{__name__}.touching"
runs: list[str] = []  # the paths of requests that a view has answered, and not a cache

cached = cache_page(60)


def touching(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware that uses the conversation: before the view if ours has attached it by then,
    else after it."""

    def respond(request: Any) -> Any:
        if hasattr(request, "conversation"):
            request.said = said(request.conversation)
        response = get_response(request)
        if hasattr(request, "conversation"):
            said(request.conversation)
        return response

    return respond


def touching_first(view: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(view)
    def respond(request: Any) -> Any:
        request.said = said(request.conversation)
        return view(request)

    return respond


def said(conversation: Conversation) -> str:
    return ", ".join(message["content"] for message in conversation.messages)


def say(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", SECRET)
    return HttpResponse("noted")


def show(request: Any) -> HttpResponse:
    return HttpResponse(f"You said: {said(request.conversation)}")


async def ashow(request: Any) -> HttpResponse:
    return HttpResponse(f"You said: {said(await request.aconversation())}")


def assign(request: Any) -> HttpResponse:
    token = request.COOKIES.get("conversation")
    id = unsign_token(token) if token else None
    request.conversation = conversations.get(id) if id else conversations.create()
    return show(request)


def show_what_the_middleware_knows(request: Any) -> HttpResponse:
    return HttpResponse(f"You said: {getattr(request, 'said', '')}")


async def ashow_what_the_middleware_knows(request: Any) -> HttpResponse:
    return show_what_the_middleware_knows(request)


def render(request: Any) -> HttpResponse:
    template = engines["django"].from_string("{{ said }}")
    return TemplateResponse(request, template, {"said": said(request.conversation)})


def render_late(request: Any) -> HttpResponse:
    template = "{% for message in request.conversation.messages %}{{ message.content }}{% endfor %}"
    return TemplateResponse(request, engines["django"].from_string(template), {"request": request})


@method_decorator(cached, name="dispatch")
class Show(View):
    def get(self, request: Any) -> HttpResponse:
        return show(request)


class AsyncShow(View):
    @method_decorator(cached)
    async def get(self, request: Any) -> HttpResponse:
        return await ashow(request)


class Rest(APIView):
    authentication_classes = ()
    renderer_classes = (JSONRenderer,)

    @method_decorator(cached)
    def get(self, request: Any) -> Response:
        return Response({"said": said(request.conversation)})


class RestWithDjangosResponse(Rest):
    @method_decorator(cached)
    def get(self, request: Any) -> HttpResponse:
        return show(request)


class Late(BaseRenderer):
    media_type = "text/plain"

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> bytes:
        return said(renderer_context["request"].conversation).encode()


class RestRenderedLate(Rest):
    renderer_classes = (Late,)

    @method_decorator(cached)
    def get(self, request: Any) -> Response:
        return Response({})


class Touching(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        request.said = said(request.conversation)
        return True


class RestAfterAPermission(Rest):
    permission_classes = (Touching,)

    @method_decorator(cached)
    def get(self, request: Any) -> Response:
        return Response({"said": request.said})


def ignore(request: Any) -> HttpResponse:
    runs.append(request.path)
    return HttpResponse("the same for all")


async def aignore(request: Any) -> HttpResponse:
    return ignore(request)


class RestIgnores(Rest):
    @method_decorator(cached)
    def get(self, request: Any) -> Response:
        runs.append(request.path)
        return Response("the same for all")


ROOM = "0123456789abcdef0123456789abcdef"
# By its id, and with an owner whom no session tells, so that nothing else makes it private.
BY_ID: dict[str, Any] = {
    "get": lambda: said(conversations.get(ROOM, owner="anna")),
    "open": lambda: said(conversations.open(ROOM, owner="anna")),
    "peek": lambda: said(conversations.peek(ROOM)),
    "list": lambda: [each.state["said"] for each in conversations.list("anna", keys=["said"])],
    "append": lambda: conversations.append(ROOM, "user", SECRET, owner="anna"),
}
ABY_ID: dict[str, Any] = {
    "get": lambda: conversations.aget(ROOM, owner="anna"),
    "open": lambda: conversations.aopen(ROOM, owner="anna"),
    "peek": lambda: conversations.apeek(ROOM),
    "list": lambda: alisted(),
    "append": lambda: conversations.aappend(ROOM, "user", SECRET, owner="anna"),
}


async def alisted() -> list[Any]:
    return [each.state["said"] async for each in conversations.alist("anna", keys=["said"])]


@cached
def by_id(request: Any, what: str) -> HttpResponse:
    runs.append(request.path)
    return HttpResponse(f"{SECRET} {BY_ID[what]()}")


@cached
async def aby_id(request: Any, what: str) -> HttpResponse:
    runs.append(request.path)
    return HttpResponse(f"{SECRET} {await ABY_ID[what]()}")


UNDER_CACHE_PAGE = {
    "function": cached(show),
    "async-function": cached(ashow),
    "assigned": cached(assign),
    "template": cached(render),
    "late-template": cached(render_late),
    "class": Show.as_view(),
    "async-class": AsyncShow.as_view(),
    "rest": Rest.as_view(),
    "rest-dispatch": cached(Rest.as_view()),
    "rest-djangos-response": RestWithDjangosResponse.as_view(),
    "rest-late": RestRenderedLate.as_view(),
    "rest-permission": RestAfterAPermission.as_view(),
    "decorated": touching_first(cached(show_what_the_middleware_knows)),
    "twice": cached(cached(show)),
}
AFTER_A_MIDDLEWARE = {
    "known": cached(show_what_the_middleware_knows),
    "async-known": cached(ashow_what_the_middleware_knows),
}
BARE = {
    "bare": show,
    "async-bare": ashow,
    "bare-late-template": render_late,
    "bare-known": show_what_the_middleware_knows,
}
IGNORING = {
    "ignore": ignore,
    "async-ignore": aignore,
    "cached-ignore": cached(ignore),
    "async-cached-ignore": cached(aignore),
    "rest-ignore": RestIgnores.as_view(),
}
VIEWS: dict[str, Any] = {"say": say, **UNDER_CACHE_PAGE, **AFTER_A_MIDDLEWARE, **BARE, **IGNORING}
urlpatterns = [
    path("sync/by-id/<what>", by_id),
    path("async/by-id/<what>", aby_id),
    *(path(f"{way}/{name}", view) for way in ("sync", "async") for name, view in VIEWS.items()),
]

ORDERS = [
    *itertools.permutations([OURS, UPDATE, FETCH]),
    *itertools.permutations([OURS, UPDATE, FETCH, TOUCHER]),
    *itertools.permutations([OURS, BOTH]),
    *itertools.permutations([OURS, BOTH, TOUCHER]),
]


def named(order: Any) -> str:
    return "-".join(path.rpartition(".")[2] for path in order)


@pytest.fixture(autouse=True)
def _site(settings: Any) -> Any:
    settings.ROOT_URLCONF = __name__
    runs.clear()
    yield
    cache.clear()


def visit(browser: Browser, view: str, method: str = "GET") -> str:
    """Return what the browser gets; with HEAD, what it gets by a GET after that."""
    if method == "HEAD":
        head = browser.client.head
        (head if browser.way == "sync" else async_to_sync(head))(f"/{browser.way}/{view}")
    content: bytes = browser.get(view).content
    return content.decode()


def check_that_nothing_leaks(way: str, view: str, method: str) -> None:
    anna, bert = Browser(way), Browser(way)
    anna.get("say")
    seen_by_anna = visit(anna, view, method)
    assert SECRET not in visit(bert, view, method)
    assert SECRET in seen_by_anna, "else this test tells nothing"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("view", UNDER_CACHE_PAGE)
def test_cache_page_stores_no_conversation(settings: Any, way: str, view: str, method: str) -> None:
    settings.MIDDLEWARE = [OURS]
    check_that_nothing_leaks(way, view, method)


@pytest.mark.parametrize("view", [*UNDER_CACHE_PAGE, *AFTER_A_MIDDLEWARE])
def test_cache_page_stores_nothing_after_a_middleware_has_used_the_conversation(
    settings: Any, way: str, view: str
) -> None:
    settings.MIDDLEWARE = [OURS, TOUCHER]
    check_that_nothing_leaks(way, view, "GET")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("order", ORDERS, ids=named)
def test_no_order_of_middleware_stores_a_conversation(
    settings: Any, way: str, order: tuple[str, ...], method: str
) -> None:
    settings.MIDDLEWARE = list(order)
    for view in BARE:
        if view != "bare-known" or TOUCHER in order[order.index(OURS) :]:
            check_that_nothing_leaks(way, view, method)


@pytest.mark.parametrize("what", BY_ID)
def test_what_is_made_from_one_by_its_id_is_for_nobody_else(
    settings: Any, way: str, what: str
) -> None:
    settings.MIDDLEWARE = [OURS]
    conversation = conversations.create("anna", id=ROOM)
    conversation["said"] = SECRET
    conversation.save()
    for visits in (1, 2):
        response = Browser(way).get(f"by-id/{what}")
        assert SECRET in response.content.decode()
        assert len(runs) == visits, "it comes from the cache"
        assert "private" in response.headers["Cache-Control"]
        assert "Cookie" in varies(response)


@pytest.mark.parametrize("view", IGNORING)
@pytest.mark.parametrize("order", [o for o in ORDERS if TOUCHER not in o], ids=named)
def test_what_has_nothing_to_do_with_conversations_is_cached(
    settings: Any, way: str, order: tuple[str, ...], view: str
) -> None:
    settings.MIDDLEWARE = list(order)
    anna, bert = Browser(way), Browser(way)
    anna.get("say")
    assert visit(anna, view) == visit(bert, view)
    assert len(runs) == 1, "the second is served from the cache"


def test_a_cache_goes_on_without_our_middleware(settings: Any, way: str) -> None:
    settings.MIDDLEWARE = []
    visit(Browser(way), "cached-ignore")
    visit(Browser(way), "cached-ignore")
    assert len(runs) == 1


def test_the_question_is_asked_once(settings: Any) -> None:
    """However many middleware are made, in however many handlers."""
    decide = UpdateCacheMiddleware._should_update_cache  # type: ignore[attr-defined]
    for _ in range(3):
        ConversationMiddleware(show)
    assert UpdateCacheMiddleware._should_update_cache is decide  # type: ignore[attr-defined]
