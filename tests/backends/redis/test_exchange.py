"""How a task gets the reply to its command: by a protocol of asyncio, in place of redis-py's."""

import asyncio
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError, ResponseError

from django_convstate.backends.redis.client.connection_stack import AsyncConnectionStack
from django_convstate.backends.redis.client.exchange import (
    DirectExchange,
    RedisPyExchange,
    exchange_over,
)
from django_convstate.backends.redis.command import Operation, nothing
from tests.chaos.proxy import Proxy
from tests.support.servers import Server

HUGE: Final = 4 * 2**20  # bytes of a reply, which arrives in many pieces


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@asynccontextmanager
async def pool_of(port: int, **options: Any) -> AsyncIterator[redis.asyncio.ConnectionPool]:
    pool = redis.asyncio.ConnectionPool(port=port, socket_timeout=None, **options)
    yield pool
    await pool.aclose()


@asynccontextmanager
async def direct(port: int, **options: Any) -> AsyncIterator[DirectExchange]:
    async with pool_of(port, **options) as pool:
        exchange = exchange_over(await pool.get_connection())
        assert isinstance(exchange, DirectExchange)
        yield exchange


def ask(stack: AsyncConnectionStack, *command: str | int) -> Any:
    return stack.execute(None, Operation(command, nothing), False)


async def until_closed(exchange: DirectExchange) -> None:
    async with asyncio.timeout(30):
        while exchange.is_open:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0)


class TestReplies:
    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_each_kind(self, server: Server, protocol: int) -> None:
        kinds = "return {1, 'two', false, {}, {'a', {2}}, {ok = 'fine'}}"
        async with direct(server.port, protocol=protocol) as exchange:
            reply = await exchange.ask(("EVAL", kinds, 0))
            assert reply == [1, b"two", None, [], [b"a", [2]], b"fine"]
            assert await exchange.ask(("GET", "nothing")) is None
            assert await exchange.ask(("APPEND", "a", b"\x00\xff\r\n")) == 4
            assert await exchange.ask(("GET", "a")) == b"\x00\xff\r\n"

    async def test_options_of_the_cache_alter_no_bytes(self, server: Server) -> None:
        async with direct(server.port, decode_responses=True, encoding="latin-1") as exchange:
            await exchange.ask(("SET", "a", b"\xff"))
            assert await exchange.ask(("GET", "a")) == b"\xff"

    async def test_an_error_is_that_of_redis_py(self, server: Server) -> None:
        async with direct(server.port) as exchange:
            with pytest.raises(redis.exceptions.NoScriptError):
                await exchange.ask(("EVALSHA", "0" * 40, 0))
            with pytest.raises(ResponseError, match="wrong number of arguments"):
                await exchange.ask(("GET",))
            assert await exchange.ask(("PING",)) == b"PONG"

    async def test_a_reply_in_pieces_is_given_when_it_is_whole(self, proxy: Proxy) -> None:
        async with direct(proxy.port) as exchange:
            proxy.drip_every = 0.0001
            assert await exchange.ask(("ECHO", "x" * 100)) == b"x" * 100

    async def test_a_huge_command_and_a_huge_reply(self, server: Server) -> None:
        async with direct(server.port) as exchange:
            text = os.urandom(HUGE)
            assert await exchange.ask(("ECHO", text)) == text

    async def test_pushed_messages_are_dropped(self, server: Server) -> None:
        """Before a reply, after it, in the same piece, and where nobody waits for one."""
        async with direct(server.port, protocol=3) as exchange, direct(server.port) as other:
            await exchange.ask(("CLIENT", "TRACKING", "ON", "BCAST"))
            for number in range(3):
                assert await exchange.ask(("INCR", "a")) == number + 1
                await other.ask(("INCR", "b"))
                while await exchange.ask(("GET", "b")) != b"%d" % (number + 1):
                    pass
            assert exchange.is_open

    async def test_a_reply_that_breaks_the_protocol(self, server: Server) -> None:
        async with direct(server.port) as exchange:
            waiting = exchange.ask(("BLPOP", "nothing", 0))
            exchange.data_received(b"what is that?\r\n")
            with pytest.raises(redis.exceptions.InvalidResponse):
                await waiting
            assert not exchange.is_open


class TestForeignReplies:
    async def test_what_nobody_has_asked_for_closes_the_connection(self, server: Server) -> None:
        async with pool_of(server.port) as pool:
            stack = AsyncConnectionStack(pool)
            exchange = exchange_over(await pool.get_connection())
            assert isinstance(exchange, DirectExchange)
            reply = exchange.ask(("PING",))
            two = b"ECHO theirs\r\nECHO theirs\r\n"
            exchange._transport.write(two)  # whose replies come in one piece
            assert await reply == b"PONG"
            await until_closed(exchange)
            stack._idle.append((exchange, 1e12))
            assert await ask(stack, "ECHO", "mine") == b"mine"
            assert len(pool._in_use_connections) == 1

    async def test_the_reply_to_a_cancelled_task_is_given_to_nobody(self, proxy: Proxy) -> None:
        async with pool_of(proxy.port) as pool:
            stack = AsyncConnectionStack(pool)
            assert await ask(stack, "ECHO", "first") == b"first"
            proxy.silent = True
            cancelled = asyncio.create_task(ask(stack, "ECHO", "cancelled"))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            proxy.silent = False
            for number in range(10):
                assert await ask(stack, "ECHO", str(number)) == b"%d" % number
            assert proxy.accepted == 2

    async def test_a_reply_that_comes_after_a_cancellation(self, server: Server) -> None:
        """Before the connection is closed, which the cancelled task does in its next step."""
        async with direct(server.port) as exchange:
            exchange.ask(("ECHO", "cancelled")).cancel()
            with pytest.raises(ConnectionError):
                exchange.ask(("ECHO", "too early"))
            async with asyncio.timeout(30):
                while exchange._awaited is not None:  # noqa: ASYNC110 - nothing tells it
                    await asyncio.sleep(0)
            assert await exchange.ask(("ECHO", "mine")) == b"mine"


class TestClosing:
    async def test_that_the_server_has_closed_it_is_known_at_once(self, server: Server) -> None:
        async with pool_of(server.port) as pool:
            stack = AsyncConnectionStack(pool)
            for _ in range(3):
                id = await ask(stack, "CLIENT", "ID")
                ((exchange, _),) = stack._idle
                assert isinstance(exchange, DirectExchange)
                with server.client() as client:
                    client.client_kill_filter(_id=id)
                await until_closed(exchange)
                assert await ask(stack, "CLIENT", "ID") > id  # without an error

    async def test_who_waits_is_told(self, server: Server, proxy: Proxy) -> None:
        async with direct(server.port) as exchange:
            id = await exchange.ask(("CLIENT", "ID"))
            waiting = exchange.ask(("BLPOP", "nothing", 0))
            with server.client() as client:
                client.client_kill_filter(_id=id)
            with pytest.raises(ConnectionError, match="closed by server"):
                await waiting
            with pytest.raises(ConnectionError, match="closed by server"):
                exchange.ask(("PING",))
        async with direct(proxy.port) as exchange:
            proxy.truncate_next_reply(8)
            with pytest.raises(ConnectionError, match="closed by server"):
                await exchange.ask(("ECHO", "x" * 100))

    async def test_one_that_the_pool_closes_ends_the_wait(self, server: Server) -> None:
        async with pool_of(server.port) as pool:
            exchange = exchange_over(await pool.get_connection())
            waiting = exchange.ask(("BLPOP", "nothing", 0))
            await pool.disconnect()  # which waits until it is closed
            with pytest.raises(ConnectionError, match="closed"):
                await waiting

    async def test_one_that_is_closed_already(self, server: Server) -> None:
        async with pool_of(server.port) as pool:
            connection: Any = await pool.get_connection()
            connection._writer.close()
            await connection._writer.wait_closed()
            exchange = exchange_over(connection)
            with pytest.raises(ConnectionError, match="closed by server"):
                await exchange.ask(("PING",))

    async def test_one_that_is_in_use_stays(self, server: Server) -> None:
        async with direct(server.port) as exchange:
            assert exchange_over(exchange.connection) is exchange

    async def test_one_that_was_lent_is_redis_pys_again(self, server: Server) -> None:
        async with pool_of(server.port, client_name="ours") as pool:
            stack, client = AsyncConnectionStack(pool), redis.asyncio.Redis(connection_pool=pool)
            for number in range(3):
                assert await ask(stack, "ECHO", str(number)) == b"%d" % number
                await stack.lend()
                assert await client.ping() is True
            assert len([each for each in await client.client_list() if each["name"] == "ours"]) == 1


class TestMemory:
    async def test_nothing_is_kept_of_a_reply_or_of_who_waited(self, server: Server) -> None:
        async with direct(server.port) as exchange:

            async def visit() -> None:
                await exchange.ask(("PING",))

            task = asyncio.create_task(visit())
            await task
            visited = weakref.ref(task)
            del task
            await asyncio.sleep(0)
            gc.collect()
            assert visited() is None
            assert exchange._awaited is None


class TestRedisPy:
    async def test_a_connection_whose_health_is_checked_is_left_to_it(self, server: Server) -> None:
        async with pool_of(server.port, health_check_interval=1) as pool:
            connection = await pool.get_connection()
            exchange = exchange_over(connection)
            assert isinstance(exchange, RedisPyExchange)
            connection.next_health_check = 0.0
            assert await exchange.ask(("ECHO", "a")) == b"a"
            assert int((await exchange.ask(("INFO", "commandstats"))).count(b"cmdstat_ping")) == 1

    def test_without_hiredis(self, server: Server) -> None:
        program = """
import asyncio, os, sys
sys.modules["hiredis"] = None  # to import it raises an ImportError
import django
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django_redis.cache.RedisCache", "LOCATION": sys.argv[1],
    "OPTIONS": {"SOCKET_TIMEOUT": 30, "SOCKET_CONNECT_TIMEOUT": 30}}})
django.setup()
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
async def visit(backend):
    for number in range(3):
        await backend.acommit("a", Change(append=[(str(number), b"%d" % number)]))
    assert (await backend.ahealth()).connected
    record = await backend.aload("a", 9)
    assert [data for _, data in record.messages] == [b"0", b"1", b"2"], record.messages
    client = await backend._clients.for_loop()
    print(*{type(exchange).__name__ for exchange, _ in client._path._idle})
    await backend.aclose()
asyncio.run(visit(RedisBackend()))
"""
        url = f"redis://127.0.0.1:{server.port}/0"
        done = subprocess.run(
            [sys.executable, "-c", program, url], check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == ["RedisPyExchange"]
