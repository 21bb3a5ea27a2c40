"""Listing and purging, which concern many conversations, batch by batch.

One batch is one round trip (to each node of a cluster), and a purge pauses now and then, so that
other clients are served. Conversations live on meanwhile, so the script that deletes one also
decides whether it is to be deleted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final

from ..reports import ConversationSummary, Progress, PurgeReport, Selection
from .batches import BATCH_SIZE, Batches, batches
from .client.clients import Clients
from .diagnostics.server_info import primaries
from .errors import CLIENT_ERRORS, translated
from .operations import Operations
from .owned import OwnedConversations
from .unlisted import erase_quarantined, keys_of, quarantined_keys

SCAN_COUNT: Final = 1500  # keys that one SCAN looks at: a conversation has two or three
PURGE_PAUSE: Final = 0.01  # seconds between two batches of a purge


class Listing:
    """What concerns many conversations of a `RedisBackend`."""

    def __init__(self, operations: Operations, clients: Clients) -> None:
        self._operations = operations
        self._clients = clients
        self._batches = Batches(clients)
        self._owned = OwnedConversations(operations, self._batches)

    def of_owner(
        self, owner: str, limit: int | None, after: str | None, keys: Sequence[str]
    ) -> Iterator[ConversationSummary]:
        """See `OwnedConversations.newest_first`."""
        return self._owned.newest_first(owner, limit, after, keys)

    def everything(self, keys: Sequence[str]) -> Iterator[ConversationSummary]:
        """Yield all conversations, perhaps millions, in no order."""
        summary_with = partial(self._operations.summary, keys=keys)
        for _, summary in self._batches.each(self._ids(), summary_with):
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
        ids = self._ids() if owner is None else iter(self._owned.ids(owner))
        if owner is not None and selection.is_thorough:
            ids = chain(ids, self._ids(owner))
        for batch in batches(ids, batch_size):
            verdicts = dict(self._batches.each(iter(batch), examine))
            gone = [id for id, verdict in verdicts.items() if verdict is None]
            examined += len(verdicts) - len(gone)
            deleted += list(verdicts.values()).count(True)
            if owner is not None:
                self._owned.forget(owner, gone)
            if progress:
                progress(examined, None)
            time.sleep(0 if dry_run else PURGE_PAUSE)
        if owner is not None and selection.is_thorough:
            deleted += self._purge_quarantine(owner, dry_run)
        return PurgeReport(examined, deleted, dry_run)

    def _purge_quarantine(self, owner: str, dry_run: bool) -> int:
        try:
            keys = self.keys(quarantined_keys(self._operations.prefix))
            return erase_quarantined(self._clients, owner, keys, dry_run)
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error

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
            for batch in batches(iter(set(self.keys(f"{self._operations.prefix}:*"))), BATCH_SIZE):
                with (
                    self._clients.sync() as client,
                    client.pooled().pipeline(transaction=False) as p,
                ):
                    change(p, batch)
                    p.execute()
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error

    def _ids(self, owner: str | None = None) -> Iterator[str]:
        stem = self._operations.prefix + ":{"
        keys = self.keys(f"{stem}*}}:meta")
        try:
            for key in keys if owner is None else keys_of(self._clients, owner, keys):
                with suppress(UnicodeDecodeError):  # which another program has put there
                    yield key.decode().removeprefix(stem).removesuffix("}:meta")
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error

    def keys(self, pattern: str) -> Iterator[bytes]:
        """Yield the keys that fit a pattern of SCAN, some of them perhaps twice. Raises what
        redis-py raises."""
        client = self._clients.sync().pooled()
        for target in primaries(client):
            cursor: int | None = None
            while cursor != 0:
                cursor, keys = self._batches.retrying(client, _scan, (target, cursor or 0, pattern))
                yield from keys


def _scan(client: Any, where: tuple[dict[str, Any], int, str], _full: bool) -> tuple[int, Any]:
    """Return where the next page of a node's keys begins (0: this was the last), and keys."""
    target, cursor, pattern = where
    following, keys = client.scan(cursor, pattern, SCAN_COUNT, **target)
    return following[target["target_nodes"].name] if target else following, keys
