"""Listing and purging, which concern many conversations, batch by batch.

One batch is one round trip (to each node of a cluster), and a purge pauses now and then, so that
other clients are served. Conversations live on meanwhile, so the script that deletes one also
decides whether it is to be deleted.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError, RedisError

from ...exceptions import BackendUnavailable, ConversationCorrupt
from ..reports import ConversationSummary, Progress, PurgeReport, Selection
from .client.clients import Clients
from .client.deadline import Deadline
from .client.retrying import Attempt, retrying
from .diagnostics.server_info import primaries
from .errors import CLIENT_ERRORS, is_damage, is_moving, is_wrong_type, translated
from .operations import Operation, Operations, Reply
from .replies import MISREAD

BATCH_SIZE: Final = 100  # operations sent in one go: other clients are served between two batches
BATCH_TIMEOUT: Final = 5.0  # seconds for one batch, if an operation may not take longer
SCAN_COUNT: Final = 1500  # keys that one SCAN looks at: a conversation has two or three
PURGE_PAUSE: Final = 0.01  # seconds between two batches of a purge

logger = logging.getLogger("django_convstate")

S = TypeVar("S")
T = TypeVar("T")


class Listing:
    """What concerns many conversations of a `RedisBackend`."""

    def __init__(self, operations: Operations, clients: Clients) -> None:
        self._operations = operations
        self._clients = clients

    def of_owner(self, owner: str, keys: Sequence[str]) -> list[ConversationSummary]:
        """Return the conversations of `owner`, in no order."""
        found, expired = [], []
        summary_with = partial(self._operations.summary, keys=keys)
        for id, summary in self.each(self._owned(owner), summary_with):
            if summary is not None and summary.owner == owner:
                found.append(summary)
            else:
                expired.append(id)
        self._forget(owner, expired)
        return found

    def everything(self, keys: Sequence[str]) -> Iterator[ConversationSummary]:
        """Yield all conversations, perhaps millions, in no order."""
        summary_with = partial(self._operations.summary, keys=keys)
        for _, summary in self.each(self._ids(), summary_with):
            if summary is not None:
                yield summary

    def purge(
        self,
        selection: Selection,
        dry_run: bool,
        batch_size: int,
        progress: Progress | None,
    ) -> PurgeReport:
        """Delete what is selected, in batches; in a dry run, only count it."""
        owner = selection.owner
        examine = partial(self._operations.purge, selection=selection, dry_run=dry_run)
        examined = deleted = 0
        ids = self._ids() if owner is None else self._owned(owner)
        for batch in _batches(ids, batch_size):
            verdicts = dict(self.each(iter(batch), examine))
            gone = [id for id, verdict in verdicts.items() if verdict is None]
            examined += len(verdicts) - len(gone)
            deleted += list(verdicts.values()).count(True)
            if owner is not None:
                self._forget(owner, gone)
            if progress:
                progress(examined, None)
            time.sleep(0 if dry_run else PURGE_PAUSE)
        return PurgeReport(examined, deleted, dry_run)

    def erase(self) -> None:
        """Delete every key with this prefix."""
        self._to_all_keys(lambda pipe, keys: [pipe.unlink(key) for key in keys])

    def age(self, ms: int) -> None:
        """Have every key with this prefix expire so many milliseconds sooner; below 0: later."""

        def shorten(pipe: Any, keys: list[bytes]) -> None:
            for key in keys:
                pipe.pttl(key)
            left = dict(zip(keys, pipe.execute(), strict=True))
            for key, now in left.items():
                if now >= 0:  # it does expire; a time that is over deletes it
                    pipe.pexpire(key, now - ms)

        self._to_all_keys(shorten)

    def _to_all_keys(self, change: Callable[[Any, list[bytes]], object]) -> None:
        try:
            for batch in _batches(iter(set(self.keys(f"{self._operations.prefix}:*"))), BATCH_SIZE):
                with self._clients.sync() as client, client.redis.pipeline(transaction=False) as p:
                    change(p, batch)
                    p.execute()
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error

    def _ids(self) -> Iterator[str]:
        stem = self._operations.prefix + ":{"
        try:
            for key in self.keys(f"{stem}*}}:meta"):
                with suppress(UnicodeDecodeError):  # which another program has put there
                    yield key.decode().removeprefix(stem).removesuffix("}:meta")
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error

    def keys(self, pattern: str) -> Iterator[bytes]:
        """Yield the keys that fit a pattern of SCAN, some of them perhaps twice. Raises what
        redis-py raises."""
        client = self._clients.sync().redis
        for target in primaries(client):
            cursor: int | None = None
            while cursor != 0:
                cursor, keys = self._retrying(client, _scan, (target, cursor or 0, pattern))
                yield from keys

    def _owned(self, owner: str) -> Iterator[str]:
        # All at once, and not as they are asked for: the index shrinks while they are deleted.
        ids: list[str] = []
        cursor: int | None = 0
        while cursor is not None:
            values = self._run({owner: self._operations.owned(owner, cursor)})
            cursor, page = values.get(owner) or (None, [])
            ids += page
        return iter(dict.fromkeys(ids))

    def each(
        self, ids: Iterator[str], operation: Callable[[str], Operation[T]]
    ) -> Iterator[tuple[str, T | None]]:
        """Yield each id (or other name) and what the operation on it returns. None: what is stored
        is damaged. One that is being moved to another node is left out."""
        for batch in _batches(ids, BATCH_SIZE):
            yield from self._run({id: operation(id) for id in batch}).items()

    def _forget(self, owner: str, ids: list[str]) -> None:
        # Where writes are refused listing goes on; what is left over is found again.
        with suppress(BackendUnavailable):
            for batch in _batches(iter(ids), BATCH_SIZE):
                self._run({owner: self._operations.forget(owner, batch)})

    def _run(self, operations: dict[str, Operation[T]]) -> dict[str, T | None]:
        """Send operations in one round trip, and in another what then remains to be done.

        The value is None where what is stored is damaged, which the next load reports.
        There is none for a conversation that is being moved to another node.
        """
        try:
            with self._clients.sync() as client:
                send = partial(self._retrying, client.redis, _send_batch)
                results = send(operations)
                unknown = [n for n, result in results.items() if isinstance(result, NoScriptError)]
                results |= send({n: _in_full(operations[n]) for n in unknown})
                replies: dict[str, Reply[T] | None] = {
                    name: _understood(operations[name], result)
                    for name, result in results.items()
                    if not (isinstance(result, RedisError) and is_moving(result))
                }
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

    def _retrying(self, client: Any, attempt: Attempt[S, T], subject: S) -> T:
        config = self._clients.config
        deadline = Deadline(max(BATCH_TIMEOUT, config.timeout))
        return retrying(client, config.tries, deadline, attempt, subject)


def _scan(client: Any, where: tuple[dict[str, Any], int, str], _full: bool) -> tuple[int, Any]:
    """Return where the next page of a node's keys begins (0: this was the last), and keys."""
    target, cursor, pattern = where
    following, keys = client.scan(cursor, pattern, SCAN_COUNT, **target)
    return following[target["target_nodes"].name] if target else following, keys


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


def _batches(ids: Iterator[S], size: int) -> Iterator[list[S]]:
    while batch := list(islice(ids, size)):
        yield batch
