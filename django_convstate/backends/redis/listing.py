"""Listing and purging: what concerns many conversations, batch by batch.

So many go in one round trip (to each node of a cluster), and a purge takes a breath now and then,
for everybody else. Conversations live on meanwhile, so what may be deleted is decided by the script
that deletes it.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError, RedisError

from ...exceptions import BackendUnavailable
from ..base import Progress, PurgeReport, Summary
from .connections import Clients, drop_idle
from .errors import Explained, is_wrong_type, may_be_tried_again
from .operations import Operation, Operations

BATCH: Final = 100  # operations sent in one go: others are served between two of them
SCAN_COUNT: Final = 1500  # keys that one SCAN looks at: a conversation has two or three
BREATH: Final = 0.01  # seconds between two batches of a purge

T = TypeVar("T")


class Listing:
    def __init__(self, operations: Operations, clients: Clients, explained: Explained) -> None:
        self._operations = operations
        self._clients = clients
        self._explained = explained

    def of_owner(self, owner: str) -> list[Summary]:
        """Return what belongs to `owner`, newest activity first."""
        found, expired = [], []
        for batch in _batches(self._owned(owner), BATCH):
            for id, summary in zip(batch, self._summaries(batch), strict=True):
                if summary is not None and summary.owner == owner:
                    found.append(summary)
                else:
                    expired.append(id)
        self._forget(owner, expired)
        return sorted(found, key=lambda summary: summary.last_accessed, reverse=True)

    def everything(self) -> Iterator[Summary]:
        """Yield all there are, perhaps millions, in no order."""
        for batch in _batches(self._ids(), BATCH):
            yield from filter(None, self._summaries(batch))

    def purge(
        self,
        idle_for: float | None,
        owner: str | None,
        dry_run: bool,
        batch_size: int,
        progress: Progress | None,
    ) -> PurgeReport:
        examined = deleted = 0
        ids = self._ids() if owner is None else self._owned(owner)
        for batch in _batches(ids, batch_size):
            verdicts = [
                verdict
                for part in _batches(iter(batch), BATCH)
                for verdict in self._run(
                    [self._operations.purge(id, idle_for, owner, dry_run) for id in part]
                )
            ]
            examined += sum(verdict is not None for verdict in verdicts)
            deleted += verdicts.count(True)
            if owner is not None:
                self._forget(
                    owner,
                    [id for id, verdict in zip(batch, verdicts, strict=True) if verdict is None],
                )
            if progress:
                progress(examined, None)
            time.sleep(0 if dry_run else BREATH)
        return PurgeReport(examined, deleted, dry_run)

    def _ids(self) -> Iterator[str]:
        stem = self._operations.prefix + ":{"
        with self._explained:
            for key in self._clients.turn().redis.scan_iter(
                match=f"{stem}*}}:meta", count=SCAN_COUNT
            ):
                yield key.decode().removeprefix(stem).removesuffix("}:meta")

    def _owned(self, owner: str) -> Iterator[str]:
        # All at once, and not as they are asked for: the index shrinks while they are deleted.
        ids: list[str] = []
        cursor: int | None = 0
        while cursor is not None:
            (answer,) = self._run([self._operations.owned(owner, cursor)])
            cursor, page = answer or (None, [])
            ids += page
        return iter(dict.fromkeys(ids))

    def _summaries(self, ids: list[str]) -> list[Summary | None]:
        return self._run([self._operations.summary(id) for id in ids])

    def _forget(self, owner: str, ids: list[str]) -> None:
        # Where writes are refused listing goes on; what is left over is found again.
        with suppress(BackendUnavailable):
            for batch in _batches(iter(ids), BATCH):
                self._run([self._operations.forget(owner, batch)])

    def _run(self, operations: list[Operation[T]]) -> list[T | None]:
        """Send operations in one go, and then what they leave to do. None is the answer where
        under a key is something else, which whoever loads it gets to know."""
        with self._explained, self._clients.turn() as client:
            replies = self._send(client, [(each, each.command) for each in operations])
            if unknown := [n for n, r in enumerate(replies) if isinstance(r, NoScriptError)]:
                again = [(operations[n], operations[n].again()) for n in unknown]
                for n, reply in zip(unknown, self._send(client, again), strict=True):
                    replies[n] = reply
            answers = [
                None if isinstance(reply, RedisError) else operation.read(reply)
                for operation, reply in zip(operations, replies, strict=True)
            ]
            left = [answer.then for answer in answers if answer and answer.then]
            self._send(client, [(each, each.command) for each in left])
        return [None if answer is None else answer.value for answer in answers]

    def _send(
        self, client: Any, commands: list[tuple[Operation[Any], tuple[Any, ...]]]
    ) -> list[Any]:
        """Return the replies. Whatever is sent here may be sent twice: at worst a conversation
        that was deleted and not counted is not counted again."""
        place = self._clients.place
        for tries_left in reversed(range(place.tries)):
            try:
                with client.pipeline(transaction=False) as pipe:
                    for operation, command in commands:
                        # Else the client asks a node for the keys of each single script.
                        node = client.get_node_from_key(operation.key) if place.is_cluster else None
                        pipe.execute_command(*command, **({"target_nodes": node} if node else {}))
                    replies: list[Any] = pipe.execute(raise_on_error=False)
                for reply in replies:
                    if isinstance(reply, RedisError) and not _concerns_one(reply):
                        raise reply
                return replies
            except RedisError as error:
                if not (tries_left and may_be_tried_again(error)):
                    raise
            drop_idle(client)
        raise AssertionError("there is at least one try")


def _concerns_one(error: RedisError) -> bool:
    return isinstance(error, NoScriptError) or is_wrong_type(error)


def _batches(ids: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(islice(ids, size)):
        yield batch
