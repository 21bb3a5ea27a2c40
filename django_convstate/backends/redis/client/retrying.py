"""Sending what an operation says, again where a connection broke, within its time.

That is safe: a change that was applied already is not applied again.
"""

import asyncio
import builtins
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.exceptions import ConnectionError, NoScriptError, RedisError, TimeoutError

from ..errors import may_be_tried_again
from ..operations import Operation
from .connections import Place, adrop_idle, drop_idle, target_of
from .deadline import Deadline

LATE: Final = 0.1  # of its timeout: then the event loop itself is overdue

T = TypeVar("T")


def send(place: Place, client: Any, operation: Operation[Any]) -> Any:
    """Return the reply of the server."""

    def attempt(again: bool) -> Any:
        if again:
            return client.execute_command(*operation.again())
        return client.execute_command(*operation.command, **target_of(client, operation.key))

    return persist(place, client, place.timeout, attempt)


def persist(place: Place, client: Any, seconds: float, attempt: Callable[[bool], T]) -> T:
    """Return what `attempt` does. It is told whether it is called again, for then the server may
    not know the script."""
    tries, again = place.tries, False
    with Deadline(seconds):  # for all tries together
        while True:
            try:
                return attempt(again)
            except NoScriptError:
                if again:
                    raise
            except RedisError as error:
                tries -= 1
                if not (tries and may_be_tried_again(error)):
                    raise
                drop_idle(client)
            again = True


async def asend(place: Place, client: Any, operation: Operation[Any]) -> Any:
    command, target = operation.command, target_of(client, operation.key)
    tries, again = place.tries, False
    until = time.monotonic() + place.timeout  # for all tries together
    while True:
        try:
            reply = client.execute_command(*command, **target)
            return await in_time(reply, until - time.monotonic())
        except NoScriptError:
            if again:
                raise
        except RedisError as error:
            # A time-out that comes too late itself: the loop was busy elsewhere, and the
            # server's answer may have been lying there.
            late = (
                isinstance(error, TimeoutError) and time.monotonic() > until + LATE * place.timeout
            )
            tries -= 1
            if not (tries and (late or may_be_tried_again(error))):
                raise
            if late:
                until = time.monotonic() + place.timeout
            await adrop_idle(client)
        command, target, again = operation.again(), {}, True


async def in_time(reply: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await reply
    except builtins.TimeoutError as error:
        raise TimeoutError("There was no answer in time.") from error
    except AttributeError as error:
        # So the client of a cluster fails in one task when it closes, because of another task, the
        # connection that the first one is reading from.
        raise ConnectionError("The connection was closed by another task.") from error
