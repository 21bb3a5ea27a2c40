"""The handshake of a websocket: a request as any other, to which a client that can set no header
adds its token as a subprotocol, which takes precedence over header and cookie."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse

from ..identity import TOKEN_SUBPROTOCOL

Scope = Mapping[str, Any]


def request_of(scope: Scope) -> HttpRequest:
    """Return the request that opened a websocket, with the session and the user of its scope."""
    request = ASGIRequest({**scope, "method": "GET"}, BytesIO())
    for name in ("session", "user"):
        if name in scope:
            setattr(request, name, scope[name])
    return request


def headers_of(response: HttpResponse) -> list[tuple[bytes, bytes]]:
    """Return what `http.identity.set_token` has put into a response, in ASGI's form."""
    cookies = [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    named = [(name, value) for name, value in response.items() if name != "Content-Type"]
    return [(name.lower().encode(), value.encode("latin1")) for name, value in named + cookies]


def subprotocol_token(scope: Scope) -> str | None:
    """Return the token among the offered subprotocols; None: there is none, "": it is unreadable.

    The token is base64url, because some of its characters are not allowed in a subprotocol.
    """
    for offer in scope.get("subprotocols", ()):
        if offer.startswith(TOKEN_SUBPROTOCOL):
            encoded = offer.removeprefix(TOKEN_SUBPROTOCOL)
            try:
                padding = "=" * (-len(encoded) % 4)
                return base64.b64decode(encoded + padding, altchars=b"-_", validate=True).decode()
            except ValueError:
                return ""
    return None
