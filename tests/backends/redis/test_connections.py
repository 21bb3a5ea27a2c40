"""What becomes of a conversation when a server or a connection goes and comes back."""

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

from django_convstate import (
    BackendUnavailable,
    ConversationNotFound,
    ConversationStore,
)
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.chaos.proxy import Proxy
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.redis import raw
from tests.support.ruler import Stopwatch, limit
from tests.support.servers import Server, wait_until

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


def appended(backend: RedisBackend, id: str) -> list[bytes]:
    return bodies(backend.read_messages(id, 0, 10_000))


class TestServer:
    def test_scripts_that_the_server_forgot_are_loaded_again(self, backend: RedisBackend) -> None:
        backend.commit("healed", Change(append=pairs(b"{}")))
        raw().script_flush()
        assert backend.load("healed", 1) is not None
        raw().script_flush()

        async def visit() -> None:
            assert await backend.aload("healed", 1) is not None

        asyncio.run(visit())

    def test_conversations_are_absent_after_flushall(self, settings: Any, server: Server) -> None:
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

    def test_a_restart_loses_nothing_and_stale_connections_cost_no_error(
        self, settings: Any, server: Server
    ) -> None:
        backend, id = on(settings, f"redis://127.0.0.1:{server.port}/0"), new_id()
        with ThreadPoolExecutor(8) as pool:  # so that the pool holds several connections
            list(
                pool.map(lambda n: backend.commit(id, Change(append=pairs(b"%d" % n))), range(100))
            )
        server.kill()
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            backend.load(id, 1)
        server.start()
        backend.commit(id, Change(append=pairs(b"100")))
        assert sorted(map(int, appended(backend, id))) == list(range(101))
        backend.close()

    def test_a_server_killed_and_started_under_load_keeps_what_it_acknowledged(
        self, settings: Any, server: Server
    ) -> None:
        """Every acknowledged message is there once and in its writer's order."""
        backend, id = on(settings, f"redis://127.0.0.1:{server.port}/0"), new_id()
        stop = threading.Event()

        def write(writer: int) -> list[bytes]:
            acknowledged: list[bytes] = []
            while not stop.is_set():
                message = b"[%d,%d]" % (writer, len(acknowledged))
                change = Change(ttl=600.0, append=pairs(message))
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
        stored = bodies(backend.read_messages(id, 0, 1_000_000))
        for writer, mine in enumerate(acknowledged):
            assert [m for m in stored if m.startswith(b"[%d," % writer)] == mine
        backend.close()


class TestConnections:
    def test_a_commit_whose_reply_is_lost_is_applied_once(
        self, settings: Any, server: Server
    ) -> None:
        with Proxy(server.port) as proxy:
            backend, id = on(settings, f"redis://127.0.0.1:{proxy.port}/0"), new_id()
            backend.commit(id, Change(append=pairs(b"0")))
            for number in range(1, 20):
                proxy.lose_next_reply()
                backend.commit(id, Change(append=pairs(b"%d" % number)))
            assert appended(backend, id) == [b"%d" % number for number in range(20)]
            assert proxy.lost == 19
            backend.close()

    def test_an_async_commit_whose_reply_is_lost_is_applied_once(
        self, settings: Any, server: Server
    ) -> None:
        async def visit(backend: RedisBackend, id: str, proxy: Proxy) -> None:
            for number in range(20):
                if number:
                    proxy.lose_next_reply()
                await backend.acommit(id, Change(append=pairs(b"%d" % number)))
            await backend.aclose()

        with Proxy(server.port) as proxy:
            backend, id = on(settings, f"redis://127.0.0.1:{proxy.port}/0"), new_id()
            asyncio.run(visit(backend, id, proxy))
            assert appended(backend, id) == [b"%d" % number for number in range(20)]
            backend.close()

    def test_a_silent_server_raises_backend_unavailable_in_time(
        self, settings: Any, server: Server
    ) -> None:
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

    def test_a_silent_server_raises_backend_unavailable_in_async_code(
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

    def test_fifty_event_loops_leave_no_connection_open(
        self, settings: Any, server: Server
    ) -> None:
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
            await asyncio.gather(
                *(backend.acommit(id, Change(append=pairs(id.encode()))) for id in ids)
            )
            loaded = await asyncio.gather(*(backend.aload(id, 1) for id in ids))
            assert [record and bodies(record.messages) for record in loaded] == [
                [i.encode()] for i in ids
            ]
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
                await backend.acommit(id, Change(append=pairs(id.encode())))

            async def look(number: int) -> bool:
                id = ids[number % 100]
                record = await backend.aload(id, 1)
                assert record is not None
                assert (record.id, bodies(record.messages)) == (id, [id.encode()])
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
    "BACKEND": "django_redis.cache.RedisCache", "LOCATION": sys.argv[1],
    "OPTIONS": {"SOCKET_TIMEOUT": 30, "SOCKET_CONNECT_TIMEOUT": 30}}})
django.setup()
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
backend, count = RedisBackend(), int(sys.argv[2])
backend.commit("parent", Change(append=[("m", b"0")]))
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        for number in range(count):
            id = f"child{child}"
            message = str(number), b"%d" % number
            backend.commit(id, Change(append=[message]))
            record = backend.load(id, 1)
            assert (record.id, record.messages) == (id, [message])
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
    "OPTIONS": {"SOCKET_TIMEOUT": 30, "SOCKET_CONNECT_TIMEOUT": 30}}})
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
