"""What Django reports of an error in a view: on the page that it shows with DEBUG, and by mail."""

import html
import logging
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.core import mail
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.utils.log import AdminEmailHandler

from django_convstate import (
    BackendUnavailable,
    ConversationError,
    ConversationStore,
    conversations,
)
from django_convstate.http.request import RequestConversation
from django_convstate.tokens import sign_id
from tests.settings import PATIENT
from tests.support.reports import CANARY
from tests.support.servers import Server, free_ports, running

ID, TEXT, OWNER, PASSWORD = (f"{CANARY}-{what}" for what in ("id", "text", "owner", "password"))
TOKEN_SHOWN = "*" * 20

# The views' own locals hold no text, for those are shown.


def crash(request: Any) -> HttpResponse:
    conversation = request.conversation
    messages, first = conversation.messages, conversation.messages[0]
    everything = [conversation, messages, first, list(messages)]
    raise RuntimeError(f"the view's own trouble, with {everything} and {first}")


async def acrash(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    messages, first = conversation.messages, conversation.messages[0]
    everything = [conversation, messages, first, list(messages)]
    raise RuntimeError(f"the view's own trouble, with {everything} and {first}")


def conflict(request: Any) -> HttpResponse:
    request.conversation["note"] += "!"
    request.conversation.messages.append("user", request.conversation["note"])
    request.conversation.save(expected_version=99)
    return HttpResponse()


async def aconflict(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation["note"] += "!"
    conversation.messages.append("user", conversation["note"])
    await conversation.asave(expected_version=99)
    return HttpResponse()


def conflict_later(request: Any) -> HttpResponse:
    """The middleware's save fails."""
    request.conversation["note"] += "!"
    request.conversation["list"] = [1]
    request.conversation["list"].append({1})
    return HttpResponse()


async def aconflict_later(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation["note"] += "!"
    conversation["list"] = [1]
    conversation["list"].append({1})
    return HttpResponse()


def missing(request: Any) -> HttpResponse:
    conversations.get(request.conversation.id, owner="another")
    return HttpResponse()


async def amissing(request: Any) -> HttpResponse:
    await conversations.aget((await request.aconversation()).id, owner="another")
    return HttpResponse()


TEMPLATE = "{% for message in conversation.messages.all %}{{ message }}{% endfor %}"


def template(request: Any) -> HttpResponse:
    conversations.delete(request.conversation.id)
    template = Engine(debug=True).from_string(TEMPLATE)
    return HttpResponse(template.render(Context({"conversation": request.conversation})))


async def atemplate(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    await conversations.adelete(conversation.id)
    template = Engine(debug=True).from_string(TEMPLATE)
    return HttpResponse(template.render(Context({"conversation": conversation})))


def reported(view: Any) -> Any:
    """Have an error of ours become one of the project's own: most of ours are answered in plain
    text, and not reported."""

    @wraps(view)
    def wrapped(request: Any) -> Any:
        try:
            return view(request)
        except ConversationError as error:
            raise RuntimeError("the view's own trouble") from error

    @wraps(view)
    async def awrapped(request: Any) -> Any:
        try:
            return await view(request)
        except ConversationError as error:
            raise RuntimeError("the view's own trouble") from error

    return awrapped if iscoroutinefunction(view) else wrapped


VIEWS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "crash": (crash, acrash),
    "conflict": (conflict, aconflict),
    "conflict_later": (conflict_later, aconflict_later),
    "missing": (missing, amissing),
    "template": (template, atemplate),
}
urlpatterns = [
    path(f"{way}/{name}", reported(pair[way == "async"]))
    for name, pair in VIEWS.items()
    for way in ("sync", "async")
]


def greets(get_response: Any) -> Any:
    """A middleware of the project's own that looks at the conversation."""

    async def agreet(request: Any) -> Any:
        await request.aconversation()
        return await get_response(request)

    def greet(request: Any) -> Any:
        request.conversation.get("name")
        return get_response(request)

    return markcoroutinefunction(agreet) if iscoroutinefunction(get_response) else greet


greets.sync_capable = greets.async_capable = True  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _mails(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    address = "admin@example.com"
    settings.ADMINS = [address if django.VERSION >= (6, 0) else ("Admin", address)]
    if django.VERSION >= (6, 1):
        backend = "django.core.mail.backends.locmem.EmailBackend"
        settings.MAILERS = {"default": {"BACKEND": backend}}
    handler = AdminEmailHandler(include_html=True)
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.fixture(params=["cookie", "header"])
def token(request: pytest.FixtureRequest, settings: Any) -> Any:
    """What a client sends, in a cookie or a header whose name Django does not take for secret."""
    settings.CONVERSATION_STATE = {
        "COOKIE_NAME": "chat",
        "HEADER_NAME": "X-Chat" if request.param == "header" else None,
        "WINDOW": 2,
        "OWNER": None,  # so that the conversation may have one
    }
    store()
    return request.param


def store() -> None:
    conversations.delete(ID)
    conversation = conversations.create(id=ID, owner=OWNER)
    conversation["note"] = TEXT
    for _ in range(3):
        conversation.messages.append("user", TEXT)
    conversation.save()


def get(way: str, view: str, token: str, **headers: str) -> Any:
    client: Any = (Client if way == "sync" else AsyncClient)(raise_request_exception=False)
    if token == "header":
        headers["X-Chat"] = sign_id(ID)
    else:
        client.cookies["chat"] = sign_id(ID)
    call = client.get if way == "sync" else async_to_sync(client.get)
    return call(f"/{way}/{view}", headers=headers)


def mailed() -> list[str]:
    """Return each body of what was mailed: by Django's own handler and by ours, with HTML."""
    bodies = [str(message.body) for message in mail.outbox]
    alternatives = [getattr(message, "alternatives", []) for message in mail.outbox]
    pages = [str(page) for each in alternatives for page, _ in each]
    assert bodies
    assert pages
    return [*bodies, *map(html.unescape, pages)]


@pytest.mark.parametrize("view", VIEWS)
def test_a_mail_gives_nothing_away(view: str, token: str, way: str) -> None:
    response = get(way, view, token)
    for report in mailed():
        assert CANARY not in report
        assert TOKEN_SHOWN in report, "it shows that there was one"
    assert CANARY not in response.content.decode()


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
@pytest.mark.parametrize(
    "view", [view for view in VIEWS if view != "conflict_later"]
)  # which is answered plainly
def test_nor_does_the_page_of_debug(
    view: str, token: str, way: str, accept: str, settings: Any
) -> None:
    settings.DEBUG = True
    response = get(way, view, token, Accept=accept)
    report = html.unescape(response.content.decode())
    assert f"tests.http.test_reports.{'a' * (way == 'async')}{view}" in report
    assert TOKEN_SHOWN in report
    assert CANARY not in report


def test_nor_in_an_outage(token: str, way: str, settings: Any, tmp_path: Path) -> None:
    """A middleware that lets the error through, so that it becomes a report."""
    server = Server(tmp_path, free_ports(1)[0], password=PASSWORD)
    with running([server]):
        settings.CACHES = settings.CACHES | {
            (alias := f"own-{server.port}"): {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"redis://127.0.0.1:{server.port}/0",
                "OPTIONS": PATIENT | {"PASSWORD": PASSWORD},
            }
        }
        settings.CONVERSATION_STATE_BACKEND = "redis"
        settings.CONVERSATION_STATE = settings.CONVERSATION_STATE | {
            "CACHE_ALIAS": alias,
            "FALLBACK": None,
        }
        store()
        conversations.close()
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.greets"]
    response = get(way, "crash", token)
    assert response.status_code == 500
    for report in mailed():
        assert BackendUnavailable.__name__ in report
        assert CANARY not in report
    settings.DEBUG = True
    report = html.unescape(get(way, "crash", token, Accept="text/html").content.decode())
    assert BackendUnavailable.__name__ in report
    assert "redis" in report, "it shows where"
    assert CANARY not in report


class TestRequest:
    """What a report shows as stars is to everybody else what it was."""

    def attached(self, **more: Any) -> HttpRequest:
        request = RequestFactory().get("/", **more)
        RequestConversation(request, ConversationStore(cookie_name="chat", header_name="X-Chat"))
        return request

    def test_cookie_and_header_are_what_they_were(self) -> None:
        request = self.attached(HTTP_COOKIE="chat=a:b; other=c", HTTP_X_CHAT="a:b")
        assert request.COOKIES == {"chat": "a:b", "other": "c"}
        assert request.META["HTTP_X_CHAT"] == request.headers["x-chat"] == "a:b"
        assert request.META["HTTP_COOKIE"] == "chat=a:b; other=c"
        assert "a:b" not in repr(request.COOKIES) + repr(request.META)
        assert repr(request.COOKIES["other"]) == "'c'", "which is not ours"

    def test_a_request_without_a_token_is_left_alone(self) -> None:
        request = self.attached(HTTP_COOKIE="other=c")
        assert repr(request.COOKIES) == "{'other': 'c'}"
        assert repr(request.META["HTTP_COOKIE"]) == "'other=c'"
        assert "HTTP_X_CHAT" not in request.META
