"""What only the redis backend promises, on real servers: round trips, keys, connections, and what
becomes of a conversation when a server or a connection goes and comes back."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from django_convstate import (
    ConversationCorrupt,
    ConversationStore,
)
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.chaos.proxy import Proxy
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.redis import index_of, key_of, raw
from tests.support.ruler import Stopwatch
from tests.support.servers import Server, wait_until

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


def plant_messages(backend: RedisBackend, key: str) -> None:
    """Put something else in the place of a conversation's messages."""
    id = key.split("{")[1].split("}")[0]
    backend.commit(id, Change(set={"a": b"1"}))
    raw().set(key, "no list")


def appended(backend: RedisBackend, id: str) -> list[bytes]:
    return bodies(backend.read_messages(id, 0, 10_000))


class TestRoundTrips:
    def commands_of(self, use: Any) -> list[str]:
        """Return the commands that reach the server while `use` runs, without those of scripts."""
        client = raw()
        seen: list[str] = []
        use()  # so that it is connected, and the server knows the scripts
        with client.monitor() as monitor:
            use()
            client.echo("the end")
            for command in monitor.listen():
                if command["command"].startswith("ECHO"):
                    return seen
                name = command["command"].split()[0]
                # HELLO and CLIENT introduce a new connection, here that of the echo.
                if command["client_type"] != "lua" and name not in ("HELLO", "CLIENT"):
                    seen.append(name)
        return seen

    def test_a_load_and_a_save_take_two_commands(self, backend: RedisBackend) -> None:
        store = ConversationStore(backend)
        conversation = store.create(owner="u1")
        conversation.messages.append("user", "hello")
        conversation.save()

        def turn() -> None:
            known = store.get(conversation.id)
            known.messages.window(20)
            known["lastQuery"] = "text"
            known.incr("turns")
            known.messages.append("user", "hello")
            known.messages.append("assistant", "hi")
            known.save()

        assert self.commands_of(turn) == ["EVALSHA", "EVALSHA"]

    def test_an_async_load_and_save_take_two_commands(self, backend: RedisBackend) -> None:
        store = ConversationStore(backend)

        async def begin() -> str:
            conversation = store.create(owner="u1")
            conversation.messages.append("user", "hello")
            await conversation.asave()
            return conversation.id

        async def turn() -> None:
            known = await store.aget(stored)
            known["lastQuery"] = "text"
            known.incr("turns")
            known.messages.append("user", "hello")
            await known.asave()

        with asyncio.Runner() as runner:
            stored = runner.run(begin())
            assert self.commands_of(lambda: runner.run(turn())) == ["EVALSHA", "EVALSHA"]

    def test_a_first_save_takes_three_commands_with_those_for_the_index(
        self, backend: RedisBackend
    ) -> None:
        store = ConversationStore(backend)

        def first() -> None:
            conversation = store.create(owner="u1")
            conversation.messages.append("user", "hello")
            conversation.save()

        assert self.commands_of(first) == ["EVALSHA", "EVALSHA", "EVALSHA"]

    def test_a_turn_takes_three_commands(self, backend: RedisBackend) -> None:
        store = ConversationStore(backend)

        def turn() -> None:
            conversation = store.open("telegram:1")
            with conversation.turn():
                conversation.messages.append("user", "hello")
                conversation.messages.append("assistant", "hi")

        assert self.commands_of(turn) == ["EVALSHA", "EVALSHA", "EVALSHA"]

    def test_an_append_takes_one_command(self, backend: RedisBackend) -> None:
        backend.commit("telegram:1", Change(append=pairs(b"{}")))
        use = lambda: backend.commit("telegram:1", Change(append=pairs(b"{}")))  # noqa: E731
        assert self.commands_of(use) == ["EVALSHA"]

    def test_a_listing_takes_one_round_trip_for_a_hundred(
        self, settings: Any, server: Server
    ) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        for number in range(250):
            backend.commit(f"c{number}", Change(owner="u1", append=pairs(b"{}")))
        with server.client() as client:
            for use in (
                lambda: list(backend.scan("u1")),
                lambda: list(backend.scan()),
                lambda: backend.purge(Selection(everything=True)),
            ):
                before = client.info("stats")["total_reads_processed"]
                use()
                # A batch may come in several reads.
                assert client.info("stats")["total_reads_processed"] - before < 50
        backend.close()

    def test_a_load_transfers_the_window_and_no_more(self, settings: Any, server: Server) -> None:
        carried = []
        for count in (21, 2_000, 20_000):  # and the first message, which the window does not reach
            with Proxy(server.port) as proxy:
                backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0")
                id = new_id()
                message = b'{"role":"user","content":"%s"}' % (b"x" * 200)
                backend.commit(id, Change(append=pairs(*[message] * count)))
                backend.load(id, 20)  # so that the server knows the script
                before = proxy.carried
                backend.load(id, 20)
                carried.append(proxy.carried - before)
                backend.close()
        assert max(carried) - min(carried) <= 8  # digits of the count


class TestKeys:
    def test_each_key_has_a_ttl_and_one_hash_tag(self, backend: RedisBackend) -> None:
        id = new_id()
        backend.commit(id, Change(ttl=100.0, owner=f"u-{id}", set={"a": b"1"}, append=pairs(b"{}")))
        keys = [key.decode() for key in raw().keys(f"*{id}*")]
        assert sorted(keys) == [
            f"convstate:{{{id}}}:{part}" for part in ("messages", "meta", "state")
        ]
        # The parts live a little longer than the hash that counts them, and are never gone first.
        # Deadlines are compared, because what is left of them depends on the machine.
        deadlines = {key.rpartition(":")[2]: raw().pexpiretime(key) for key in keys}
        counted = deadlines.pop("meta")
        assert abs(counted - 100_000 - int(raw().hget(key_of(id, "meta"), "c"))) < 1_000
        assert set(deadlines.values()) == {counted + 10_500}
        assert raw().pttl(index_of(f"u-{id}")) > 0

    def test_two_key_prefixes_share_nothing(self) -> None:
        first, second = (
            RedisBackend(cache_alias="django_redis", key_prefix=name) for name in ("one", "two")
        )
        first.commit("a", Change(append=pairs(b"{}")))
        assert not second.exists("a")
        first.close()
        second.close()

    def test_an_index_drops_expired_members_and_keeps_others(self, backend: RedisBackend) -> None:
        owner = new_id()
        short, long = new_id(), new_id()
        backend.commit(long, Change(owner=owner, ttl=60.0, append=pairs(b"{}")))
        backend.commit(short, Change(owner=owner, ttl=2.0, append=pairs(b"{}")))
        assert {summary.id for summary in backend.scan(owner)} == {short, long}
        wait_until(lambda: not raw().exists(key_of(short, "meta")))
        assert [summary.id for summary in backend.scan(owner)] == [long]
        index = index_of(owner)
        assert raw().zrange(index, 0, -1) == [long.encode()], "what is left over is cleaned up"
        assert raw().pttl(index) > 60_000

    def test_an_index_is_extended_while_its_members_are_loaded(self, backend: RedisBackend) -> None:
        owner, id = new_id(), new_id()
        backend.commit(id, Change(owner=owner, ttl=2.0, append=pairs(b"{}")))
        index = index_of(owner)
        first = raw().zscore(index, id)

        def is_extended() -> bool:
            assert backend.load(id, 1) is not None
            return bool(raw().zscore(index, id) > first + 1000)

        wait_until(is_extended)

    def test_a_deletion_removes_the_conversation_from_its_index(
        self, backend: RedisBackend
    ) -> None:
        owner, id = new_id(), new_id()
        backend.commit(id, Change(owner=owner, append=pairs(b"{}")))
        backend.delete(id)
        assert raw().exists(index_of(owner)) == 0

    def test_a_key_of_a_wrong_type_is_quarantined(self, backend: RedisBackend) -> None:
        for part, plant in [
            ("meta", lambda key: raw().set(key, "x" * 100_000_000, ex=60)),
            ("meta", lambda key: raw().hset(key, mapping={"v": "text", "id": "x"})),
            ("messages", lambda key: plant_messages(backend, key)),
            ("meta", lambda key: raw().hset(key, mapping={"v": 1, "id": "x", "c": 1, "t": 60_000})),
        ]:
            id = new_id()
            key = f"convstate:{{{id}}}:{part}"
            plant(key)
            with Stopwatch() as watch, pytest.raises(ConversationCorrupt):
                backend.load(id, 1)
            assert watch.seconds < 1
            assert backend.load(id, 1) is None
            assert raw().pttl(f"{key}:corrupt") > 60_000
            backend.commit(id, Change(append=pairs(b"{}")))
            assert appended(backend, id) == [b"{}"]
            raw().delete(f"{key}:corrupt")

    def test_a_commit_onto_a_foreign_value_is_refused(self, backend: RedisBackend) -> None:
        id = new_id()
        raw().set(f"convstate:{{{id}}}:meta", "somebody else's", ex=60)
        with pytest.raises(ConversationCorrupt):
            backend.commit(id, Change(append=pairs(b"{}")))
        assert raw().get(f"convstate:{{{id}}}:meta:corrupt") == b"somebody else's"


def test_health_tells_role_policy_version_and_keys(settings: Any, server: Server) -> None:
    backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
    backend.commit("a", Change(set={"a": b"1"}, append=pairs(b"{}")))
    with server.client() as client:
        client.set("somebody else's", "1")

    async def ask() -> str:
        detail = (await backend.ahealth()).detail
        await backend.aclose()
        return detail

    for detail in (backend.health().detail, asyncio.run(ask())):
        for part in ("role master", "noeviction", "version 9.1", "4 keys in the database"):
            assert part in detail
    backend.close()


def test_the_setting_selects_the_redis_backend(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    store = ConversationStore()
    conversation = store.create()
    conversation["a"] = [1]
    conversation.save()
    assert store.get(conversation.id)["a"] == [1]
    store.close()


def test_one_that_is_older_than_a_lowered_max_age_is_begun_anew(backend: RedisBackend) -> None:
    """It has expired, and the server does not know that yet."""
    id = new_id()
    backend.commit(id, Change(ttl=600.0, append=pairs(b"old")))
    lowered = RedisBackend(cache_alias="django_redis", max_age=0.001)
    wait_until(lambda: lowered.peek(id, 1) is None)
    committed = lowered.commit(id, Change(ttl=600.0, append=pairs(b"new")))
    assert (committed.version, committed.message_count) == (1, 1)
    lowered.close()
