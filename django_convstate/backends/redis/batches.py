"""Operations on many conversations, many in one round trip (to each node of a cluster)."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError, RedisError

from ...exceptions import ConversationCorrupt
from .client.clients import Clients
from .client.deadline import Deadline
from .client.retrying import Attempt, retrying
from .command import Operation, Reply
from .errors import CLIENT_ERRORS, is_damage, is_moving, is_wrong_type, translated
from .replies import MISREAD

BATCH_SIZE: Final = 100  # operations sent in one go: other clients are served between two batches
BATCH_TIMEOUT: Final = 5.0  # seconds for one batch, if an operation may not take longer

logger = logging.getLogger("django_convstate")

S = TypeVar("S")
T = TypeVar("T")


class Batches:
    """Sends operations to the server, or the cluster, of some clients."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def each(
        self, ids: Iterator[str], operation: Callable[[str], Operation[T]]
    ) -> Iterator[tuple[str, T | None]]:
        """Yield each id (or other name) and what the operation on it returns: see `run`."""
        for batch in batches(ids, BATCH_SIZE):
            yield from self.run({id: operation(id) for id in batch}).items()

    def one(self, operation: Operation[T]) -> T | None:
        """Send one operation, and return its value: see `run`. Raises `BackendUnavailable` where
        its keys are being moved to another node."""
        return self.run({"": operation}, skips_moving=False)[""]

    def run(
        self, operations: dict[str, Operation[T]], *, skips_moving: bool = True
    ) -> dict[str, T | None]:
        """Send operations in one round trip, and in another what then remains to be done.

        The value is None where what is stored is damaged, which the next load reports.
        There is none for a conversation that is being moved to another node.
        """
        try:
            with self._clients.sync() as client:
                send = partial(self.retrying, client.pooled(), _send_batch)
                results = send(operations)
                unknown = [n for n, result in results.items() if isinstance(result, NoScriptError)]
                results |= send({n: _in_full(operations[n]) for n in unknown})
                replies: dict[str, Reply[T] | None] = {}
                for name, result in results.items():
                    if not (isinstance(result, RedisError) and is_moving(result)):
                        replies[name] = _understood(operations[name], result)
                    elif not skips_moving:
                        raise result
                send({n: reply.then for n, reply in replies.items() if reply and reply.then})
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error
        if moving := len(operations) - len(replies):
            logger.warning(
                "%d conversations are being moved to another node of the cluster and were skipped. "
                "Repeat the listing or purge when the move is complete.",
                moving,
            )
        return {name: reply.value if reply else None for name, reply in replies.items()}

    def retrying(self, client: Any, attempt: Attempt[S, T], subject: S) -> T:
        config = self._clients.config
        deadline = Deadline(max(BATCH_TIMEOUT, config.timeout))
        return retrying(client, config.tries, deadline, attempt, subject)


def _send_batch(
    client: Any, operations: Mapping[str, Operation[Any]], _full: bool
) -> dict[str, Any]:
    """Return the reply to each operation, or the error that concerns it alone.

    A batch may be sent twice: at worst a conversation that was deleted already is not counted as
    deleted.
    """
    is_cluster = hasattr(client, "get_node_from_key")
    with client.pipeline(transaction=False) as pipe:
        for each in operations.values():
            # Else redis-py's cluster client asks a node for the keys of each single script.
            target = {"target_nodes": client.get_node_from_key(each.key)} if is_cluster else {}
            pipe.execute_command(*each.command, **target)
        replies = dict(zip(operations, pipe.execute(raise_on_error=False), strict=True))
    for reply in replies.values():
        if isinstance(reply, RedisError) and not _concerns_one(reply):
            raise reply
    return replies


def _understood(operation: Operation[T], result: Any) -> Reply[T] | None:
    """Return what a reply means; None where what is stored is damaged."""
    if isinstance(result, RedisError):
        return None
    try:
        return operation.read(result)
    except (ConversationCorrupt, *MISREAD):
        return None


def _in_full(operation: Operation[T]) -> Operation[T]:
    return replace(operation, command=operation.full_command())


def _concerns_one(error: RedisError) -> bool:
    is_damaged = is_wrong_type(error) or is_damage(error)
    return isinstance(error, NoScriptError) or is_damaged or is_moving(error)


def batches(ids: Iterator[S], size: int) -> Iterator[list[S]]:
    while batch := list(islice(ids, size)):
        yield batch
