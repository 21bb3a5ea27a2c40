"""Connecting where servers are silent, dead or drip: within limits, and to the one that answers."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage

from django_convstate import BackendUnavailable
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.diagnostics.checks import check_server
from tests.support.messages import pairs
from tests.support.places import on
from tests.support.ruler import Stopwatch, limit
from tests.support.servers import SERVICE, Server, free_ports, sentinel_setup, wait_until

CLUSTER = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
DEAD = "redis://127.0.0.1:1"
A_WHILE = 8  # seconds: without a limit it would be for ever


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of a server that says a byte of what never becomes a reply, again and again."""
    stop = threading.Event()
    connections: list[threading.Thread] = []

    def drip(connection: socket.socket) -> None:
        with connection:
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"+")
                except OSError:
                    return

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connections.append(threading.Thread(target=drip, args=(connection,)))
            connections[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            for thread in (accepting, *connections):
                thread.join()


def assert_given_up(use: Callable[[], Any]) -> None:
    with Stopwatch() as watch, pytest.raises(BackendUnavailable):
        use()
    assert watch.seconds < A_WHILE


async def arun(*coroutines: Any) -> list[Any]:
    async with asyncio.timeout(A_WHILE):
        return await asyncio.gather(*coroutines, return_exceptions=True)


class TestCluster:
    def test_a_silent_start_node_is_given_up(
        self, settings: Any, silent: int, cluster: list[Server]
    ) -> None:
        backend = on(
            settings, f"redis://127.0.0.1:{silent}", within=0.25, CONNECTION_FACTORY=CLUSTER
        )

        async def visit() -> None:
            for _ in range(2):
                for answer in await arun(*(backend.aload("a", 1) for _ in range(3))):
                    assert isinstance(answer, BackendUnavailable)
            assert not (await backend.ahealth()).connected
            await backend.aclose()

        asyncio.run(visit())
        assert_given_up(lambda: backend.load("a", 1))

    @pytest.mark.parametrize("as_list", [True, False])
    def test_a_cluster_is_found_through_any_start_node_that_answers(
        self, settings: Any, silent: int, cluster: list[Server], as_list: bool
    ) -> None:
        urls = [DEAD, f"redis://127.0.0.1:{silent}", f"redis://127.0.0.1:{cluster[0].port}"]
        within = limit(1.0)  # of which the silent one may take a part
        for order in (urls, urls[::-1]):
            # Which of them is asked first is left to chance.
            for _ in range(3):
                location: Any = order if as_list else ", ".join(order)
                backend = on(settings, location, within=within, CONNECTION_FACTORY=CLUSTER)
                assert backend.exists("a") is False

                async def visit(backend: RedisBackend = backend) -> None:
                    assert await backend.aexists("a") is False
                    await backend.aclose()

                asyncio.run(visit())
                backend.close()

    def test_a_cluster_is_found_when_its_start_node_is_back(
        self, settings: Any, cluster: list[Server]
    ) -> None:
        """A call that failed leaves nothing that the next would stumble over."""
        (port,) = free_ports(1)

        async def visit(backend: RedisBackend) -> None:
            with pytest.raises(BackendUnavailable):
                await backend.aload("a", 1)
            async with asyncio.timeout(A_WHILE):
                server = await asyncio.start_server(pass_on, "127.0.0.1", port)
                async with server:
                    assert await backend.aload("a", 1) is None
                    await backend.aclose()

        async def pass_on(reader: Any, writer: Any) -> None:
            # What it says about where the nodes are is all that it is asked.
            from_node, to_node = await asyncio.open_connection("127.0.0.1", cluster[0].port)
            try:
                while data := await reader.read(65536):
                    to_node.write(data)
                    writer.write(await from_node.read(1_000_000))
            finally:
                to_node.close()
                writer.close()

        backend = on(settings, f"redis://127.0.0.1:{port}", CONNECTION_FACTORY=CLUSTER)
        asyncio.run(visit(backend))
        backend.close()


@pytest.mark.parametrize("how_many", [1, 2])
def test_silent_sentinels_are_passed_over(
    settings: Any, tmp_path: Path, silent: int, how_many: int
) -> None:
    with sentinel_setup(tmp_path, free_ports(3)) as (_, _, sentinel):
        pairs = [("127.0.0.1", silent)] * how_many + [("127.0.0.1", sentinel.port)]
        # A second for one operation, of which a silent sentinel takes no more than its share.
        backend = on(settings, f"redis://{SERVICE}/0", SENTINELS=pairs, SOCKET_TIMEOUT=limit(1))
        assert backend.exists("a") is False

        async def visit() -> None:
            assert await backend.aexists("a") is False
            client = backend._clients._by_loop[asyncio.get_running_loop()].redis
            first = client.connection_pool.sentinel_manager.sentinels[0]
            assert first.connection_pool.connection_kwargs["port"] == sentinel.port
            await backend.aclose()

        asyncio.run(visit())
        backend.close()


@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
def test_silent_sentinels_cost_one_answer_each(settings: Any, silent: int, in_loop: bool) -> None:
    within, how_many = limit(0.25), 3
    sentinels = [("127.0.0.1", silent)] * how_many
    backend = on(settings, f"redis://{SERVICE}/0", within=within, SENTINELS=sentinels)

    async def fail() -> None:
        with pytest.raises(BackendUnavailable):
            await backend.aload("a", 1)
        await backend.aclose()

    with Stopwatch() as watch:
        began = time.monotonic()
        if in_loop:
            asyncio.run(fail())
        else:
            with pytest.raises(BackendUnavailable):
                backend.load("a", 1)
        took = time.monotonic() - began
    assert (how_many - 0.5) * within < took, "each was asked"
    assert watch.seconds < (how_many + 1) * within
    backend.close()


class TestDripping:
    def test_a_dripping_server_is_given_up(self, settings: Any, dripping: int) -> None:
        backend = on(settings, f"redis://127.0.0.1:{dripping}/0", within=0.25)
        assert_given_up(lambda: backend.load("a", 1))
        with Stopwatch() as watch:
            assert not backend.health().connected
            (message,) = check(backend)
        assert message.id == "convstate.W004"
        assert watch.seconds < A_WHILE
        backend.close()

    @pytest.mark.slow
    def test_a_dripping_server_is_given_up_by_a_listing(self, settings: Any, dripping: int) -> None:
        backend = on(settings, f"redis://127.0.0.1:{dripping}/0", within=0.25)
        assert_given_up(lambda: list(backend.scan()))
        assert_given_up(lambda: list(backend.scan("u1")))
        assert_given_up(lambda: backend.purge(Selection(everything=True)))
        backend.close()

    def test_a_dripping_start_node_or_sentinel_is_given_up(
        self, settings: Any, dripping: int
    ) -> None:
        url = f"redis://127.0.0.1:{dripping}"
        backend = on(settings, url, within=0.25, CONNECTION_FACTORY=CLUSTER)
        assert_given_up(lambda: backend.load("a", 1))
        pairs = [("127.0.0.1", dripping)]
        backend = on(settings, f"redis://{SERVICE}/0", within=0.25, SENTINELS=pairs)
        assert_given_up(lambda: backend.load("a", 1))
        backend.close()


def check(backend: RedisBackend) -> list[CheckMessage]:
    return list(check_server(backend.cache_alias))


def test_loops_closed_without_shutdown_leave_no_connections(settings: Any, server: Server) -> None:
    backend = on(settings, f"redis://127.0.0.1:{server.port}/0")

    def visit() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(backend.acommit("a", Change(append=pairs(b"{}"))))
        loop.close()

    for _ in range(20):
        visit()
    asyncio.run(backend.aexists("a"))  # the next one lets go of it, and closes its own
    with server.client() as client:
        wait_until(lambda: len(client.client_list()) == 1)
    gc.collect()  # and none is left for the collector to complain of
