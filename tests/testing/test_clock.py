"""A clock that is moved: whatever expires does, in every place, without a wait."""

import time
from typing import Any

import pytest
from django.test import override_settings

from django_convstate import ConversationConflict, ConversationStore, conversations
from django_convstate.testing import aseed, clock, seed, store_away
from django_convstate.tokens import UNSAVED_SECONDS, read_token, sign_id

pytestmark = pytest.mark.usefixtures("emptied")


def test_what_is_idle_for_its_ttl_is_gone(store: ConversationStore) -> None:
    seed([("user", "hi")], id="a", owner="u1", ttl=3600, store=store)
    clock.move(3500)
    assert len(store.get("a").messages) == 1
    clock.move(3500)
    assert store.exists("a"), "the load has slid its expiry"
    clock.move(101)
    assert not store.exists("a")
    if store.backend.can_scan:
        assert list(store.list("u1")) == []
    again = seed([("user", "anew")], id="a", ttl=3600, store=store)
    clock.move(3599)
    assert store.exists("a")
    clock.move(1.5)
    assert not store.exists("a")
    assert again.expires_at is not None
    assert abs(again.expires_at.timestamp() - time.time() - 3500 - 3500 - 101 - 3600) < 60


def test_what_never_expires_does_not(store: ConversationStore) -> None:
    seed([("user", "hi")], id="a", ttl=float("inf"), store=store)
    clock.move(10 * 365 * 86400)
    assert store.exists("a")


def test_time_within_a_block_only(store: ConversationStore) -> None:
    seed([("user", "hi")], id="short", ttl=60, store=store)
    seed([("user", "hi")], id="long", ttl=3600, store=store)
    with clock.ahead(1800):
        assert not store.exists("short")
        assert store.exists("long")
        seed([("user", "hi")], id="later", ttl=60, store=store)
    with clock.ahead(3000):
        assert not store.exists("later")
        assert store.exists("long"), "the time in the first block does not count"
    seed([("user", "hi")], id="now", ttl=60, store=store)
    assert store.exists("now")


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize(
    ("backend", "alias"),
    [("locmem", "default"), ("cache", "default"), ("cache", "redis"), ("redis", "django_redis")],
)
def test_max_age(backend: str, alias: str) -> None:
    options: dict[str, Any] = {} if backend == "locmem" else {"cache_alias": alias}
    store = ConversationStore(backend, max_age=600, ttl=400, **options)
    seed([("user", "hi")], id="a", store=store)
    clock.move(350)
    store.get("a")
    clock.move(200)
    assert store.get("a").expires_at is not None
    clock.move(51)
    assert not store.exists("a")
    store.close()


def test_a_turn_is_lost_when_its_lease_is_over(store: ConversationStore) -> None:
    conversation = seed([("user", "hi")], ttl=86400, store=store)
    other = store.get(conversation.id)
    with pytest.raises(ConversationConflict), conversation.turn():
        clock.move(3600)
        with other.turn(timeout=5):
            other["whose"] = "the other's"
        conversation["whose"] = "mine"
    assert store.get(conversation.id)["whose"] == "the other's"


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize("backend", ["locmem", "redis"])
def test_purge_by_idle_time(backend: str) -> None:
    options: Any = {"cache_alias": "django_redis"} if backend == "redis" else {}
    store = ConversationStore(backend, **options)
    seed([("user", "hi")], id="old", ttl=10**6, store=store)
    clock.move(7200)
    seed([("user", "hi")], id="new", ttl=10**6, store=store)
    assert store.purge(idle_for=3600).deleted == 1
    assert [each.id for each in store.list()] == ["new"]
    (summary,) = store.list()
    assert abs(summary.last_accessed.timestamp() - time.time() - 7200) < 60
    store.close()


async def test_async_code_is_at_the_same_time() -> None:
    await aseed([("user", "hi")], id="a", ttl=60)
    with clock.ahead(61):
        assert not await conversations.aexists("a")


def test_tokens_and_messages_are_dated_by_it() -> None:
    token = sign_id("a", unsaved=True)  # with the hour in which that was
    clock.move(UNSAVED_SECONDS - 3660)
    read = read_token(token)
    assert read is not None
    assert read.is_unsaved
    clock.move(3661)
    late = read_token(token)
    assert late is not None
    assert not late.is_unsaved
    anew = read_token(sign_id("a", unsaved=True))
    assert anew is not None
    assert anew.is_unsaved
    conversation = seed([("user", "hi")])
    assert conversation.created_at is not None
    said_at = str(conversation.messages[0]["timestamp"])
    assert said_at[:16] == conversation.created_at.isoformat()[:16]
    assert conversation.created_at.timestamp() > time.time() + UNSAVED_SECONDS - 60


def test_a_tombstone_lasts_a_day() -> None:
    seed([("user", "hi")], id="a").delete()
    late = conversations.begin("a")
    late["a"] = 1
    with pytest.raises(Exception, match="deleted"):
        late.save()
    clock.move(86401)
    later = conversations.begin("a")
    later["a"] = 1
    later.save()


@pytest.mark.usefixtures("valkey")
def test_a_fallback_is_at_the_same_time() -> None:
    store = ConversationStore("redis", cache_alias="django_redis")
    seed([("user", "hi")], id="a", ttl=600, store=store)
    clock.move(300)
    assert len(store.get("a").messages) == 1
    with store_away():
        clock.move(500)
        conversation = store.get("a")
        assert conversation.degraded
        assert len(conversation.messages) == 1
        clock.move(601)
        assert len(store.get("a").messages) == 0
    assert not store.exists("a")
    store.close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_it_does_not_go_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        clock.move(seconds)


def test_a_project_may_stop_the_time_itself() -> None:
    """With `override_settings` and the like in between nothing of it is lost."""
    seed([("user", "hi")], id="a", ttl=60)
    with override_settings(CONVERSATION_STATE={"TTL": 5}):
        clock.move(61)
    assert not conversations.exists("a")
