"""How an operation gets its connection: which are used again, how many there may be, and that no
operation gets the reply of another."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.credentials import StreamingCredentialProvider
from redis.exceptions import ResponseError, TimeoutError

from django_convstate import BackendUnavailable
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.client import connection_stack
from django_convstate.backends.redis.client.connection_stack import (
    AsyncConnectionStack,
    ConnectionStack,
)
from django_convstate.backends.redis.client.deadline import Deadline, DeadlineParser
from django_convstate.backends.redis.command import Operation, nothing
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.ruler import Stopwatch
from tests.support.servers import SERVICE, Server, free_ports, sentinel_setup, wait_until

NAME: Final = "ours"
THREADS: Final = 8


@pytest.fixture
def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


@contextmanager
def once(settings: Any, url: str, **options: Any) -> Iterator[RedisBackend]:
    """A backend that sends nothing twice, by connections that have a name."""
    pool = {"client_name": NAME, **options.pop("CONNECTION_POOL_KWARGS", {})}
    backend = on(settings, url, CONNECTION_POOL_KWARGS=pool, **options)
    clients = backend._clients
    clients._config = replace(clients.config, tries=1)
    yield backend
    backend.close()


@pytest.fixture
def never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at no connection because it was idle, however slow the machine is."""
    monkeypatch.setattr(connection_stack, "IDLE_TIME", 1000.0)


def our_connections(server: Server) -> list[dict[str, Any]]:
    with server.client() as client:
        return [each for each in client.client_list() if each["name"] == NAME]


def at_once(backend: RedisBackend, server: Server, count: int) -> None:
    """Have so many operations under way at the same time, each of which needs a connection: no
    write gets an answer before all have been sent."""
    with server.client() as client, ThreadPoolExecutor(count) as pool:
        client.client_pause(60_000, all=False)
        results = [pool.submit(backend.touch, "a") for _ in range(count)]
        wait_until(lambda: sum("b" in each["flags"] for each in our_connections(server)) == count)
        client.client_unpause()
        for result in results:
            result.result(timeout=30)


def echo(text: str) -> Operation[None]:
    return Operation(("ECHO", text), nothing)


class TestReplies:
    @pytest.mark.parametrize("total", [4_000, pytest.param(100_000, marks=pytest.mark.slow)])
    def test_an_operation_of_a_thread_that_was_given_up_leaves_no_reply_to_others(
        self, server: Server, total: int
    ) -> None:
        pool = redis.ConnectionPool(port=server.port, parser_class=DeadlineParser)
        stack = ConnectionStack(pool)

        def ask(thread: int) -> int:
            chance, given_up = random.Random(thread), 0
            for number in range(total // THREADS):
                text = f"{thread}-{number}"
                # The time of every other one is up at some moment: at once, or amid its reply.
                seconds = chance.choice((0.0, chance.uniform(0, 0.001))) if number % 2 else 60
                try:
                    with Deadline(seconds):
                        reply = stack.execute(None, echo(text), False)
                except TimeoutError:
                    given_up += 1
                else:
                    assert reply == text.encode()
            return given_up

        with ThreadPoolExecutor(THREADS) as threads:
            given_up = sum(threads.map(ask, range(THREADS)))
        assert given_up > total / 5
        pool.close()

    @pytest.mark.parametrize("total", [4_000, pytest.param(100_000, marks=pytest.mark.slow)])
    async def test_a_task_that_was_cancelled_leaves_no_reply_to_others(
        self, server: Server, total: int
    ) -> None:
        pool = redis.asyncio.ConnectionPool(port=server.port, socket_timeout=None)
        stack, chance = AsyncConnectionStack(pool), random.Random(0)

        async def ask(text: str) -> None:
            assert await stack.execute(None, echo(text), False) == text.encode()

        async def ask_some(number: int) -> int:
            cancelled = 0
            for count in range(total // THREADS):
                task = asyncio.create_task(ask(f"{number}-{count}"))
                if count % 2:
                    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):  # steps of the loop
                        await asyncio.sleep(0)
                    task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    cancelled += 1
            return cancelled

        cancelled = sum(await asyncio.gather(*map(ask_some, range(THREADS))))
        assert cancelled > total / 5
        await pool.aclose()

    def test_an_error_of_a_script_keeps_the_connection(
        self, settings: Any, url: str, server: Server
    ) -> None:
        with once(settings, url) as backend:
            backend.exists("a")
            client = backend._clients.sync()
            for _ in range(3):
                with client, pytest.raises(ResponseError, match="no such thing"):
                    client.send(
                        Operation(("EVAL", "return {err = 'no such thing'}", 1, "a"), nothing)
                    )
            assert backend.exists("a") is False
            (ours,) = our_connections(server)
            assert int(ours["tot-cmds"]) > 4

    def test_an_error_of_a_script_keeps_the_connection_of_a_task(
        self, settings: Any, url: str, server: Server
    ) -> None:
        async def visit(backend: RedisBackend) -> int:
            await backend.aexists("a")
            client = await backend._clients.for_loop()
            for _ in range(3):
                async with client:
                    with pytest.raises(ResponseError, match="no such thing"):
                        await client.send(
                            Operation(("EVAL", "return {err = 'no such thing'}", 1, "a"), nothing)
                        )
            assert await backend.aexists("a") is False
            with server.client() as admin:
                count = int(admin.info("stats")["total_connections_received"])
            await backend.aclose()
            return count

        with server.client() as admin:
            before = int(admin.info("stats")["total_connections_received"])
        with once(settings, url) as backend:
            assert asyncio.run(visit(backend)) - before == 2  # its own, and of who counts


class TestIdle:
    @pytest.fixture
    def at_each_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at a connection however short a time it has been idle."""
        monkeypatch.setattr(connection_stack, "IDLE_TIME", 0.0)

    @pytest.mark.usefixtures("at_each_use")
    def test_a_connection_that_was_closed_while_it_was_idle_costs_no_retry(
        self, settings: Any, url: str, server: Server
    ) -> None:
        with once(settings, url) as backend:
            for _ in range(3):
                assert backend.exists("a") is False
                kill(server)

    @pytest.mark.usefixtures("at_each_use")
    def test_a_task_replaces_a_connection_that_was_closed_while_it_was_idle(
        self, settings: Any, url: str, server: Server
    ) -> None:
        async def visit(backend: RedisBackend) -> None:
            for _ in range(3):
                assert await backend.aexists("a") is False
                kill(server)
                for _ in range(3):  # for the loop to learn of it
                    await asyncio.sleep(0)
            await backend.aclose()

        with once(settings, url) as backend:
            asyncio.run(visit(backend))

    @pytest.mark.usefixtures("never_idle")
    def test_after_one_has_broken_the_others_are_looked_at(
        self, settings: Any, url: str, server: Server
    ) -> None:
        with once(settings, url) as backend:
            at_once(backend, server, 3)
            kill(server)
            with pytest.raises(BackendUnavailable, match="cannot be reached"):
                backend.exists("a")
            at_once(backend, server, 3)

    def test_the_health_check_of_redis_py_goes_on(
        self, settings: Any, url: str, server: Server
    ) -> None:
        def pings() -> int:
            with server.client() as client:
                return int(client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))

        check = {"health_check_interval": 1000}
        with once(settings, url, CONNECTION_POOL_KWARGS=check) as backend:
            backend.exists("a")
            before = pings()
            backend.exists("a")
            assert pings() == before
            path: Any = backend._clients.sync()._path
            ((connection, _),) = path._idle
            connection.next_health_check = 0.0
            backend.exists("a")
            assert pings() == before + 1


class TestBounds:
    def test_more_operations_at_once_than_redis_py_allows_connections(
        self, settings: Any, url: str, server: Server
    ) -> None:
        count = 120
        with once(settings, url, CONNECTION_POOL_KWARGS={"max_connections": count}) as backend:
            at_once(backend, server, count)

    def test_lists_and_operations_share_their_connections(
        self, settings: Any, url: str, server: Server
    ) -> None:
        with once(settings, url, CONNECTION_POOL_KWARGS={"max_connections": 3}) as backend:
            backend.commit("a", Change(append=pairs(b"{}")))
            for _ in range(2):
                at_once(backend, server, 3)
                with ThreadPoolExecutor(3) as pool:
                    found = list(pool.map(lambda _: len(list(backend.scan())), range(12)))
                assert found == [1] * 12
                assert backend.health().connected
                assert len(our_connections(server)) <= 3

    def test_the_one_used_last_is_used_next(self, settings: Any, url: str, server: Server) -> None:
        with once(settings, url) as backend:
            at_once(backend, server, 3)

            def busy() -> list[int]:
                return sorted(int(each["tot-cmds"]) for each in our_connections(server))

            before = busy()
            for _ in range(50):
                backend.exists("a")
            assert [now - then for then, now in zip(before, busy(), strict=True)] == [0, 0, 50]

    def test_closing_closes_all(self, settings: Any, url: str, server: Server) -> None:
        with once(settings, url) as backend:
            at_once(backend, server, 3)
        wait_until(lambda: our_connections(server) == [])


class _Token(StreamingCredentialProvider):
    """Gives a new connection its login. That redis-py renews it on those that are open needs its
    pool."""

    def get_credentials(self) -> tuple[str, str]:
        return ("default", "password")

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()

    def on_next(self, callback: Any) -> None:
        pass

    def on_error(self, callback: Any) -> None:
        pass

    def is_streaming(self) -> bool:
        return True


class TestConnections:
    @pytest.mark.parametrize("protocol", [2, 3])
    def test_each_protocol(self, settings: Any, url: str, protocol: int) -> None:
        with once(settings, url, CONNECTION_POOL_KWARGS={"protocol": protocol}) as backend:
            save_and_load(backend)

    def test_a_login_that_redis_py_renews(self, settings: Any, tmp_path: Path) -> None:
        server = Server(tmp_path, free_ports(1)[0], password="password")
        server.start()
        try:
            url = f"redis://127.0.0.1:{server.port}/0"
            login = {"credential_provider": _Token()}
            with once(settings, url, CONNECTION_POOL_KWARGS=login) as backend:
                save_and_load(backend)
                assert len(backend._clients.sync().redis.connection_pool._in_use_connections) == 0
        finally:
            server.kill()

    def test_to_look_whether_there_is_something_to_read_takes_no_time(self, server: Server) -> None:
        """As older versions of redis-py do with each connection that is used again."""
        connection = redis.Connection(port=server.port, parser_class=DeadlineParser)
        connection.connect()
        try:
            with Deadline(30), Stopwatch() as watch:
                parser = connection._parser
                assert not parser.read_from_socket(timeout=0, raise_on_timeout=False)
            assert watch.seconds < 10
        finally:
            connection.disconnect()


def save_and_load(backend: RedisBackend) -> None:
    backend.commit("a", Change(append=pairs(b"1")))

    async def visit() -> None:
        await backend.acommit("a", Change(append=pairs(b"2")))
        record = await backend.aload("a", 9)
        assert record is not None
        assert bodies(record.messages) == [b"1", b"2"]
        await backend.aclose()

    asyncio.run(visit())
    record = backend.load("a", 9)
    assert record is not None
    assert bodies(record.messages) == [b"1", b"2"]


class TestCluster:
    IDS: Final = [f"id{number}" for number in range(30)]  # on all nodes

    @pytest.fixture
    def backend(self, settings: Any, cluster: list[Server]) -> Iterator[RedisBackend]:
        factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
        url = f"redis://127.0.0.1:{cluster[0].port}"
        with once(settings, url, CONNECTION_FACTORY=factory) as backend:
            yield backend

    def test_broken_connections_cost_no_retry(
        self, backend: RedisBackend, cluster: list[Server]
    ) -> None:
        for _ in range(2):
            assert [backend.exists(id) for id in self.IDS] == [False] * 30
            kill(*cluster[:3])

    async def test_broken_connections_of_tasks_cost_no_retry(
        self, backend: RedisBackend, cluster: list[Server]
    ) -> None:
        for _ in range(2):
            assert [await backend.aexists(id) for id in self.IDS] == [False] * 30
            kill(*cluster[:3])
        await backend.aclose()

    @pytest.mark.usefixtures("never_idle")
    def test_connections_to_a_node_that_has_left_are_closed(
        self, backend: RedisBackend, cluster: list[Server], server: Server
    ) -> None:
        assert [backend.exists(id) for id in self.IDS] == [False] * 30
        nodes: Any = backend._clients.sync()._path
        assert len(nodes._stacks) == 3
        pool = redis.ConnectionPool(port=server.port, client_name=NAME)
        nodes._stacks[pool] = ConnectionStack(pool)
        nodes._stacks[pool].execute(None, echo("a"), False)
        assert len(our_connections(server)) == 1
        kill(*cluster[:3])
        assert backend.exists("a") is False  # which redis-py has sent
        wait_until(lambda: our_connections(server) == [])
        assert len(nodes._stacks) == 3


def kill(*nodes: Server) -> None:
    """Close our connections."""
    for node in nodes:
        with node.client() as client:
            for ours in our_connections(node):
                client.client_kill_filter(_id=ours["id"])


class TestSentinel:
    """The connections to a former primary are in order, and it takes what is written to it."""

    @pytest.fixture
    def setup(self, tmp_path: Path) -> Iterator[list[Server]]:
        with sentinel_setup(tmp_path, free_ports(3)) as servers:
            yield servers

    @pytest.fixture
    def backend(self, settings: Any, setup: list[Server]) -> Iterator[RedisBackend]:
        options = {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", setup[-1].port)],
        }
        with once(settings, f"redis://{SERVICE}/0", **options) as backend:
            yield backend

    def test_threads_do_not_use_them_again(
        self, backend: RedisBackend, setup: list[Server]
    ) -> None:
        former, primary, _ = setup
        at_once(backend, former, 3)
        replace_primary(*setup)
        backend._clients.sync().redis.ping()  # by a new connection, which asks the sentinel
        at_once(backend, primary, 3)
        assert our_connections(former) == []

    async def test_tasks_do_not_use_them_again(
        self, backend: RedisBackend, setup: list[Server]
    ) -> None:
        former, primary, _ = setup
        await asyncio.gather(*[backend.atouch("a") for _ in range(3)])
        assert len(our_connections(former)) == 3
        replace_primary(*setup)
        client = await backend._clients.for_loop()
        await client.redis.ping()
        await asyncio.gather(*[backend.atouch("a") for _ in range(3)])
        wait_until(lambda: our_connections(former) == [])
        assert len(our_connections(primary)) == 4
        await backend.aclose()


def replace_primary(former: Server, primary: Server, sentinel: Server) -> None:
    """Have the sentinel name another server, and leave the former one as it is."""
    with primary.client() as client:
        client.replicaof("NO", "ONE")
    with sentinel.client() as client:
        client.sentinel_remove(SERVICE)
        client.sentinel_monitor(SERVICE, "127.0.0.1", primary.port, 1)
