"""What the failover backend promises wherever its primary is: here that is memory, which can be
switched off. tests/chaos has real servers."""

import asyncio
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationNotFound, ConversationStore
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.records import DEFAULT_TTL, Change
from django_convstate.ids import new_id
from tests.settings import PATIENT
from tests.support.backends import Switched, record_of
from tests.support.failover import append, messages_of, numbers
from tests.support.messages import bodies
from tests.support.servers import Server, wait_until


class TestStore:
    def test_an_owner_cannot_be_verified_for_an_unknown_conversation(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend)
        for owner in ("u1", "u2"):
            conversation = store.create(owner=owner)
            conversation["a"] = 1
            conversation.save()
        primary.away = True
        assert store.get(conversation.id, owner="u2").degraded
        for id in (conversation.id, new_id()):  # another owner's looks like one that is absent
            for find in (store.get, store.peek, store.open):
                with pytest.raises(BackendUnavailable):
                    find(id, owner="u1")
        with pytest.raises(ConversationNotFound):
            store.get(new_id(), owner=None)
        with pytest.raises(BackendUnavailable):
            asyncio.run(store.aget(new_id(), owner="u1"))

    def test_cycle_id_is_refused_in_an_outage(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*[b'{"role":"user","content":1}'] * 80))
        store = ConversationStore(backend)
        conversation = store.get("a")  # its window is 50
        primary.away = True
        with pytest.raises(BackendUnavailable, match="new id"):
            conversation.cycle_id()
        assert conversation.id == "a"
        whole = store.create()
        whole["a"] = 1
        whole.save()
        with pytest.raises(BackendUnavailable, match="new id"):
            whole.cycle_id()  # what its client has said to another process is not known here

    @pytest.mark.usefixtures("quick")
    def test_a_conversation_loaded_in_an_outage_can_be_saved_after_it(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        """That nothing was known of it does not make it gone."""
        store = ConversationStore(backend)
        primary.away = True
        conversation = store.get("a")
        primary.away = False
        wait_until(lambda: not backend.health().using_fallback)
        conversation.incr("n")
        conversation.save()
        assert not conversation.degraded
        assert record_of(primary, "a").state == {"n": b"1"}

    def test_a_conversation_is_degraded_until_it_is_replayed(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend)
        conversation = store.create()
        conversation["a"] = 1
        conversation.save()
        assert not conversation.degraded
        primary.away = True
        conversation["a"] = 2
        conversation.save()
        assert conversation.degraded
        assert not conversation.is_new
        primary.away = False
        assert store.get(conversation.id).degraded, "it is not replayed yet"
        backend.close()
        conversation.reload()
        assert (conversation["a"], conversation.degraded) == (2, False)


def test_stores_of_tenants_are_apart_in_an_outage(server: Server, settings: Any) -> None:
    entry = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}",
        "OPTIONS": PATIENT,
    }
    settings.CACHES = {**settings.CACHES, "own": entry}
    acme, zenith = (
        ConversationStore("redis", cache_alias="own", key_prefix=tenant)
        for tenant in ("acme", "zenith")
    )
    conversation = acme.create()
    conversation.messages.append("user", "of acme")
    conversation.save()
    assert not zenith.exists(conversation.id)
    server.kill()
    assert len(acme.get(conversation.id).messages) == 1
    assert len(zenith.get(conversation.id).messages) == 0
    for store in (acme, zenith):
        store.backend.close()


async def test_async_methods_work_through_an_outage(
    primary: Switched, backend: FailoverBackend
) -> None:
    await backend.acommit("a", append(b"1"))
    primary.away = True
    record = await backend.aload("a", 5)
    assert record is not None
    assert (record.degraded, bodies(record.messages)) == (True, [b"1"])
    assert (await backend.acommit("a", append(b"2"))).degraded
    assert bodies(await backend.aread_messages("a", 0, 2)) == [b"1", b"2"]
    assert await backend.aexists("a")
    assert await backend.atouch("a", 60.0)
    await backend.acommit("b", append(b"1"))
    assert await backend.adelete("b")
    assert (await backend.ahealth()).pending_replay == 3
    primary.away = False
    await backend.aclose()
    assert messages_of(primary, "a") == [b"1", b"2"]
    assert record_of(primary, "a").ttl == 60
    assert not primary.exists("b")
    peeked = await backend.apeek("a", 5)
    assert peeked is not None
    assert not peeked.degraded


def test_reads_go_to_the_primary_while_only_writes_are_refused(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.commit("a", append(*numbers(0, 20), ttl=DEFAULT_TTL))
    primary.read_only = True
    backend.commit("b", append(b"1"))
    record = backend.load("a", 50)
    assert record is not None
    assert (record.degraded, bodies(record.messages)) == (True, numbers(0, 20))
    assert bodies(backend.read_messages("a", 0, 2)) == numbers(0, 2)
    assert backend.exists("a")
    assert not backend.exists("c")


def test_the_breaker_opens_after_three_transient_failures_in_a_row(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.away = primary.slow = True
    for _ in range(2):
        backend.load("a", 5)
        assert backend.health().since is None
    primary.away = False
    assert backend.load("a", 5) is None
    primary.away = True
    for number in range(3):
        assert backend.health().since is None, number
        backend.load("a", 5)
    wait_until(lambda: backend.health().since)


def test_data_errors_do_not_open_the_breaker(primary: Switched, backend: FailoverBackend) -> None:
    backend.commit("a", Change(set={"n": b'"text"'}))
    for _ in range(10):
        with pytest.raises(Exception, match="integer"):
            backend.commit("a", Change(increment={"n": 1}))
    assert not backend.health().using_fallback
