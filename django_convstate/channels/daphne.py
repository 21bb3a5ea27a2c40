"""Daphne drops the headers of `websocket.accept` (https://github.com/django/daphne/issues/326),
and our cookie with them.

It gives Autobahn what it was told is the subprotocol, and Autobahn takes a pair there, too:
subprotocol and headers. So that is what Daphne gets, until it can do better.
"""

import functools
import inspect
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any


class DaphneHeaders:
    """Has to be outermost, because a server is known by the `send` that it gives us."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if _drops_headers(send):
            send = functools.partial(_send_as_pair, send)
        await self.inner(scope, receive, send)


def _drops_headers(send: object) -> bool:
    daphne = sys.modules.get("daphne.ws_protocol")
    if daphne is None or not isinstance(send, functools.partial) or not send.args:
        return False
    protocol = send.args[0]
    return (
        isinstance(protocol, daphne.WebSocketProtocol)
        and "headers" not in inspect.signature(protocol.serverAccept).parameters
    )


async def _send_as_pair(
    send: Callable[[dict[str, Any]], Awaitable[None]], message: dict[str, Any]
) -> None:
    if message["type"] == "websocket.accept" and message.get("headers"):
        headers = defaultdict(list)
        for name, value in message["headers"]:
            headers[name.decode("latin1")].append(value.decode("latin1"))
        message = message | {"subprotocol": (message.get("subprotocol"), dict(headers))}
    await send(message)
