"""What wraps the consumers in `asgi.py`: the user of a socket, and its conversation."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from channels.auth import AuthMiddleware
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.apps import apps

from ..http.visitor import avisitor_of
from ..store import ConversationStore, conversations
from ..tracebacks import clears_own_locals
from .daphne import DaphneHeaders
from .handshake import request_of
from .scope import ScopeConversation

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class ConversationMiddleware:
    """Puts `scope["conversation"]` into the scope of a websocket, without a call to the store,
    and tells the client with the handshake's response which one it is. Its visitor is that of the
    handshake."""

    def __init__(self, inner: Application) -> None:
        self.inner = inner

    @clears_own_locals
    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run one connection; other protocols pass through unchanged."""
        if scope["type"] != "websocket":
            return await self.inner(scope, receive, send)
        store = self.get_store(scope)
        visitor = await avisitor_of(request_of(scope), store.options)
        conversation = ScopeConversation(scope, store, visitor)

        async def send_with_token(message: Message) -> None:
            if message["type"] == "websocket.accept":
                for part in conversation.accept(scope, dict(message)):
                    await send(part)
                return
            if message["type"] == "websocket.close":
                conversation.is_open = False
            await send(message)

        return await self.inner({**scope, "conversation": conversation}, receive, send_with_token)

    def get_store(self, scope: dict[str, Any]) -> ConversationStore:
        """Return where the conversation of a socket is kept. Override it for a store of each
        tenant, say, as that of the middleware for HTTP. Do no I/O here."""
        return conversations


def ConversationMiddlewareStack(  # noqa: N802 - as in Channels
    inner: Application, middleware: type[ConversationMiddleware] = ConversationMiddleware
) -> Application:
    """Return `inner` with its origin checked against ALLOWED_HOSTS, and with the session, the user
    and the conversation in its scope; without the first two where their apps are not installed.

    Args:
        middleware: a subclass of `ConversationMiddleware`, with a `get_store` of its own, say.
    """
    inner = middleware(inner)
    if apps.is_installed("django.contrib.sessions"):
        if apps.is_installed("django.contrib.auth"):
            inner = AuthMiddleware(inner)
        inner = CookieMiddleware(SessionMiddleware(inner))
    return DaphneHeaders(AllowedHostsOriginValidator(inner))
