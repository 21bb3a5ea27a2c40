"""What wraps the consumers in `asgi.py`: the user of a socket, and its conversation.

A socket may be idle for days, and there are thousands. So each layer here is one coroutine, which
keeps no scope but its own: none is wrapped by `clears_own_locals`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from channels.auth import AuthMiddleware
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.apps import apps

from ..http.visitor import avisitor_of
from ..store import ConversationStore, conversations
from ..tracebacks import clear_own_locals
from .daphne import passing_headers
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

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run one connection; other protocols pass through unchanged."""
        try:
            if scope["type"] == "websocket":
                scope, send = await self._with_conversation(scope, send)
            return await self.inner(scope, receive, send)
        except BaseException as error:
            del scope, receive, send
            clear_own_locals(error)
            raise

    def get_store(self, scope: dict[str, Any]) -> ConversationStore:
        """Return where the conversation of a socket is kept. Override it for a store of each
        tenant, say, as that of the middleware for HTTP. Do no I/O here."""
        return conversations

    async def _with_conversation(
        self, scope: dict[str, Any], send: Send
    ) -> tuple[dict[str, Any], Send]:
        store = self.get_store(scope)
        visitor = await avisitor_of(request_of(scope), store.options)
        conversation = ScopeConversation(scope, store, visitor)
        scope = {**scope, "conversation": conversation}
        return scope, _SendWithToken(conversation, scope, send)


class _SendWithToken:
    """The `send` of a socket, which adds the token of its conversation to the handshake."""

    __slots__ = ("_conversation", "_scope", "_send")

    def __init__(self, conversation: ScopeConversation, scope: dict[str, Any], send: Send) -> None:
        self._conversation = conversation
        self._scope = scope
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            for part in self._conversation.accept(self._scope, dict(message)):
                await self._send(part)
            return
        if message["type"] == "websocket.close":
            self._conversation.is_open = False
        await self._send(message)


class _PassingHeaders:
    """Has the headers of the handshake get through the server."""

    def __init__(self, inner: Application) -> None:
        self.inner = inner

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run one connection."""
        try:
            return await self.inner(scope, receive, passing_headers(send))
        except BaseException as error:
            del scope, receive, send
            clear_own_locals(error)
            raise


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
    return _PassingHeaders(AllowedHostsOriginValidator(inner))
