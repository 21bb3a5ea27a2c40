"""Sending again where a connection broke, within the time of one operation. There is no other layer
of retries.

It is safe: a change that was applied already is not applied again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

from redis import exceptions

from ..errors import is_retryable
from ..operations import Operation
from .deadline import Deadline

LATE: Final = 0.1  # share of a timeout: if it fires later than that, the loop was busy elsewhere

S = TypeVar("S")
T = TypeVar("T")
Attempt: TypeAlias = Callable[[Any, S, bool], T]


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
            late = time.monotonic() > until + LATE * seconds
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
    """Send `operation` to a single server. Returns the reply; of an async client, an awaitable."""
    return client.execute_command(*(operation.full_command() if full else operation.command))


def execute_in_cluster(client: Any, operation: Operation[Any], full: bool) -> Any:
    """See `execute`. Names the node that has the key, as far as it is known: else redis-py's client
    works that out from every key of a script, twice."""
    if full:
        return client.execute_command(*operation.full_command())
    target = {}
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
