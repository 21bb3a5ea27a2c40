"""Which conversation a request or a scope means, and how the answer says which one it was.

A client holds a token, the signed id, in a cookie; or, if HEADER_NAME is set, in a header, which
then counts for more than the cookie. Without a token, or with one that we did not sign, a request
has no conversation yet.

The handshake of a websocket is a request like any other. A client that can set no header on it
offers its token as a subprotocol, and that counts for more than the others.
"""

import base64
import logging
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.functional import SimpleLazyObject

from .. import tokens
from ..conf import Options
from ..conversation.conversation import Conversation

logger = logging.getLogger("django_convstate")

# A client offers the first to say that it knows us, and the second, with its token, beside it.
SUBPROTOCOL: Final = "convstate"
_TOKEN_SUBPROTOCOL: Final = f"{SUBPROTOCOL}.token."

Scope = Mapping[str, Any]


def presented_id(request: HttpRequest, options: Options) -> str | None:
    """Return the id that the request's token stands for; None without a token of ours."""
    token = presented_token(request, options)
    if not token:
        return None
    id = tokens.unsign_token(token)
    if id is None:
        logger.warning("A conversation token has no valid signature: treated as absent.")
    return id


def presented_token(request: HttpRequest, options: Options) -> str | None:
    """Return what the request's header or cookie says, whoever signed it."""
    return _header_token(request, options) or request.COOKIES.get(options.cookie_name)


def mark_private(response: HttpResponseBase, options: Options) -> None:
    """Keep caches from giving a response made from one conversation to anybody else."""
    patch_vary_headers(response, ["Cookie", *filter(None, [options.header_name])])
    patch_cache_control(response, private=True)


def hand_out(
    request: HttpRequest, response: HttpResponseBase, conversation: Conversation, options: Options
) -> None:
    """Give the client the token of a stored conversation, unless it has it already."""
    hand_out_token(request, response, conversation.token, options)


def hand_out_token(
    request: HttpRequest, response: HttpResponseBase, token: str, options: Options
) -> None:
    """Give the client this token, unless it has it already."""
    cookie = request.COOKIES.get(options.cookie_name)
    if options.header_name is not None and cookie != token:
        # To whoever has the cookie no script need show the token: the cookie is HttpOnly.
        response.headers[options.header_name] = token
        if _header_token(request, options):
            return
    if cookie != token or options.cookie_age is not None:
        secure = options.cookie_secure
        response.set_cookie(
            options.cookie_name,
            token,
            max_age=options.cookie_age,
            path=options.cookie_path,
            domain=options.cookie_domain,
            secure=settings.SESSION_COOKIE_SECURE if secure is None else secure,
            httponly=options.cookie_httponly,
            samesite=options.cookie_samesite,  # type: ignore[arg-type]
        )


def take_back(request: HttpRequest, response: HttpResponseBase, options: Options) -> None:
    """Delete the cookie of a conversation that is no more; not for what a header said, nor where
    a websocket has yet to say its first word."""
    cookie = request.COOKIES.get(options.cookie_name)
    if cookie is not None and not (_header_token(request, options) or _is_early(request, cookie)):
        response.delete_cookie(
            options.cookie_name,
            path=options.cookie_path,
            domain=options.cookie_domain,
            samesite=options.cookie_samesite,  # type: ignore[arg-type]
        )


def _is_early(request: HttpRequest, cookie: str) -> bool:
    """Tell whether this is the cookie of a websocket that may have said nothing yet. After a
    logout, or where the view has put another conversation in its place, it goes as any other."""
    is_replaced = not isinstance(request.conversation, SimpleLazyObject)  # type: ignore[attr-defined]
    return tokens.is_unsaved(cookie) and not is_replaced


def _header_token(request: HttpRequest, options: Options) -> str | None:
    return request.headers.get(options.header_name) if options.header_name else None


# The handshake of a websocket.


def handshake_of(scope: Scope) -> HttpRequest:
    """Return the request that opened a websocket."""
    return ASGIRequest({**scope, "method": "GET"}, BytesIO())


def headers_of(response: HttpResponse) -> list[tuple[bytes, bytes]]:
    """Return what `hand_out_token` has put into a response, as ASGI wants it."""
    cookies = [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    named = [(name, value) for name, value in response.items() if name != "Content-Type"]
    return [(name.lower().encode(), value.encode("latin1")) for name, value in named + cookies]


def offers_subprotocol(scope: Scope) -> bool:
    """Tell whether the client of this websocket knows of conversations."""
    return SUBPROTOCOL in scope.get("subprotocols", ())


def subprotocol_token(scope: Scope) -> str | None:
    """Return the token among the offered subprotocols; None: there is none, "": not a readable one.

    A subprotocol may not consist of all the characters of a token, so it comes as base64url.
    """
    for offer in scope.get("subprotocols", ()):
        if offer.startswith(_TOKEN_SUBPROTOCOL):
            encoded = offer.removeprefix(_TOKEN_SUBPROTOCOL)
            try:
                padding = "=" * (-len(encoded) % 4)
                return base64.b64decode(encoded + padding, altchars=b"-_", validate=True).decode()
            except ValueError:
                return ""
    return None


def as_subprotocol(token: str) -> str:
    """Return the subprotocol with which a client presents `token`."""
    return _TOKEN_SUBPROTOCOL + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
