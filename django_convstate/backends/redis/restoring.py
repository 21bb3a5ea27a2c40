"""Restores a conversation: its messages are staged under keys that no client reads, and then all
of it is made visible at once."""

import secrets
from collections.abc import Iterator
from typing import Any, Final

from ..records import Record, entry_size
from ..toolkit.packed import data_of, given_id, key_of, locator
from . import scripts
from .command import Argument, Operation, Reply, milliseconds, nothing, script_operation, ttl_ms
from .operations import Operations, flat
from .replies import PARTS, refusal_to_restore

BATCH_SIZE: Final = 500  # messages in one round trip
BATCH_BYTES: Final = 256 * 2**10  # and bytes of them, unless one alone has more
STAGED_SECONDS: Final = 600  # for which what is staged is kept


class Restoration:
    """The operations that restore one conversation: all of `stage`, and then `finish`."""

    def __init__(self, operations: Operations, id: str, record: Record) -> None:
        self._operations = operations
        self._id = id
        self._record = record
        self._count = self._given = self._bytes = 0
        self._last_key = record.last_key
        # Not as the keys of a conversation are called, so that a listing does not find it.
        stem = f"{operations.prefix}:staged-{secrets.token_hex(8)}:{{{id}}}"
        self._staged = f"{stem}:messages", f"{stem}:ids"

    def stage(self, messages: Iterator[bytes]) -> Iterator[Operation[None]]:
        """Yield an operation for each batch of packed messages."""
        for batch in _batches(messages):
            ids = [(id, packed) for packed in batch if (id := given_id(packed)) is not None]
            given = [each for id, packed in ids for each in (locator(id), key_of(packed))]
            self._count += len(batch)
            self._given += len(ids)
            self._bytes += sum(len(data_of(packed)) for packed in batch)
            self._last_key = max(self._last_key, key_of(batch[-1]))
            arguments: list[Argument] = [milliseconds(STAGED_SECONDS), len(ids), *given, *batch]
            yield script_operation(scripts.STAGE, self._staged, arguments, nothing)

    def finish(
        self, *, unless_deleted: bool = False, replaces: int | None = None
    ) -> Operation[None]:
        """Return the operation that makes visible what was staged, in the place of a version."""
        record, operations = self._record, self._operations
        saved = _moment(record.modified_at)

        def read(reply: Any) -> Reply[None]:
            if reply[0] != 1:
                raise refusal_to_restore(*reply)
            if not (owner := record.owner):
                return Reply(None)
            # It is removed first: the index takes no save for the last one that is an earlier one.
            ttl, id = ttl_ms(record.ttl), self._id
            return Reply(None, operations.indexing(owner, id, ttl, saved, former_id=id))

        state_size = sum(entry_size(key, value) for key, value in record.state.items())
        parts = PARTS.pack(
            self._count,
            record.dropped,
            len(record.state),
            self._given,
            self._bytes,
            state_size,
            saved,
            self._last_key,
        )
        arguments: tuple[Argument, ...] = (
            self._id,
            record.owner or "",
            record.version,
            _moment(record.created_at),
            _moment(record.last_accessed),
            ttl_ms(record.ttl),
            operations.max_age_ms,
            parts,
            "1" if unless_deleted else "",
            "" if replaces is None else replaces,
            secrets.token_hex(10),
            *flat(record.state.items()),
        )
        keys = operations.keys(self._id) + self._staged
        return script_operation(scripts.RESTORE, keys, arguments, read)


def _batches(messages: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for packed in messages:
        if batch and (len(batch) == BATCH_SIZE or size + len(packed) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(packed)
        size += len(packed)
    if batch:
        yield batch


def _moment(seconds: float) -> int:
    # As a cursor is rounded, so that the order of a listing stays what it was.
    return round(seconds * 1000)
