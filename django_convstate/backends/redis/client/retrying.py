"""Sending again, within the time limit of an operation, where a connection broke. There is no other
layer of retries. To send again is safe: a change that was applied already is not applied again.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from redis import exceptions

from ..command import Operation
from ..errors import is_retryable
from .deadline import Deadline, LoopDeadline, put_off, put_off_no_more

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
                put_off()  # it did answer
            except exceptions.RedisError as error:
                tries -= 1
                if not (tries and is_retryable(error)):
                    raise
                put_off_no_more()
                # The other connections may be broken, too. A cluster's client sees to its own.
                if (pool := getattr(client, "connection_pool", None)) is not None:
                    pool.disconnect(inuse_connections=False)
            full = True


async def aretrying(
    client: Any, tries: int, deadline: LoopDeadline, attempt: Attempt[S, Awaitable[T]], subject: S
) -> T:
    """See `retrying`. What was not answered in time because the event loop was busy is sent again,
    too."""
    full = False
    while True:
        try:
            return await deadline.wait_for(attempt(client, subject, full))
        except exceptions.NoScriptError:
            if full:
                raise
            deadline.put_off()
        except exceptions.RedisError as error:
            late = isinstance(error, exceptions.TimeoutError) and deadline.is_late
            tries -= 1
            if not (tries and (late or is_retryable(error))):
                raise
            if late:
                deadline.restart()
            else:
                deadline.put_off_no_more()
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
