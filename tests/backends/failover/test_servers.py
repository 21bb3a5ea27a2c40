"""Outages of a real server: what opens the breaker at once, what is refused, and what is lost."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_convstate import (
    BackendUnavailable,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationStore,
    signals,
)
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from tests.chaos.proxy import Proxy
from tests.support.places import on
from tests.support.ruler import limit
from tests.support.servers import Server, wait_until


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def store(settings: Any, proxy: Proxy) -> Iterator[ConversationStore]:
    """Of a process that has reached the server."""
    primary = on(settings, f"redis://127.0.0.1:{proxy.port}/0", within=limit(1))
    store = ConversationStore(FailoverBackend(primary, LocMemBackend()))
    assert said(store, "first") == ["first"]
    yield store
    store.close()


def said(store: ConversationStore, text: str, id: str = "a") -> list[Any]:
    conversation = store.open(id)
    conversation.messages.append("user", text)
    conversation.save()
    return [message["content"] for message in store.get(id).messages]


def with_config(**config: Any) -> Callable[[Server], None]:
    def configure(server: Server) -> None:
        with server.client() as client:
            for name, value in config.items():
                client.config_set(name, value)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    return configure


@pytest.mark.parametrize(
    "begin",
    [Server.kill, with_config(requirepass="another"), with_config(maxmemory=1)],
    ids=["refused connection", "wrong password", "out of memory"],
)
def test_what_is_not_transient_opens_the_breaker_at_once(
    store: ConversationStore, server: Server, begin: Callable[[Server], None]
) -> None:
    begin(server)
    assert said(store, "second") == ["first", "second"]
    wait_until(lambda: store.health().since)
    if server.process is not None:
        server.kill()
    server.start()
    wait_until(lambda: not store.health().using_fallback)
    assert said(store, "third") == ["first", "second", "third"]


def listed(store: ConversationStore) -> object:
    return list(store.list())


async def alisted(store: ConversationStore) -> object:
    return [each async for each in store.alist()]


@pytest.mark.parametrize(
    "refused",
    [
        listed,
        lambda store: store.purge(everything=True),
        lambda store: asyncio.run(alisted(store)),
        lambda store: asyncio.run(store.apurge(everything=True)),
    ],
    ids=["list", "purge", "alist", "apurge"],
)
def test_listing_and_purging_are_refused(
    store: ConversationStore, server: Server, refused: Callable[[ConversationStore], object]
) -> None:
    server.kill()
    assert said(store, "second") == ["first", "second"]
    with pytest.raises(BackendUnavailable):
        refused(store)
    assert said(store, "third") == ["first", "second", "third"], "nothing is forgotten"


def test_what_a_server_has_forgotten_is_lost_and_counted(
    store: ConversationStore, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no append-only file."""
    news: list[dict[str, Any]] = []

    def recovered(sender: object, signal: object, **stats: Any) -> None:
        news.append(stats)

    signals.backend_recovered.connect(recovered)
    try:
        server.kill()
        assert said(store, "second") == ["first", "second"]
        assert said(store, "begun", "new") == ["begun"]
        server.config = ()
        server.start()
        wait_until(lambda: news)
    finally:
        signals.backend_recovered.disconnect(recovered)
    (stats,) = news
    assert stats["lost"] == 1
    assert "a change accepted during the outage is lost" in caplog.text
    assert not store.exists("a")
    assert said(store, "more", "new") == ["begun", "more"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_rename_whose_reply_is_lost_twice_fails_and_its_id_is_gone(
    store: ConversationStore, proxy: Proxy, is_async: bool
) -> None:
    conversation, other = store.get("a"), store.create()
    other["known"] = "the script, after its first use"
    other.save()

    def cycle_ids() -> None:
        other.cycle_id()
        proxy.mute = True
        conversation.cycle_id()

    async def acycle_ids() -> None:
        await other.acycle_id()
        proxy.mute = True
        try:
            await conversation.acycle_id()
        finally:
            proxy.calm()
            await store.aclose()

    with pytest.raises(BackendUnavailable):
        asyncio.run(acycle_ids()) if is_async else cycle_ids()
    proxy.calm()
    assert conversation.id == "a"
    wait_until(lambda: not store.health().using_fallback)
    with pytest.raises(ConversationNotFound):
        store.get("a")
    conversation["said"] = 1
    with pytest.raises(ConversationInterrupted):
        conversation.save()
    assert sorted(summary.message_count for summary in store.list()) == [0, 1]
