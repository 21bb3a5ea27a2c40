"""Connections that operations use again, last in, first out, without asking redis-py's pool.

The pool makes them. It has them among those that are in use, and so closes them with its client.
To get one from it and give it back for each operation would take as long as the operation does on
a server nearby.
"""

import time
from typing import Any, Final

from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from ..command import Operation
from .exchange import Exchange, exchange_over

# Seconds without use, after which a connection is checked: the server may have closed it. One in
# steady use is not checked; where there is a second between two uses, the check costs nothing.
IDLE_TIME: Final = 1.0
_CLOSED: Final = float("-inf")  # in the place of the time since when a connection is idle


class ConnectionStack:
    """The connections of a pool that no operation of this process's threads uses just now."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._idle: list[tuple[Any, float]] = []  # and since when, by time.monotonic()
        self._failed_at = 0.0  # when one of them broke last: the others may be broken, too
        self._has_sentinels = hasattr(pool, "master_address")

    def execute(self, _client: object, operation: Operation[Any], full: bool) -> Any:
        """Return the server's reply (see `Attempt`). Raises what redis-py raises."""
        command = operation.full_command() if full else operation.command
        connection = self._take()
        try:
            connection.send_packed_command(connection.pack_command(*command))
            reply = connection.read_response()
        except ResponseError:  # which is the whole of a reply
            self._idle.append((connection, time.monotonic()))
            raise
        except BaseException:  # A reply may be under way, which no other operation must get.
            self._close(connection)
            raise
        self._idle.append((connection, time.monotonic()))
        return reply

    def lend(self) -> None:
        """Leave an idle connection to the pool, for what redis-py sends itself."""
        try:
            connection, _ = self._idle.pop()
        except IndexError:
            return
        self.pool.release(connection)

    def _take(self) -> Any:
        try:
            connection, since = self._idle.pop()
        except IndexError:
            return self.pool.get_connection()
        is_fresh = since > self._failed_at and time.monotonic() - since < IDLE_TIME
        if is_fresh and not (self._has_sentinels and _is_to_another(self.pool, connection)):
            return connection
        try:
            _ensure(self.pool, connection)
        except BaseException:
            self._close(connection)
            raise
        return connection

    def _close(self, connection: Any) -> None:
        try:
            connection.disconnect()
        finally:
            # Of all idle ones the next to be used: who tries once more gets a new connection.
            self._idle.append((connection, _CLOSED))
            self._failed_at = time.monotonic()


class AsyncConnectionStack:
    """The connections of a pool that no task of its event loop uses just now."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._idle: list[tuple[Any, float]] = []
        self._failed_at = 0.0
        self._has_sentinels = hasattr(pool, "master_address")

    async def execute(self, _client: object, operation: Operation[Any], full: bool) -> Any:
        """See `ConnectionStack.execute`."""
        command = operation.full_command() if full else operation.command
        exchange = await self._take()
        try:
            reply = await exchange.ask(command)
        except ResponseError:
            self._idle.append((exchange, time.monotonic()))
            raise
        except BaseException:
            await self._close(exchange)
            raise
        self._idle.append((exchange, time.monotonic()))
        return reply

    async def lend(self) -> None:
        """See `ConnectionStack.lend`."""
        try:
            exchange, _ = self._idle.pop()
        except IndexError:
            return
        exchange.end()
        await self.pool.release(exchange.connection)

    async def _take(self) -> Any:
        try:
            exchange, since = self._idle.pop()
        except IndexError:
            return exchange_over(await self.pool.get_connection())
        is_fresh = since > self._failed_at and time.monotonic() - since < IDLE_TIME
        is_other = self._has_sentinels and _is_to_another(self.pool, exchange.connection)
        if is_fresh and exchange.is_open and not is_other:
            return exchange
        try:
            return await _aensure(self.pool, exchange)
        except BaseException:
            await self._close(exchange)
            raise

    async def _close(self, exchange: Exchange) -> None:
        try:
            await exchange.connection.disconnect(nowait=True)  # a cancelled task must not wait
        finally:
            self._idle.append((exchange, _CLOSED))
            self._failed_at = time.monotonic()


def _is_to_another(pool: Any, connection: Any) -> bool:
    """Tell whether a connection is to another server than the primary that a sentinel has named
    last; without sentinels it never is."""
    named: tuple[str, int] | None = getattr(pool, "master_address", None)
    return named is not None and named != (connection.host, connection.port)


def _ensure(pool: Any, connection: Any) -> None:
    """Make a new connection of one that is broken, or to a former primary."""
    if _is_to_another(pool, connection):
        connection.disconnect()
    connection.connect()
    try:
        is_dirty = connection.can_read()  # or raises, at the end of what the server has sent
    except (ConnectionError, TimeoutError, OSError):
        is_dirty = True
    if is_dirty:
        connection.disconnect()
        connection.connect()


async def _aensure(pool: Any, exchange: Exchange) -> Exchange:
    """See `_ensure`, most of which redis-py has for async code."""
    if not exchange.is_open or _is_to_another(pool, exchange.connection):
        await exchange.connection.disconnect(nowait=True)
    await pool.ensure_connection(exchange.connection)
    return exchange_over(exchange.connection)
