"""Daphne drops the headers of `websocket.accept` (https://github.com/django/daphne/issues/326),
and our cookie with them.

It gives Autobahn the value of the subprotocol as it is, and Autobahn accepts a pair of subprotocol
and headers there (undocumented). So that pair is what Daphne gets.

To be removed once the oldest Daphne that we support sends the headers itself. With such a Daphne
this does nothing: see `_drops_headers`. Due for a check of that at the end of 2027.
"""

import functools
import inspect
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any


def passing_headers(send: Any) -> Any:
    """Return a `send` with which headers get through: the one given, where they do already. It has
    to be that of the server, which is recognized by it."""
    return functools.partial(_send_as_pair, send) if _drops_headers(send) else send


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
