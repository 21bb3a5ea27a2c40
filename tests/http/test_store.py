"""A store of each tenant: the hook by which the middleware chooses it."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import alogout, logout
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from rest_framework.request import Request

from django_convstate import ConversationCorrupt, ConversationStore, conversations
from django_convstate.middleware import ConversationMiddleware

STORES = {name: ConversationStore("locmem", key_prefix=name) for name in ("acme", "zenith")}


class TenantMiddleware(ConversationMiddleware):
    def get_store(self, request: HttpRequest) -> ConversationStore:
        return STORES[request.headers["Tenant"]]


def visit(way: str, view: Any, token: str | None = None, tenant: str = "acme") -> HttpResponse:
    factory = RequestFactory() if way == "sync" else AsyncRequestFactory()
    request: Any = factory.get("/", headers={"tenant": tenant})
    request.session = SessionStore()
    if token is not None:
        request.COOKIES["conversation"] = token
    response: Any
    if way == "sync":
        response = TenantMiddleware(view)(request)
        return response  # type: ignore[no-any-return]

    async def aview(request: Any) -> HttpResponse:
        request.conversation = await request.aconversation()
        return await view(request, is_async=True) if view is leave else view(request)  # type: ignore[no-any-return]

    middleware: Any = TenantMiddleware(aview)
    response = async_to_sync(middleware)(request)
    return response  # type: ignore[no-any-return]


def say(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", "hello")
    return HttpResponse(request.conversation.id)


def count(request: Any) -> HttpResponse:
    return HttpResponse(str(len(request.conversation.messages)))


def leave(request: Any, is_async: bool = False) -> Any:
    if is_async:
        return aleave(request)
    logout(request)
    return say(request)


async def aleave(request: Any) -> HttpResponse:
    await alogout(request)
    return say(request)


def test_a_request_is_served_by_the_store_that_is_chosen(way: str) -> None:
    response = visit(way, say)
    id, token = response.content.decode(), response.cookies["conversation"].value
    assert STORES["acme"].exists(id)
    assert not STORES["zenith"].exists(id)
    assert not conversations.exists(id)
    assert visit(way, count, token).content == b"1"
    assert visit(way, count, token, tenant="zenith").content == b"0"


def test_after_a_logout_it_is_still_that_store(way: str) -> None:
    first = visit(way, say)
    response = visit(way, leave, first.cookies["conversation"].value)
    id = response.content.decode()
    assert id != first.content.decode()
    assert STORES["acme"].exists(id)
    assert not conversations.exists(id)


def test_a_logout_by_rest_framework_begins_anew() -> None:
    """Whose request is another object than ours."""

    def view(request: Any) -> HttpResponse:
        logout(Request(request))
        return say(request)

    first = visit("sync", say)
    response = visit("sync", view, first.cookies["conversation"].value)
    assert response.content != first.content
    assert response.cookies["conversation"].value != first.cookies["conversation"].value


def test_after_damage_it_is_still_that_store(rf: RequestFactory) -> None:
    def view(request: Any) -> HttpResponse:
        middleware.process_exception(request, ConversationCorrupt("as asked for"))
        return say(request)

    middleware = TenantMiddleware(view)
    response: Any = middleware(rf.get("/", headers={"tenant": "zenith"}))
    assert STORES["zenith"].exists(response.content.decode())


@pytest.fixture(autouse=True)
def _empty_stores() -> Any:
    yield
    for store in STORES.values():
        store.purge(everything=True)
