"""Commands and their replies over one connection of an event loop, one at a time.

redis-py makes the connection: host, TLS, login, database. Once it is there, redis-py's own way from
a reply to a task, by a stream, a buffer and six coroutines, takes longer than the server does. Here
a protocol of asyncio gives what arrives to hiredis, and a reply that is whole to the task.
"""

import asyncio
from typing import Any, Final, Protocol

from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse

from ..command import Argument

try:
    from hiredis import PushNotification, Reader, pack_command
except ImportError:  # it is not installed, or too old
    Reader = None  # type: ignore[assignment, misc]

_INCOMPLETE: Final = object()


class Exchange(Protocol):
    """Asks the server at the other end of a connection.

    Attributes:
        connection: redis-py's.
        is_open: whether it can be used again, as far as that is known.
    """

    connection: Any
    is_open: bool

    def ask(self, command: tuple[Argument, ...]) -> Any:
        """Send a command. Returns an awaitable of the reply, which raises what redis-py raises.

        Unless that is a `ResponseError`, the connection has to be closed then: a reply may be under
        way.
        """

    def end(self) -> None:
        """Leave the connection to redis-py."""


def exchange_over(connection: Any) -> Exchange:
    """Return the exchange over a connection of redis-py's that is open."""
    if Reader is None or connection.health_check_interval:
        return RedisPyExchange(connection)
    try:
        transport = connection._writer.transport
    except AttributeError:  # redis-py has nothing public to get at it
        return RedisPyExchange(connection)
    current = transport.get_protocol()
    if isinstance(current, DirectExchange):
        return current
    return DirectExchange(connection, transport, current)


class RedisPyExchange:
    """Leaves it to redis-py: without hiredis, and where that has to send a PING now and then."""

    is_open = True

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def ask(self, command: tuple[Argument, ...]) -> Any:
        """See `Exchange.ask`."""
        await self.connection.send_packed_command(self.connection.pack_command(*command))
        return await self.connection.read_response()

    def end(self) -> None:
        """See `Exchange.end`."""


class DirectExchange(asyncio.Protocol):
    """Has at the transport of a connection the place of redis-py's stream, which is told no more
    than that the connection is closed."""

    def __init__(self, connection: Any, transport: Any, stream: Any) -> None:
        self.connection = connection
        self.is_open = not transport.is_closing()
        self._transport = transport
        self._stream = stream
        self._create_future = asyncio.get_running_loop().create_future
        self._awaited: asyncio.Future[Any] | None = None
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=_INCOMPLETE,
        )
        transport.set_protocol(self)

    def ask(self, command: tuple[Argument, ...]) -> asyncio.Future[Any]:
        """See `Exchange.ask`."""
        packed = pack_command(command)  # type: ignore[arg-type]  # of any length
        if not self.is_open or self._awaited is not None:
            raise _closed()
        self._awaited = reply = self._create_future()
        self._transport.write(packed)
        return reply

    def end(self) -> None:
        """See `Exchange.end`."""
        self._transport.set_protocol(self._stream)

    def data_received(self, data: bytes) -> None:
        """Give the reply to who waits for it, once it is whole. Messages that the server pushes are
        dropped: there are no subscriptions."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if not isinstance(reply, PushNotification):
                    self._answer(reply)
        except InvalidResponse as error:
            self._break(error)

    def eof_received(self) -> None:
        """Note that the server has closed the connection, before it is used again."""
        self._break(_closed())

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the connection is closed, by this process or by the server."""
        self._stream.connection_lost(error)  # for which redis-py waits when it closes one
        self._break(_closed())

    def _answer(self, reply: Any) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is None:  # A reply that no command waits for must not go to the next one.
            self._break(_closed())
        elif awaited.done():  # by its cancellation
            return
        elif isinstance(reply, Exception):
            awaited.set_exception(reply)
        else:
            awaited.set_result(reply)

    def _break(self, error: Exception) -> None:
        self.is_open = False
        self._transport.close()
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_exception(error)


def _closed() -> Exception:
    return ConnectionError("Connection closed by server.")
