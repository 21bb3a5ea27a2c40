"""Listing and purging: what concerns many conversations, batch by batch.

So many go in one round trip (to each node of a cluster), and a purge takes a breath now and then,
for everybody else. Conversations live on meanwhile, so what may be deleted is decided by the script
that deletes it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final, TypeVar

from redis.exceptions import NoScriptError, RedisError

from ...exceptions import BackendUnavailable
from ..records import ConversationSummary, Progress, PurgeReport, Selection
from .client.connections import Clients
from .client.retrying import persist
from .errors import Explained, is_moving, is_wrong_type
from .operations import Answer, Operation, Operations

BATCH: Final = 100  # operations sent in one go: others are served between two of them
SCAN_COUNT: Final = 1500  # keys that one SCAN looks at: a conversation has two or three
BATCH_SECONDS: Final = 5.0  # that one batch may take, if an operation may not take longer
BREATH: Final = 0.01  # seconds between two batches of a purge

logger = logging.getLogger("django_convstate")

T = TypeVar("T")


class Listing:
    def __init__(self, operations: Operations, clients: Clients, explained: Explained) -> None:
        self._operations = operations
        self._clients = clients
        self._explained = explained

    def of_owner(self, owner: str) -> list[ConversationSummary]:
        """Return what belongs to `owner`, newest activity first."""
        found, expired = [], []
        for batch in _batches(self._owned(owner), BATCH):
            for id, summary in self._summaries(batch).items():
                if summary is not None and summary.owner == owner:
                    found.append(summary)
                else:
                    expired.append(id)
        self._forget(owner, expired)
        return sorted(found, key=lambda summary: summary.last_accessed, reverse=True)

    def everything(self) -> Iterator[ConversationSummary]:
        """Yield all there are, perhaps millions, in no order."""
        for batch in _batches(self._ids(), BATCH):
            yield from filter(None, self._summaries(batch).values())

    def purge(
        self,
        selection: Selection,
        dry_run: bool,
        batch_size: int,
        progress: Progress | None,
    ) -> PurgeReport:
        """Delete what is selected, in batches; in a dry run, only count it."""
        owner = selection.owner
        examined = deleted = 0
        ids = self._ids() if owner is None else self._owned(owner)
        for batch in _batches(ids, batch_size):
            verdicts: dict[str, bool | None] = {}
            for part in _batches(iter(batch), BATCH):
                verdicts |= self._run(
                    {id: self._operations.purge(id, selection, dry_run) for id in part}
                )
            gone = [id for id, verdict in verdicts.items() if verdict is None]
            examined += len(verdicts) - len(gone)
            deleted += list(verdicts.values()).count(True)
            if owner is not None:
                self._forget(owner, gone)
            if progress:
                progress(examined, None)
            time.sleep(0 if dry_run else BREATH)
        return PurgeReport(examined, deleted, dry_run)

    def _ids(self) -> Iterator[str]:
        stem = self._operations.prefix + ":{"
        with self._explained:
            for key in self._keys(f"{stem}*}}:meta"):
                yield key.decode().removeprefix(stem).removesuffix("}:meta")

    def _keys(self, pattern: str) -> Iterator[bytes]:
        client = self._clients.turn().redis
        for node in client.get_primaries() if self._clients.place.is_cluster else [None]:
            cursor, keys = self._page(client, node, 0, pattern)
            yield from keys
            while cursor:
                cursor, keys = self._page(client, node, cursor, pattern)
                yield from keys

    def _page(self, client: Any, node: Any, cursor: int, pattern: str) -> tuple[int, list[bytes]]:
        target = {} if node is None else {"target_nodes": node}

        def attempt(_: bool) -> tuple[Any, list[bytes]]:
            reply: tuple[Any, list[bytes]] = client.scan(cursor, pattern, SCAN_COUNT, **target)
            return reply

        following, keys = persist(self._clients.place, client, self._seconds, attempt)
        return following if node is None else following[node.name], keys

    @property
    def _seconds(self) -> float:
        return max(BATCH_SECONDS, self._clients.place.timeout)

    def _owned(self, owner: str) -> Iterator[str]:
        # All at once, and not as they are asked for: the index shrinks while they are deleted.
        ids: list[str] = []
        cursor: int | None = 0
        while cursor is not None:
            answers = self._run({owner: self._operations.owned(owner, cursor)})
            cursor, page = answers.get(owner) or (None, [])
            ids += page
        return iter(dict.fromkeys(ids))

    def _summaries(self, ids: list[str]) -> dict[str, ConversationSummary | None]:
        return self._run({id: self._operations.summary(id) for id in ids})

    def _forget(self, owner: str, ids: list[str]) -> None:
        # Where writes are refused listing goes on; what is left over is found again.
        with suppress(BackendUnavailable):
            for batch in _batches(iter(ids), BATCH):
                self._run({owner: self._operations.forget(owner, batch)})

    def _run(self, operations: dict[str, Operation[T]]) -> dict[str, T | None]:
        """Send operations in one go, and then what they leave to do.

        The answer is None where under a key is something else, which whoever loads it gets to
        know. There is none for what is just being moved to another node.
        """
        with self._explained, self._clients.turn() as client:
            replies = dict(zip(operations, self._send(client, operations, False), strict=True))
            unknown = {n: o for n, o in operations.items() if isinstance(replies[n], NoScriptError)}
            replies |= zip(unknown, self._send(client, unknown, True), strict=True)
            answers: dict[str, Answer[T] | None] = {
                name: None if isinstance(reply, RedisError) else operations[name].read(reply)
                for name, reply in replies.items()
                if not (isinstance(reply, RedisError) and is_moving(reply))
            }
            if moving := len(operations) - len(answers):
                logger.warning("%d conversations are being moved, and were passed over.", moving)
            left = {name: answer.then for name, answer in answers.items() if answer and answer.then}
            self._send(client, left, False)
        return {name: answer.value if answer else None for name, answer in answers.items()}

    def _send(self, client: Any, operations: dict[str, Operation[Any]], again: bool) -> list[Any]:
        """Return the replies. Whatever is sent here may be sent twice: at worst a conversation
        that was deleted and not counted is not counted again."""
        place = self._clients.place

        def attempt(_: bool) -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                for operation in operations.values():
                    command = operation.again() if again else operation.command
                    # Else the client asks a node for the keys of each single script.
                    node = client.get_node_from_key(operation.key) if place.is_cluster else None
                    pipe.execute_command(*command, **({"target_nodes": node} if node else {}))
                replies: list[Any] = pipe.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError) and not _concerns_one(reply):
                    raise reply
            return replies

        return persist(place, client, self._seconds, attempt)


def _concerns_one(error: RedisError) -> bool:
    return isinstance(error, NoScriptError) or is_wrong_type(error) or is_moving(error)


def _batches(ids: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(islice(ids, size)):
        yield batch
