"""What a visitor notices of an outage: nothing but that it takes a little longer."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import AsyncClient, Client

from django_convstate import conversations, tokens
from tests.chaos.world import World

COOKIE = "conversation"


class Visitor:
    """A browser with a conversation, by sync views or by async ones."""

    def __init__(self, world: World, number: int, way: str) -> None:
        self._world = world
        self._number = number
        self._way = way
        self._client: Any = Client() if way == "sync" else AsyncClient()
        self._said = 0
        self.id = ""
        self._is_unsaved = False
        self.turn()

    def turn(self) -> None:
        self._said += 1
        text = self._world.model.text("?", self._number, self._said)
        began = time.monotonic()
        response = self._get(f"/{self._way}/say", {"text": text})
        self._world.model.operations.append((began, time.monotonic() - began))
        assert response.status_code == 200
        token = tokens.read_token(self._client.cookies[COOKIE].value)
        assert token is not None, "the cookie was dropped"
        if self._is_unsaved and not token.is_unsaved:
            assert COOKIE in response.cookies, "it is stored by now"
        elif self.id:
            assert COOKIE not in response.cookies, "the cookie was changed"
        self.id, self._is_unsaved = self.id or token.id, token.is_unsaved
        assert token.id == self.id
        assert response.json()["id"] == self.id
        messages = response.json()["messages"]
        expected = [self._world.model.text("?", self._number, n + 1) for n in range(self._said)]
        assert messages == expected[-len(messages) :]

    def _get(self, path: str, data: dict[str, str]) -> Any:
        if self._way == "sync":
            return self._client.get(path, data)
        return asyncio.run(self._client.get(path, data))

    def stored(self) -> list[str]:
        found = conversations.get(self.id).messages.all()
        return [str(message["content"]) for message in found]

    def expected(self) -> list[str]:
        return [self._world.model.text("?", self._number, n + 1) for n in range(self._said)]


@pytest.fixture
def site(world: World) -> Iterator[World]:
    """The test project on the world's server."""
    world.settings.CONVERSATION_STATE_BACKEND = "redis"
    world.settings.CONVERSATION_STATE = {"CACHE_ALIAS": world.alias}
    world.adopt(conversations.backend)  # type: ignore[arg-type]
    yield world
    conversations.close()


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("fault", ["blackhole", "killed", "refused"])
def test_requests_go_on(site: World, way: str, fault: str) -> None:
    visitors = [Visitor(site, number, way) for number in range(5)]
    for visitor in visitors:
        visitor.turn()
    site.model.operations.clear()
    if fault == "blackhole":
        site.proxy.silent = True
    elif fault == "killed":
        site.server.kill()
    else:
        with site.server.client() as client:
            client.config_set("maxmemory", 1)
    with site.ruler() as ruler:
        for visitor in visitors * 3:
            visitor.turn()
        newcomer = Visitor(site, 99, way)
        newcomer.turn()
    assert site.slowest(ruler) <= 2 * site.limit
    if fault == "killed":
        site.restart()
    elif fault == "refused":
        with site.server.client() as client:
            client.config_set("maxmemory", 0)
    site.proxy.calm()
    site.settle()
    for visitor in [*visitors, newcomer]:
        visitor.turn()
        assert visitor.stored() == visitor.expected()
    site.check()
