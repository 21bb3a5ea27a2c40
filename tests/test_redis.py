"""What only the redis backend promises, on real servers: round trips, keys, connections, and what
becomes of a conversation when a server or a connection misbehaves."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from django_convstate import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationNotFound,
    ConversationStore,
    InvalidBackend,
    get_backend,
)
from django_convstate.backends.base import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.checks import check_place, check_server
from django_convstate.ids import new_id
from tests.chaos.proxy import Proxy
from tests.servers import (
    SERVICE,
    Server,
    cluster_setup,
    free_ports,
    running,
    sentinel_setup,
    wait_until,
)
from tests.settings import PATIENT

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that this test may do anything to."""
    server = Server(tmp_path, free_ports(1)[0], "--appendonly", "yes", "--appendfsync", "always")
    with running([server]):
        yield server


def on(settings: Any, url: str, *, patient: bool = True, **options: Any) -> RedisBackend:
    """A backend on a server of the test's own; patient, but where time is what is tested."""
    options = {**(PATIENT if patient else {}), **options}
    entry = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "OPTIONS": options}
    settings.CACHES = {**settings.CACHES, "own": entry}
    return RedisBackend(cache_alias="own")


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

    def test_an_append_takes_one(self, backend: RedisBackend) -> None:
        backend.commit("telegram:1", Change(append=[b"{}"]))
        use = lambda: backend.commit("telegram:1", Change(append=[b"{}"]))  # noqa: E731
        assert self.commands_of(use) == ["EVALSHA"]

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
        backend.commit(id, Change(owner=owner, ttl=1.0, append=[b"{}"]))
        index = backend._operations.index_key(owner)
        first = raw().zscore(index, id)
        for _ in range(4):
            time.sleep(0.6)
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
            started = time.monotonic()
            with pytest.raises(ConversationCorrupt):
                backend.load(id, 1)
            assert time.monotonic() - started < 1
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

    @pytest.mark.parametrize(
        ("breaks", "mends", "words"),
        [
            (
                lambda c: c.config_set("maxmemory", 1),
                lambda c: c.config_set("maxmemory", 0),
                "out of memory",
            ),
            (lambda c: c.replicaof("127.0.0.1", 1), lambda c: c.replicaof("NO", "ONE"), "replica"),
            (
                lambda c: c.config_set("min-replicas-to-write", 1),
                lambda c: c.config_set("min-replicas-to-write", 0),
                "replicas",
            ),
        ],
        ids=["OOM", "READONLY", "NOREPLICAS"],
    )
    def test_where_only_writes_are_refused_reads_go_on(
        self, settings: Any, server: Server, breaks: Any, mends: Any, words: str
    ) -> None:
        backend, id = on(settings, f"redis://127.0.0.1:{server.port}/0"), new_id()
        backend.commit(id, Change(append=[b"{}"]))
        with server.client() as client:
            breaks(client)
            with pytest.raises(BackendUnavailable, match=words):
                backend.commit(id, Change(append=[b"{}"]))
            assert backend.load(id, 1) is not None
            mends(client)
        backend.commit(id, Change(append=[b"{}"]))
        assert len(appended(backend, id)) == 2
        backend.close()

    @pytest.mark.parametrize(
        ("rules", "words"),
        [
            (["on", ">right", "~convstate:*", "+@all"], None),
            (["on", ">wrong", "~convstate:*", "+@all"], "password"),
            (["on", ">right", "~convstate:*", "+ping", "+hello", "+client|setinfo"], "NOPERM"),
            (["on", ">right", "~elsewhere:*", "+@all"], "NOPERM"),
        ],
    )
    def test_who_may_do_what(
        self, settings: Any, server: Server, rules: list[str], words: str | None
    ) -> None:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "chat", "reset", *rules)
        backend = on(
            settings, f"redis://127.0.0.1:{server.port}/0", USERNAME="chat", PASSWORD="right"
        )
        if words is None:
            backend.commit("a", Change(append=[b"{}"]))
        else:
            with server.client() as client:
                before = client.info("stats")["total_connections_received"]
                with pytest.raises(BackendUnavailable, match=words) as caught:
                    backend.commit("a", Change(append=[b"{}"]))
                after = client.info("stats")["total_connections_received"]
            assert "right" not in f"{caught.value} {caught.value.__cause__}"
            assert after - before <= 1, "no is no: it is not tried again"
        backend.close()

    def test_too_many_clients(self, settings: Any, server: Server) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        with server.client() as client:
            client.config_set("maxclients", 1)
            with pytest.raises(BackendUnavailable, match="maxclients"):
                backend.load("a", 1)
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
            backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0", patient=False)
            backend.exists("a")
            proxy.silent = True
            started = time.monotonic()
            with pytest.raises(BackendUnavailable, match="in time"):
                backend.exists("a")
            assert time.monotonic() - started < 0.4
            proxy.silent = False
            assert backend.exists("a") is False
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

    def test_ten_thousand_conversations_through_fifty_connections(
        self, settings: Any, server: Server
    ) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")

        async def visit() -> int:
            ids = [new_id() for _ in range(10_000)]
            await asyncio.gather(*(backend.acommit(id, Change(append=[id.encode()])) for id in ids))
            loaded = await asyncio.gather(*(backend.aload(id, 1) for id in ids))
            assert [record and record.messages for record in loaded] == [[i.encode()] for i in ids]
            with server.client() as client:
                connections = len(client.client_list())
            await backend.aclose()
            return connections

        assert asyncio.run(visit()) <= 51

    def test_a_cancelled_task_leaves_no_reply_to_others(
        self, settings: Any, server: Server
    ) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        total = 100_000

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

    def test_a_fork_shares_no_socket(self, server: Server) -> None:
        script = """
import os, sys, django
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django_redis.cache.RedisCache", "LOCATION": sys.argv[1]}})
django.setup()
from django_convstate.backends.base import Change
from django_convstate.backends.redis.backend import RedisBackend
backend = RedisBackend()
backend.commit("parent", Change(append=[b"0"]))
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        for number in range(300):
            id = f"child{child}"
            backend.commit(id, Change(append=[b"%d" % number]))
            record = backend.load(id, 1)
            assert (record.id, record.messages) == (id, [b"%d" % number])
        os._exit(0)
    children.append(pid)
for number in range(300):
    assert backend.load("parent", 1).id == "parent"
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""
        url = f"redis://127.0.0.1:{server.port}/0"
        subprocess.run([sys.executable, "-c", script, url], check=True, timeout=60)


class TestSentinel:
    def test_a_failover_under_load(self, tmp_path: Path, settings: Any) -> None:
        with sentinel_setup(tmp_path, free_ports(3)) as (primary, _, sentinel):
            backend = on(
                settings,
                f"redis://{SERVICE}/0",
                CLIENT_CLASS="django_redis.client.SentinelClient",
                CONNECTION_FACTORY="django_redis.pool.SentinelConnectionFactory",
                SENTINELS=[("127.0.0.1", sentinel.port)],
            )
            id = new_id()
            backend.commit(id, Change(ttl=600.0, append=[b"before"]))
            with primary.client() as client:
                client.wait(1, 1000)
            primary.kill()
            started = time.monotonic()

            def comes_back() -> bool:
                try:
                    backend.commit(id, change)
                except BackendUnavailable:
                    return False
                return True

            change = Change(append=[b"after"])
            wait_until(comes_back)
            assert time.monotonic() - started < 10
            assert appended(backend, id) == [b"before", b"after"]
            backend.close()


class TestCluster:
    def test_keys_spread_over_the_nodes(self, cluster: list[Server]) -> None:
        backend = get_backend("redis", cache_alias="cluster")
        ids = [new_id() for _ in range(3000)]
        for id in ids:
            backend.commit(id, Change(append=[b"{}"]))
        counts = []
        for node in cluster[:3]:
            with node.client() as client:
                counts.append(client.dbsize())
        assert max(counts) / min(counts) < 1.2
        backend.purge(everything=True)
        backend.close()

    def test_the_cache_shares_the_entry(self, cluster: list[Server]) -> None:
        cache = caches["cluster"]
        cache.set("key", "value")
        assert cache.get("key") == "value"
        cache.delete("key")
        cache.close()

    def test_a_node_dies_under_load(self, tmp_path: Path, settings: Any) -> None:
        """Slots of other nodes go on; those of the dead one come back with its replica."""
        with cluster_setup(tmp_path, free_ports(6)) as nodes:
            factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
            url = f"redis://127.0.0.1:{nodes[1].port}"
            backend = on(settings, url, CONNECTION_FACTORY=factory)
            ids = [new_id() for _ in range(30)]
            written: dict[str, list[bytes]] = {id: [] for id in ids}
            stop = threading.Event()

            def write(id: str) -> None:
                while not stop.is_set():
                    message = b"%d" % len(written[id])
                    change = Change(ttl=600.0, append=[message])
                    while not stop.is_set():
                        try:
                            backend.commit(id, change)
                            written[id].append(message)
                            break
                        except BackendUnavailable:
                            time.sleep(0.02)
                    time.sleep(0.01)

            with ThreadPoolExecutor(30) as pool:
                writing = [pool.submit(write, id) for id in ids]
                try:
                    time.sleep(1)
                    before = {id: len(written[id]) for id in ids}
                    nodes[0].kill()
                    time.sleep(1)
                    alive = [id for id in ids if len(written[id]) > before[id] + 5]
                    assert len(alive) > 10, "two thirds of the slots have nothing to do with it"
                    wait_until(lambda: all(len(written[id]) > before[id] + 50 for id in ids))
                finally:
                    stop.set()
                    nodes_gone = [future.exception(timeout=30) for future in writing]
            assert nodes_gone == [None] * 30
            for id in ids:
                stored = backend.read_messages(id, 0, 10**6)
                assert len(stored) == len(set(stored)), "none is there twice"
                # Replication is asynchronous: what the dead node alone had is gone with it.
                assert len(set(written[id]) - set(stored)) <= 2
            backend.close()

    def test_a_slot_is_moved_under_load(self, cluster: list[Server]) -> None:
        backend, id = get_backend("redis", cache_alias="cluster", fallback=None), new_id()
        backend.commit(id, Change(ttl=600.0, append=[b"0"]))
        clients = [node.client() for node in cluster[:3]]
        node_ids = [c.execute_command("CLUSTER", "MYID").decode() for c in clients]
        slot = clients[0].execute_command("CLUSTER", "KEYSLOT", id)
        source = next(
            n
            for n, c in enumerate(clients)
            if c.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
        )
        target = (source + 1) % 3
        stop, written = threading.Event(), [b"0"]

        def write() -> None:
            while not stop.is_set():
                change = Change(append=[b"%d" % len(written)])
                while True:
                    try:
                        backend.commit(id, change)
                        break
                    except BackendUnavailable:
                        time.sleep(0.01)
                written.append(b"%d" % len(written))

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            time.sleep(0.2)
            setslot = ("CLUSTER", "SETSLOT", slot)
            clients[target].execute_command(*setslot, "IMPORTING", node_ids[source])
            clients[source].execute_command(*setslot, "MIGRATING", node_ids[target])
            time.sleep(0.1)
            keys = clients[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            port = cluster[target].port
            clients[source].execute_command(
                "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys
            )
            time.sleep(0.1)
            for client in (clients[target], clients[source], clients[3 - source - target]):
                client.execute_command(*setslot, "NODE", node_ids[target])
            time.sleep(0.3)
            stop.set()
            writing.result(timeout=30)
        assert backend.read_messages(id, 0, 10**6) == written
        assert len(written) > 10
        for client in clients:
            client.close()
        backend.close()


class TestChecks:
    def ids(self, settings: Any, **entry: Any) -> list[str]:
        settings.CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "redis://127.0.0.1:6379/0",
                **entry,
            }
        }
        return [str(message.id) for message in check_place("default")]

    def test_places(self, settings: Any) -> None:
        timeout = {"SOCKET_TIMEOUT": 1}
        factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
        sentinels = {"SENTINELS": [("127.0.0.1", 1)]}
        assert self.ids(settings, OPTIONS=timeout) == []
        assert self.ids(settings) == ["convstate.W003"]
        assert self.ids(settings, BACKEND="django.core.cache.backends.redis.RedisCache") == [
            "convstate.E009"
        ]
        for url in ("127.0.0.1:6379", "", "http://x", "redis://x:notaport/0", "redis://x:99999/0"):
            assert "convstate.E010" in self.ids(settings, LOCATION=url, OPTIONS=timeout), url
        assert self.ids(settings, LOCATION="redis:///0", OPTIONS={**timeout, **sentinels}) == [
            "convstate.E011"
        ]
        cluster = {**timeout, "CONNECTION_FACTORY": factory}
        assert self.ids(settings, OPTIONS=cluster) == []
        assert self.ids(settings, LOCATION="redis://x/1", OPTIONS=cluster) == ["convstate.E012"]
        assert self.ids(settings, OPTIONS={**cluster, **sentinels}) == ["convstate.E013"]
        assert self.ids(settings, OPTIONS={"CONNECTION_FACTORY": "no.such.Factory"}) == [
            "convstate.E010"
        ]
        assert [str(m.id) for m in check_place("nowhere")] == ["convstate.E004"]

    def test_a_missing_alias_at_run_time(self) -> None:
        with pytest.raises(InvalidBackend, match="nowhere"):
            RedisBackend(cache_alias="nowhere").exists("a")

    def test_servers(self, settings: Any, server: Server) -> None:
        on(settings, f"redis://127.0.0.1:{server.port}/0")

        def ids() -> set[str]:
            return {str(message.id) for message in check_server("own")}

        assert ids() == {"convstate.W006"}
        with server.client() as client:
            client.config_set("maxmemory", 10**9)
            assert ids() == set()
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert ids() == {"convstate.W005"}
            client.config_set("maxmemory-policy", "noeviction")
            client.replicaof("127.0.0.1", 1)
            assert ids() == {"convstate.E015"}
        server.kill()
        assert ids() == {"convstate.W004"}

    def test_a_server_that_keeps_info_to_itself(self, settings: Any, server: Server) -> None:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-info", "-config")
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        assert list(check_server("own")) == []
        health = backend.health()
        assert health.connected
        assert "unknown" in health.detail
        backend.close()


def test_health_tells(backend: RedisBackend) -> None:
    detail = backend.health().detail
    for part in ("role master", "noeviction", "version 9.1"):
        assert part in detail
    assert asyncio.run(backend.ahealth()).detail


def test_the_setting_finds_it(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    store = ConversationStore()
    conversation = store.create()
    conversation["a"] = [1]
    conversation.save()
    assert store.get(conversation.id)["a"] == [1]
    store.close()
