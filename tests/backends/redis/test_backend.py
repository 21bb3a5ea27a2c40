"""What only the redis backend promises, on real servers: round trips, keys, connections, and what
becomes of a conversation when a server or a connection goes and comes back."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches

from django_convstate import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationNotFound,
    ConversationStore,
)
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.chaos.proxy import Proxy
from tests.conftest import on
from tests.support.ruler import Stopwatch, limit
from tests.support.servers import Server, wait_until

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


def raw() -> Any:
    client: Any = caches["django_redis"]
    return client.client.get_client()


def plant_messages(backend: RedisBackend, key: str) -> None:
    """Put something else in the place of a conversation's messages."""
    id = key.split("{")[1].split("}")[0]
    backend.commit(id, Change(set={"a": b"1"}))
    raw().set(key, "no list")


def appended(backend: RedisBackend, id: str) -> list[bytes]:
    return backend.read_messages(id, 0, 10_000)


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

    def test_a_turn_takes_two(self, backend: RedisBackend) -> None:
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

    def test_a_turn_of_a_task_takes_two(self, backend: RedisBackend) -> None:
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

    def test_a_first_turn_tells_the_index_and_that_it_is_told(self, backend: RedisBackend) -> None:
        store = ConversationStore(backend)

        def first() -> None:
            conversation = store.create(owner="u1")
            conversation.messages.append("user", "hello")
            conversation.save()

        assert self.commands_of(first) == ["EVALSHA", "EVALSHA", "EVALSHA"]

    def test_one_turn_at_a_time_takes_one_more(self, backend: RedisBackend) -> None:
        store = ConversationStore(backend)

        def turn() -> None:
            conversation = store.open("telegram:1")
            with conversation.turn():
                conversation.messages.append("user", "hello")
                conversation.messages.append("assistant", "hi")

        assert self.commands_of(turn) == ["EVALSHA", "EVALSHA", "EVALSHA"]

    def test_an_append_takes_one(self, backend: RedisBackend) -> None:
        backend.commit("telegram:1", Change(append=[b"{}"]))
        use = lambda: backend.commit("telegram:1", Change(append=[b"{}"]))  # noqa: E731
        assert self.commands_of(use) == ["EVALSHA"]

    def test_a_listing_takes_one_for_a_hundred(self, settings: Any, server: Server) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        for number in range(250):
            backend.commit(f"c{number}", Change(owner="u1", append=[b"{}"]))
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

    def test_the_wire_carries_the_window_and_no_more(self, settings: Any, server: Server) -> None:
        carried = []
        for count in (20, 2_000, 20_000):
            with Proxy(server.port) as proxy:
                backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0")
                id = new_id()
                message = b'{"role":"user","content":"%s"}' % (b"x" * 200)
                backend.commit(id, Change(append=[message] * count))
                backend.load(id, 20)  # so that the server knows the script
                before = proxy.carried
                backend.load(id, 20)
                carried.append(proxy.carried - before)
                backend.close()
        assert max(carried) - min(carried) <= 8  # digits of the count


class TestKeys:
    def test_each_has_a_ttl_and_one_hash_tag(self, backend: RedisBackend) -> None:
        id = new_id()
        backend.commit(id, Change(ttl=100.0, owner=f"u-{id}", set={"a": b"1"}, append=[b"{}"]))
        keys = [key.decode() for key in raw().keys(f"*{id}*")]
        assert sorted(keys) == [
            f"convstate:{{{id}}}:{part}" for part in ("messages", "meta", "state")
        ]
        assert all(98_000 < raw().pttl(key) <= 100_000 for key in keys)
        everything = raw().keys("convstate:*")
        assert all(raw().pttl(key) > 0 for key in everything)

    def test_two_prefixes_are_two_worlds(self) -> None:
        first, second = (
            RedisBackend(cache_alias="django_redis", key_prefix=name) for name in ("one", "two")
        )
        first.commit("a", Change(append=[b"{}"]))
        assert not second.exists("a")
        first.close()
        second.close()

    def test_an_index_survives_its_members(self, backend: RedisBackend) -> None:
        owner = new_id()
        short, long = new_id(), new_id()
        backend.commit(long, Change(owner=owner, ttl=60.0, append=[b"{}"]))
        backend.commit(short, Change(owner=owner, ttl=1.0, append=[b"{}"]))
        assert {summary.id for summary in backend.scan(owner)} == {short, long}
        time.sleep(1.1)
        assert [summary.id for summary in backend.scan(owner)] == [long]
        index = backend._operations.index_key(owner)
        assert raw().zrange(index, 0, -1) == [long.encode()], "what is left over is cleaned up"
        assert raw().pttl(index) > 60_000

    def test_an_index_stays_while_its_members_are_visited(self, backend: RedisBackend) -> None:
        owner, id = new_id(), new_id()
        backend.commit(id, Change(owner=owner, ttl=2.0, append=[b"{}"]))
        index = backend._operations.index_key(owner)
        first = raw().zscore(index, id)
        for _ in range(3):
            time.sleep(0.8)
            assert backend.load(id, 1) is not None
        assert raw().zscore(index, id) > first + 1000

    def test_a_deleted_one_leaves_its_index(self, backend: RedisBackend) -> None:
        owner, id = new_id(), new_id()
        backend.commit(id, Change(owner=owner, append=[b"{}"]))
        backend.delete(id)
        assert raw().exists(backend._operations.index_key(owner)) == 0

    def test_a_wrong_type_is_set_aside(self, backend: RedisBackend) -> None:
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
            backend.commit(id, Change(append=[b"{}"]))
            assert appended(backend, id) == [b"{}"]
            raw().delete(f"{key}:corrupt")

    def test_a_commit_onto_something_else_is_refused(self, backend: RedisBackend) -> None:
        id = new_id()
        raw().set(f"convstate:{{{id}}}:meta", "somebody else's", ex=60)
        with pytest.raises(ConversationCorrupt):
            backend.commit(id, Change(append=[b"{}"]))
        assert raw().get(f"convstate:{{{id}}}:meta:corrupt") == b"somebody else's"


class TestServer:
    def test_a_forgotten_script_is_healed(self, backend: RedisBackend) -> None:
        backend.commit("healed", Change(append=[b"{}"]))
        raw().script_flush()
        assert backend.load("healed", 1) is not None
        raw().script_flush()

        async def visit() -> None:
            assert await backend.aload("healed", 1) is not None

        asyncio.run(visit())

    def test_flushall_is_an_absence_and_no_error(self, settings: Any, server: Server) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        store = ConversationStore(backend)
        conversation = store.create()
        conversation["a"] = 1
        conversation.save()
        with server.client() as client:
            client.flushall()
        with pytest.raises(ConversationNotFound):
            store.get(conversation.id)
        backend.close()

    def test_a_restart_costs_no_error_and_loses_nothing(
        self, settings: Any, server: Server
    ) -> None:
        backend, id = on(settings, f"redis://127.0.0.1:{server.port}/0"), new_id()
        with ThreadPoolExecutor(8) as pool:  # so that the pool holds several connections
            list(pool.map(lambda n: backend.commit(id, Change(append=[b"%d" % n])), range(100)))
        server.kill()
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            backend.load(id, 1)
        server.start()
        backend.commit(id, Change(append=[b"100"]))
        assert sorted(map(int, appended(backend, id))) == list(range(101))
        backend.close()

    def test_killed_and_started_in_mid_run(self, settings: Any, server: Server) -> None:
        """Every acknowledged message is there once and in its writer's order."""
        backend, id = on(settings, f"redis://127.0.0.1:{server.port}/0"), new_id()
        stop = threading.Event()

        def write(writer: int) -> list[bytes]:
            acknowledged: list[bytes] = []
            while not stop.is_set():
                message = b"[%d,%d]" % (writer, len(acknowledged))
                change = Change(ttl=600.0, append=[message])
                while True:
                    try:
                        backend.commit(id, change)
                        break
                    except BackendUnavailable:
                        time.sleep(0.005)
                acknowledged.append(message)
                time.sleep(0.001)
            return acknowledged

        with ThreadPoolExecutor(4) as pool:
            written = [pool.submit(write, writer) for writer in range(4)]
            for _ in range(3):
                time.sleep(0.5)
                server.kill()
                time.sleep(0.2)
                server.start()
            stop.set()
            acknowledged = [future.result() for future in written]
        stored = backend.read_messages(id, 0, 1_000_000)
        for writer, mine in enumerate(acknowledged):
            assert [m for m in stored if m.startswith(b"[%d," % writer)] == mine
        backend.close()


class TestConnections:
    def test_a_lost_reply_leaves_one_copy(self, settings: Any, server: Server) -> None:
        with Proxy(server.port) as proxy:
            backend, id = on(settings, f"redis://127.0.0.1:{proxy.port}/0"), new_id()
            backend.commit(id, Change(append=[b"0"]))
            for number in range(1, 20):
                proxy.lose_next_reply()
                backend.commit(id, Change(append=[b"%d" % number]))
            assert appended(backend, id) == [b"%d" % number for number in range(20)]
            assert proxy.lost == 19
            backend.close()

    def test_a_lost_reply_in_the_event_loop(self, settings: Any, server: Server) -> None:
        async def visit(backend: RedisBackend, id: str, proxy: Proxy) -> None:
            for number in range(20):
                if number:
                    proxy.lose_next_reply()
                await backend.acommit(id, Change(append=[b"%d" % number]))
            await backend.aclose()

        with Proxy(server.port) as proxy:
            backend, id = on(settings, f"redis://127.0.0.1:{proxy.port}/0"), new_id()
            asyncio.run(visit(backend, id, proxy))
            assert appended(backend, id) == [b"%d" % number for number in range(20)]
            backend.close()

    def test_a_silent_server_is_given_up_in_time(self, settings: Any, server: Server) -> None:
        with Proxy(server.port) as proxy:
            within = limit(0.25)
            backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0", within=within)
            backend.exists("a")
            proxy.silent = True
            with Stopwatch() as watch, pytest.raises(BackendUnavailable, match="in time"):
                backend.exists("a")
            assert watch.seconds < 1.6 * within
            proxy.silent = False
            assert backend.exists("a") is False
            backend.close()

    def test_a_server_that_falls_silent_in_the_event_loop(
        self, settings: Any, server: Server
    ) -> None:
        async def ask(backend: RedisBackend, proxy: Proxy) -> None:
            await backend.aexists("a")
            proxy.silent = True
            async with asyncio.timeout(60):
                assert "in time" in (await backend.ahealth()).detail
                with pytest.raises(BackendUnavailable, match="in time"):
                    await backend.aload("a", 1)
            proxy.silent = False
            await backend.aclose()

        with Proxy(server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            backend = on(settings, url, within=limit(0.25))
            asyncio.run(ask(backend, proxy))
            backend.close()

    def test_fifty_event_loops_leave_no_connection(self, settings: Any, server: Server) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")

        async def visit() -> None:
            await backend.aexists("a")

        for _ in range(50):
            asyncio.run(visit())
        with server.client() as client:
            wait_until(lambda: len(client.client_list()) == 1)
        gc.collect()  # and none is left for the collector to complain of

    def test_threads_share_a_bounded_pool(self, settings: Any, server: Server) -> None:
        backend = on(
            settings,
            f"redis://127.0.0.1:{server.port}/0",
            CONNECTION_POOL_KWARGS={"max_connections": 5},
        )
        with ThreadPoolExecutor(50) as pool:
            list(pool.map(lambda n: backend.exists(f"a{n}"), range(500)))
            with server.client() as client:
                assert len(client.client_list()) <= 6
        backend.close()

    @pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
    def test_thousands_of_conversations_go_through_fifty_connections(
        self, settings: Any, server: Server, count: int
    ) -> None:
        # As all come at once, the last one waits until all others have been served.
        patience: dict[str, Any] = {"SOCKET_TIMEOUT": 300, "SOCKET_CONNECT_TIMEOUT": 300}
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0", **patience)

        async def visit() -> int:
            ids = [new_id() for _ in range(count)]
            await asyncio.gather(*(backend.acommit(id, Change(append=[id.encode()])) for id in ids))
            loaded = await asyncio.gather(*(backend.aload(id, 1) for id in ids))
            assert [record and record.messages for record in loaded] == [[i.encode()] for i in ids]
            with server.client() as client:
                connections = len(client.client_list())
            await backend.aclose()
            return connections

        assert asyncio.run(visit()) <= 51

    @pytest.mark.parametrize("total", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
    def test_a_cancelled_task_leaves_no_reply_to_others(
        self, settings: Any, server: Server, total: int
    ) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")

        async def visit() -> int:
            ids = [f"c{number}" for number in range(100)]
            for id in ids:
                await backend.acommit(id, Change(append=[id.encode()]))

            async def look(number: int) -> bool:
                id = ids[number % 100]
                record = await backend.aload(id, 1)
                assert record is not None
                assert (record.id, record.messages) == (id, [id.encode()])
                return True

            cancelled = 0
            for start in range(0, total, 200):
                tasks = [asyncio.create_task(look(n)) for n in range(start, start + 200)]
                await asyncio.sleep(0.0005 * (start % 7))
                for task in tasks[::2]:
                    cancelled += task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                wrong = [
                    r
                    for r in results
                    if r is not True and not isinstance(r, asyncio.CancelledError)
                ]
                assert wrong == []
            # None is stuck: as many at once as ever get through.
            assert all(await asyncio.gather(*(look(n) for n in range(200))))
            await backend.aclose()
            return cancelled

        assert asyncio.run(visit()) > total / 10

    @pytest.mark.parametrize("count", [50, pytest.param(300, marks=pytest.mark.slow)])
    def test_a_fork_shares_no_socket(self, server: Server, count: int) -> None:
        script = """
import os, sys, django
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django_redis.cache.RedisCache", "LOCATION": sys.argv[1]}})
django.setup()
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
backend, count = RedisBackend(), int(sys.argv[2])
backend.commit("parent", Change(append=[b"0"]))
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        for number in range(count):
            id = f"child{child}"
            backend.commit(id, Change(append=[b"%d" % number]))
            record = backend.load(id, 1)
            assert (record.id, record.messages) == (id, [b"%d" % number])
        os._exit(0)
    children.append(pid)
for number in range(count):
    assert backend.load("parent", 1).id == "parent"
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""
        url = f"redis://127.0.0.1:{server.port}/0"
        subprocess.run([sys.executable, "-c", script, url, str(count)], check=True, timeout=60)

    def test_a_fork_that_keeps_its_event_loop_shares_no_socket(self, server: Server) -> None:
        script = """
import asyncio, os, sys, django
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django_redis.cache.RedisCache", "LOCATION": sys.argv[1],
    "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5}}})
django.setup()
from django_convstate.backends.redis.backend import RedisBackend
backend, loop = RedisBackend(), asyncio.new_event_loop()
assert not loop.run_until_complete(backend.aexists("a"))
child = os.fork()
assert not child or os.waitpid(child, 0)[1] == 0
if not child:
    assert not loop.run_until_complete(backend.aexists("a"))
os._exit(0)
"""

        def connections() -> int:
            with server.client() as client:
                return int(client.info("stats")["total_connections_received"])

        before = connections()
        url = f"redis://127.0.0.1:{server.port}/0"
        subprocess.run([sys.executable, "-c", script, url], check=True, timeout=60)
        assert connections() - before == 3  # the parent's, the child's, and the last one to ask


def test_health_tells(settings: Any, server: Server) -> None:
    backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
    backend.commit("a", Change(set={"a": b"1"}, append=[b"{}"]))
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


def test_the_setting_finds_it(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    store = ConversationStore()
    conversation = store.create()
    conversation["a"] = [1]
    conversation.save()
    assert store.get(conversation.id)["a"] == [1]
    store.close()
