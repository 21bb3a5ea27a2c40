"""One request with a stream, of which as much is read as a test wants."""

import asyncio
from contextlib import aclosing
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.test import AsyncClient, Client

from django_convstate import (
    Conversation,
    conversations,
)
from django_convstate.conversation import cancellation

WORDS = 5


class Visit:
    """One request and as much of its stream as is read; then the client closes."""

    def __init__(
        self, way: str, view: str, cookies: Any = None, read: int | None = None, **options: Any
    ) -> None:
        self.parts: list[bytes] = []
        self.error: Exception | None = None
        self.before: list[Any] = []  # what was stored before the stream began
        self.client: Any = Client() if way == "sync" else AsyncClient()
        self.response: Any = None
        self.client.cookies.update(cookies or {})
        if way == "sync":
            self.response = self.client.get(f"/sync/{view}", **options)
            self._read(read)
        else:
            asyncio.run(self._aget(f"/async/{view}", read, options))

    def _read(self, count: int | None) -> None:
        self.before = list(conversations.list())
        try:
            for part in iter(self.response) if count != 0 else ():
                self.parts.append(part)
                if len(self.parts) == count:
                    break
        except (RuntimeError, ValueError) as error:
            self.error = error
        self.response.close()

    async def _aget(self, url: str, count: int | None, options: Any) -> None:
        self.response = await self.client.get(url, **options)
        self.before = list(conversations.list())
        try:
            async with aclosing(aiter(self.response)) as parts:
                if count != 0:
                    async for part in parts:
                        self.parts.append(part)
                        if len(self.parts) == count:
                            break
        except (RuntimeError, ValueError) as error:
            self.error = error
        self.response.close()
        await asyncio.gather(*cancellation._background)

    @property
    def content(self) -> str:
        return b"".join(self.parts).decode()


def stored() -> Conversation:
    (summary,) = conversations.list()
    return conversations.get(summary.id)


async def until_saved(version: int = 1) -> None:
    for _ in range(3000):
        if any(summary.version >= version for summary in conversations.list()):
            return
        await asyncio.sleep(0.01)


def check_kept(said: str, *, interrupted: bool) -> None:
    """What was stored is the user's message and, of the answer, what was `said`."""
    first, *answers = stored().messages.all()
    assert first["content"] == "hello"
    shown = [(m["role"], m["content"], m.get("interrupted", False)) for m in answers]
    assert shown == ([("assistant", said, interrupted)] if said else [])


def wsgi(environ: Any) -> Any:
    return WSGIHandler()(environ, lambda status, headers, error=None, /: lambda body: None)
