"""The time limit for the whole of an operation, and sending again, within that, where a connection
broke. There is no other layer of retries.

To send again is safe: a change that was applied already is not applied again. In async code the
limit is one of asyncio. In sync code redis-py gives each piece of a reply the time that a whole one
should take, and so each step of making a connection: a server that sends a byte now and then would
be waited for without end.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

from redis import exceptions
from redis.connection import DefaultParser

from ..errors import is_retryable
from ..operations import Operation

LATE_SHARE: Final = 0.1  # of a timeout: if it fires later than that, the loop was busy elsewhere

S = TypeVar("S")
T = TypeVar("T")
Attempt: TypeAlias = Callable[[Any, S, bool], T]


class _Limit(threading.local):
    until: float | None = None  # by time.monotonic(); None: there is none
    each: float = 0.0  # seconds for one reply


_limit = _Limit()


class Deadline:
    """Lets redis-py's clients in this thread wait for no longer than `seconds` in a with block, and
    for no longer than `each` seconds for one reply. The same one may be entered again, and by
    several threads."""

    __slots__ = ("_each", "_seconds")

    def __init__(self, seconds: float, each: float | None = None) -> None:
        self._seconds = seconds
        self._each = seconds if each is None else each

    def __enter__(self) -> None:
        _limit.until = time.monotonic() + self._seconds
        _limit.each = self._each

    def __exit__(self, *error: object) -> None:
        _limit.until = None


class DeadlineParser(DefaultParser):  # type: ignore[misc, valid-type]
    """Reads replies for as long as the deadline allows. For hiredis's parser, the default one where
    hiredis is installed."""

    def read_from_socket(self, *args: Any, **kwargs: Any) -> Any:
        """Read what has arrived, or wait for it."""
        until = _limit.until
        if until is None:
            return super().read_from_socket(*args, **kwargs)
        left = until - time.monotonic()
        if left <= 0:
            raise exceptions.TimeoutError("There was no answer in time.")
        # A sentinel has less time than the operation that asks it.
        each = min(left, _limit.each, self._socket_timeout or left)
        return super().read_from_socket(each)


def retrying(client: Any, tries: int, deadline: Deadline, attempt: Attempt[S, T], subject: S) -> T:
    """Return what `attempt(client, subject, full)` does. `full` is False at first; True says that
    the server may not know the script, so that its text is to be sent."""
    full = False
    with deadline:  # for all tries together
        while True:
            try:
                return attempt(client, subject, full)
            except exceptions.NoScriptError:
                if full:
                    raise
            except exceptions.RedisError as error:
                tries -= 1
                if not (tries and is_retryable(error)):
                    raise
                # The other connections may be broken, too. A cluster's client sees to its own.
                if (pool := getattr(client, "connection_pool", None)) is not None:
                    pool.disconnect(inuse_connections=False)
            full = True


async def aretrying(
    client: Any, tries: int, seconds: float, attempt: Attempt[S, Awaitable[T]], subject: S
) -> T:
    """See `retrying`. What was not answered in time because the event loop was busy is sent again,
    too."""
    full = False
    until = time.monotonic() + seconds  # for all tries together
    while True:
        try:
            return await in_time(attempt(client, subject, full), until - time.monotonic())
        except exceptions.NoScriptError:
            if full:
                raise
        except exceptions.RedisError as error:
            # A timeout that fires too late itself: the loop was busy elsewhere, and the server's
            # reply may have been waiting.
            late = time.monotonic() > until + LATE_SHARE * seconds
            late = late and isinstance(error, exceptions.TimeoutError)
            tries -= 1
            if not (tries and (late or is_retryable(error))):
                raise
            if late:
                until = time.monotonic() + seconds
            if (pool := getattr(client, "connection_pool", None)) is not None:
                await pool.disconnect(inuse_connections=False)
        full = True


def execute(client: Any, operation: Operation[Any], full: bool) -> Any:
    """Send `operation`. Returns the reply; of an async client, an awaitable.

    Names the node of a cluster that has the key, as far as it is known: else redis-py's client
    works that out from every key of a script, twice.
    """
    if full:
        return client.execute_command(*operation.full_command())
    target = {}
    if hasattr(client, "get_node_from_key"):
        with suppress(exceptions.SlotNotCoveredError):
            target["target_nodes"] = client.get_node_from_key(operation.key)
    return client.execute_command(*operation.command, **target)


async def in_time(reply: Awaitable[T], seconds: float) -> T:
    """Return what is awaited, or raise redis-py's `TimeoutError`."""
    try:
        async with asyncio.timeout(seconds):
            return await reply
    except TimeoutError as error:
        raise exceptions.TimeoutError("There was no answer in time.") from error
    except AttributeError as error:
        # So redis-py's cluster client fails in one task when it closes, because of another task, a
        # connection that the first one is reading from.
        raise exceptions.ConnectionError("The connection was closed by another task.") from error
