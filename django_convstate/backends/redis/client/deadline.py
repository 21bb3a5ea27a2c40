"""The time limit for the whole of an operation, and its extension while a connection is made.

An answer of an established connection has `seconds`. Making a connection takes several answers of
the server: TCP, TLS, the login, perhaps a sentinel's. Each has that time, and the operation has it
anew when the connection is there. So a server that is silent costs an operation no more than one
answer, and one that is far away is waited for as long as it does answer.

In async code a task is cancelled when its time is up. In sync code redis-py gives each piece of a
reply the time that a whole one should take: a server that sends a byte now and then would be waited
for without end.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from redis import exceptions
from redis.connection import DefaultParser

from .watch import Watch

_TOO_LATE: Final = "There was no answer in time."
LATE_SHARE: Final = 0.1  # of a timeout: if it fires later than that, the loop was busy elsewhere

T = TypeVar("T")


class _Limit(threading.local):
    until: float | None = None  # by time.monotonic(); None: there is none
    each: float = 0.0  # seconds for one reply
    latest: float = 0.0  # how far `until` may be put off for a connection
    connected: Callable[[], None] | None = None  # is called when one is there


_limit = _Limit()


class Deadline:
    """Lets redis-py's clients in this thread wait for no longer than `seconds` in a with block, and
    for no longer than `each` seconds for one reply; and for at most `connecting` seconds more where
    a connection is made. The same one may be entered again, and by several threads."""

    __slots__ = ("_connected", "_connecting", "_each", "_seconds")

    def __init__(
        self,
        seconds: float,
        each: float | None = None,
        *,
        connecting: float = 0.0,
        connected: Callable[[], None] | None = None,
    ) -> None:
        self._seconds = seconds
        self._each = seconds if each is None else each
        self._connecting = connecting
        self._connected = connected

    def __enter__(self) -> None:
        _limit.until = time.monotonic() + self._seconds
        _limit.each = self._each
        _limit.latest = _limit.until + self._connecting
        _limit.connected = self._connected

    def __exit__(self, *error: object) -> None:
        _limit.until = None


def put_off(replies: int = 1) -> None:
    """Give so many replies of the server their time from now on, because it has answered."""
    until = _limit.until
    if until is not None:
        _limit.until = max(until, min(time.monotonic() + replies * _limit.each, _limit.latest))


def note_connection() -> None:
    """Tell those who wait for the server that a connection to it is there."""
    if _limit.until is not None and (connected := _limit.connected) is not None:
        connected()


def put_off_no_more() -> None:
    """Have what is left of the time do for the next connection, too."""
    if _limit.until is not None:
        _limit.latest = _limit.until


class DeadlineParser(DefaultParser):  # type: ignore[misc, valid-type]
    """Reads replies for as long as the deadline allows. For hiredis's parser, the default one where
    hiredis is installed."""

    def read_from_socket(self, *args: Any, **kwargs: Any) -> Any:
        """Read what has arrived, or wait for it."""
        until = _limit.until
        # So older versions of redis-py look whether there is anything to be read.
        is_look = kwargs.get("raise_on_timeout") is False
        if until is None or is_look:
            return super().read_from_socket(*args, **kwargs)
        left = until - time.monotonic()
        if left <= 0:
            raise exceptions.TimeoutError(_TOO_LATE)
        # A sentinel has less time than the operation that asks it.
        each = min(left, _limit.each, self._socket_timeout or left)
        return super().read_from_socket(each)


def log_in(connection: Any) -> None:
    """Log in by a new connection (redis-py's `redis_connect_func`), each reply in its own time."""
    send_command = connection.send_command

    def send(*args: Any, **kwargs: Any) -> None:
        put_off()
        send_command(*args, **kwargs)

    connection.send_command = send
    try:
        put_off()
        connection.on_connect()
    finally:
        del connection.send_command
    put_off()
    note_connection()


class LoopDeadline:
    """The same for one operation in async code: `seconds` for it, and at most `connecting` more.

    Attributes:
        until: when its time is up, by time.monotonic().
    """

    __slots__ = (
        "_cancelling",
        "_connecting",
        "_has_expired",
        "_latest",
        "_seconds",
        "_task",
        "_watch",
        "connected",
        "until",
    )

    def __init__(
        self,
        seconds: float,
        connecting: float = 0.0,
        connected: Callable[[], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._seconds = seconds
        self._connecting = connecting
        self.connected = connected
        self._watch = watch or Watch()
        self._has_expired = False
        self.until = time.monotonic() + seconds
        self._latest = self.until + connecting

    def restart(self) -> None:
        """Begin anew."""
        self.until = time.monotonic() + self._seconds
        self._latest = self.until + self._connecting

    @property
    def is_late(self) -> bool:
        """Whether a timeout has fired too late itself: the loop was busy elsewhere, and the
        server's reply may have been waiting."""
        return time.monotonic() > self.until + LATE_SHARE * self._seconds

    def put_off(self, replies: int = 1) -> None:
        """See `put_off`."""
        until = min(time.monotonic() + replies * self._seconds, self._latest)
        self.until = max(self.until, until)

    def put_off_no_more(self) -> None:
        """See `put_off_no_more`."""
        self._latest = self.until

    async def wait_for(self, reply: Awaitable[T]) -> T:
        """Return what is awaited, or raise redis-py's `TimeoutError`."""
        task: Any = asyncio.current_task()
        self._task, self._cancelling = task, task.cancelling()
        token = _deadline.set(self)
        self._watch.begin(self)
        try:
            return await reply
        except asyncio.CancelledError as error:
            if not self._take_back():
                raise
            raise exceptions.TimeoutError(_TOO_LATE) from error
        except TimeoutError as error:
            raise exceptions.TimeoutError(_TOO_LATE) from error
        except AttributeError as error:
            # So redis-py's cluster client fails in one task when it closes, because of another
            # task, a connection that the first one is reading from.
            raise exceptions.ConnectionError(
                "The connection was closed by another task."
            ) from error
        finally:
            self._watch.end(self)
            if self._has_expired:  # and what it was cancelled in has ended otherwise
                self._take_back()
            _deadline.reset(token)
            # A connection that was made meanwhile keeps this, by a copy of the context, for as long
            # as it lives. It must not keep the task, and all that a request had in it.
            self._task = None

    def expire(self) -> None:
        """Cancel the task that waits."""
        self._has_expired = True
        self._task.cancel()

    def _take_back(self) -> bool:
        """Take back that we have cancelled the task, if we have. Tells whether no other has."""
        has_expired, self._has_expired = self._has_expired, False
        return has_expired and self._task.uncancel() <= self._cancelling


# Of the operation that the running task waits for.
_deadline: ContextVar[LoopDeadline | None] = ContextVar("convstate_deadline", default=None)


def aput_off(replies: int = 1) -> None:
    """See `put_off`."""
    if (deadline := _deadline.get()) is not None:
        deadline.put_off(replies)


def aput_off_no_more() -> None:
    """See `put_off_no_more`."""
    if (deadline := _deadline.get()) is not None:
        deadline.put_off_no_more()


def anote_connection() -> None:
    """See `note_connection`."""
    if (deadline := _deadline.get()) is not None and (connected := deadline.connected) is not None:
        connected()


async def alog_in(connection: Any) -> None:
    """See `log_in`."""
    send_command = connection.send_command

    async def send(*args: Any, **kwargs: Any) -> None:
        aput_off()
        await send_command(*args, **kwargs)

    connection.send_command = send
    try:
        aput_off()
        await connection.on_connect()
    finally:
        del connection.send_command
    aput_off()
    anote_connection()


async def in_time(reply: Awaitable[T], seconds: float, connecting: float = 0.0) -> T:
    """Return what is awaited, or raise redis-py's `TimeoutError`."""
    return await LoopDeadline(seconds, connecting).wait_for(reply)
