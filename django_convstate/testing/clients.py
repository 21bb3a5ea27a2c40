"""`client.conversation`: the conversation of a test client's cookie, as `client.session` is its
session. On Django's clients, and so on those of others that are made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from ..conversation.conversation import Conversation
from ..http.identity import presented, presented_tokens
from ..http.opening import aopen_presented, candidates_of, open_presented
from ..http.visitor import avisitor_of, visitor_of
from ..middleware import ConversationMiddleware
from ..store import ConversationStore, conversations
from ..tokens import sign_id

AnyClient = Client | AsyncClient


@contextmanager
def clients_with_conversations() -> Iterator[None]:
    """Give Django's test clients `conversation` and `aconversation()`, in a with block."""
    if hasattr(Client, "conversation"):
        yield
        return
    classes = (Client, AsyncClient)
    for cls in classes:
        vars_of_client = {
            "conversation": property(conversation_of, give_conversation),
            "aconversation": aconversation_of,
        }
        for name, value in vars_of_client.items():
            setattr(cls, name, value)
    try:
        yield
    finally:
        for cls in classes:
            for name in ("conversation", "aconversation"):
                delattr(cls, name)


def conversation_of(client: AnyClient) -> Conversation:
    """Return the conversation that the client's next request would have. If that is a new one, the
    client gets a cookie for it; it is stored when it is saved.

    Raises:
        ImproperlyConfigured: COOKIE_NAME is None.
    """
    request = _request_of(client)
    store = _store_of(request)
    tokens, visitor = presented(request, store.options), visitor_of(request, store.options)
    conversation = open_presented(store, candidates_of(tokens, visitor), visitor)
    _keep(client, request, store, conversation)
    return conversation


async def aconversation_of(client: AnyClient) -> Conversation:
    """See `conversation_of`."""
    request = _request_of(client)
    store = _store_of(request)
    tokens, visitor = presented(request, store.options), await avisitor_of(request, store.options)
    conversation = await aopen_presented(store, candidates_of(tokens, visitor), visitor)
    _keep(client, request, store, conversation)
    return conversation


def give_conversation(client: AnyClient, conversation: Conversation) -> None:
    """Give the client the cookie of a conversation."""
    client.cookies[_cookie_name(_store_of(_request_of(client)))] = _token(conversation)


def _keep(
    client: AnyClient, request: HttpRequest, store: ConversationStore, conversation: Conversation
) -> None:
    name = _cookie_name(store)
    is_sent = conversation.token in presented_tokens(request, store.options)
    if not is_sent:
        client.cookies[name] = _token(conversation)


def _token(conversation: Conversation) -> str:
    return sign_id(conversation.id, conversation.owner, unsaved=conversation.is_new)


def _cookie_name(store: ConversationStore) -> str:
    if store.options.cookie_name is None:
        raise ImproperlyConfigured(
            "CONVERSATION_STATE['COOKIE_NAME'] is None, so a client has no conversation by itself. "
            "Send the token of one with the request: conversation.token."
        )
    return store.options.cookie_name


def _request_of(client: AnyClient) -> HttpRequest:
    """Return a request as the client would make it, with its session and its user."""
    factory = RequestFactory(**client.defaults)
    factory.cookies = client.cookies
    request: HttpRequest = factory.get("/")
    if apps.is_installed("django.contrib.sessions"):
        sessions = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
        cookie = client.cookies.get(settings.SESSION_COOKIE_NAME)
        request.session = sessions(cookie.value if cookie and cookie.value else None)
        if apps.is_installed("django.contrib.auth"):
            from django.contrib.auth import aget_user, get_user

            request.user = SimpleLazyObject(partial(get_user, request))  # type: ignore[assignment]
            request.auser = partial(aget_user, request)
    return request


def _store_of(request: HttpRequest) -> ConversationStore:
    """Return where the project's middleware keeps the conversation of a request."""
    for path in settings.MIDDLEWARE:
        found = import_string(path)
        if isinstance(found, type) and issubclass(found, ConversationMiddleware):
            return found(lambda request: HttpResponse()).get_store(request)
    return conversations
