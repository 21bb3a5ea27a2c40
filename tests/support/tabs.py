"""A browser's tabs for tests of websockets, through Channels' own test client."""

import asyncio
from http.cookies import SimpleCookie
from typing import Any

from channels.testing import WebsocketCommunicator

from django_convstate import ConversationStore, conversations
from django_convstate.channels import (
    ConversationMiddlewareStack,
)
from django_convstate.identity import as_subprotocol
from django_convstate.tokens import unsign_token

PATIENCE = 30.0  # seconds for whatever has to come

IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


class Tab(WebsocketCommunicator):
    """A browser's tab with an open socket."""

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.response_headers}

    @property
    def token(self) -> str | None:
        cookie = SimpleCookie(self.headers.get("set-cookie", ""))
        return cookie["conversation"].value if "conversation" in cookie else None

    async def ask(self, **content: Any) -> Any:
        """Return the answer. What was said is committed after it."""
        await self.send_json_to(content)
        return await self.hear()

    async def say(self, text: str) -> Any:
        """Return the answer when it is committed: the next message comes after that."""
        await self.ask(say=text)
        return await self.ask()

    async def hear(self) -> Any:
        return await self.receive_json_from(PATIENCE)

    async def close_code(self) -> int | None:
        message = await self.receive_output(PATIENCE)
        assert message["type"] == "websocket.close", message
        code: int | None = message.get("code")
        return code


class Browser:
    """Opens tabs, and closes them at the end of a test."""

    def __init__(self, consumer: Any) -> None:
        self.application = ConversationMiddlewareStack(consumer.as_asgi())
        self.tabs: list[Tab] = []

    def tab(
        self,
        cookie: str | None = None,
        token: str | None = None,
        query: str = "",
        subprotocols: list[str] | None = None,
    ) -> Tab:
        headers = [(b"origin", b"http://testserver")]
        if cookie is not None:
            headers.append((b"cookie", f"conversation={cookie}".encode()))
        if token is not None:
            subprotocols = ["convstate", as_subprotocol(token)]
        tab = Tab(self.application, f"/{query}", headers, subprotocols)
        self.tabs.append(tab)
        return tab

    async def open(self, *args: Any, **kwargs: Any) -> Tab:
        tab = self.tab(*args, **kwargs)
        is_open, _ = await tab.connect(PATIENCE)
        assert is_open
        return tab

    async def leave(self) -> None:
        still_open = [tab for tab in self.tabs if not tab.future.done()]
        for tab in still_open:
            await tab.send_input({"type": "websocket.disconnect", "code": 1000})
        for tab in still_open:
            await tab.wait(PATIENCE)


def stored(*said: str, ttl: float | None = None) -> str:
    """Store a conversation and return its token."""
    conversation = conversations.create(ttl=ttl)
    conversation["value"] = 0
    for text in said:
        conversation.messages.append("user", text)
    conversation.save()
    return conversation.token


async def until_slid(store: ConversationStore, id: str) -> None:
    """Wait until the expiry of a conversation was slid twice: once perhaps by a save under way, and
    then by an idle socket."""

    async def expires_at() -> Any:
        return (await asyncio.to_thread(store.peek, id)).expires_at

    last = await expires_at()
    for _ in range(2):
        before = last
        async with asyncio.timeout(PATIENCE):
            while last <= before:
                await asyncio.sleep(0.05)
                last = await expires_at()


def id_of(token: str | None) -> str:
    id = unsign_token(token or "")
    assert id is not None
    return id


def contents(news: dict[str, Any]) -> list[str]:
    assert news["type"] == "conversation.messages"
    return [message["content"] for message in news["messages"]]
