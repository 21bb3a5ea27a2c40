"""An ASGI server with one client, which hangs up."""

import asyncio
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.test import AsyncRequestFactory


class Handler(ASGIHandler):
    """Knows the file with the body, which Django does not close after each kind of trouble."""

    async def read_body(self, receive: Any) -> Any:
        self.body = await super().read_body(receive)
        return self.body


class Connection:
    """An ASGI server with one client, which goes away after `count` chunks: while the next one is
    awaited, or, if `jammed`, while the last one is still on its way."""

    def __init__(self, count: int, *, jammed: bool = False, cookie: str = "") -> None:
        self.count = count
        self.jammed = jammed
        self.cookie = cookie
        self.sent: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.gone = asyncio.Event()
        self.asked = False

    async def get(self, url: str) -> None:
        path, _, query = url.partition("?")
        scope = AsyncRequestFactory()._base_scope(path=path, query_string=query)  # type: ignore[attr-defined]
        if self.cookie:
            scope["headers"] = [(b"cookie", f"conversation={self.cookie}".encode())]
        handler = Handler()
        try:
            await handler(scope | {"type": "http"}, self.receive, self.send)
        finally:
            handler.body.close()

    async def receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b""}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
        elif message.get("body"):
            self.sent.append(message["body"])
        if len(self.sent) == self.count:
            self.gone.set()
            if self.jammed:
                await asyncio.sleep(60)

    async def hang_up(self) -> None:
        """Go away, and return when Django has heard of it."""
        self.gone.set()
        for _ in range(50):  # turns of the event loop, of which Django needs a few
            await asyncio.sleep(0)
