"""Each operation on Redis, once for sync and async code: what to send, and what the reply means.

A conversation is four keys with one hash tag, so that they live in one slot of a cluster:

    convstate:{ID}:meta      hash: id, v(ersion), o(wner), c(reated), a(ccessed), t(tl; 0: for
                             ever), p(arts: see scripts/common.lua), w(riters: see commit_log.lua),
                             x (when the owner's index is due), i (the last save that it knows
                             of), e (when the other keys expire), h (the chain of its commits:
                             see scripts/common.lua); or, for a day after a deletion, only
                             "gone": the new id if it was moved
    convstate:{ID}:state     hash: state key to bytes
    convstate:{ID}:messages  list: see toolkit/packed.py
    convstate:{ID}:ids       hash: locator of an id that is no sort key, to the key it was given

beside it, for seconds, the queue of leases for its turns,

    convstate:{ID}:line      see scripts/lease_queue.lua

and each owner has an index, two sorted sets of ids:

    convstate:owner:{HASH}        by when each has expired unless it is used again
    convstate:owner:{HASH}:saved  by its last save: see owner_index.py

Times are milliseconds since the epoch by the server's clock, durations are milliseconds.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Final

from ...exceptions import ConversationCorrupt
from ..records import (
    PARTIAL_SECONDS,
    QUARANTINE_SECONDS,
    TOMBSTONE_SECONDS,
    Acquired,
    Change,
    Committed,
    Create,
    Record,
    Replacement,
)
from ..reports import ConversationSummary, Selection
from ..toolkit.packed import PackedMessages, Pair, checked, locator, to_append
from . import scripts
from .command import Argument, Operation, Reply, milliseconds, nothing, script_operation, ttl_ms
from .owner_index import OwnerIndex
from .replies import (
    NOT_A_RECORD,
    UNCHANGED_SIZE,
    committed_of,
    record_of,
    refusal,
    summary_of,
    text,
)

# The numbers of a commit are packed into one argument, because redis-py's asyncio client takes its
# time over each. See scripts/commit.lua.
_HEAD: Final = struct.Struct("<22d")
_NONE: Final = -1
flat: Final[Callable[[Iterable[tuple[Argument, ...]]], Iterable[Argument]]] = chain.from_iterable
_CREATE: Final = {Create.EITHER: 0, Create.MUST_BE_NEW: 1, Create.MUST_EXIST: 2}


class Operations:
    """The operations on conversations whose keys begin with `prefix`."""

    def __init__(self, prefix: str, max_age: float | None) -> None:
        self.prefix = prefix
        self.max_age_ms = _NONE if max_age is None else milliseconds(max_age)
        self.index = OwnerIndex(prefix)

    def keys(self, id: str) -> tuple[str, ...]:
        """Return the keys of the meta hash, the state, the messages and the ids."""
        stem = f"{self.prefix}:{{{id}}}"
        return f"{stem}:meta", f"{stem}:state", f"{stem}:messages", f"{stem}:ids"

    def queue_key(self, id: str) -> str:
        """Return the key of the queue of leases."""
        return f"{self.prefix}:{{{id}}}:line"

    def load(
        self, id: str, window: int, known: Record | None = None, peeks: str = ""
    ) -> Operation[Record | None]:
        """See `RedisBackend.load`."""
        script, keys, etag = scripts.LOAD, self.keys(id), b"" if known is None else known.etag
        arguments: tuple[Argument, ...] = (window, self.max_age_ms, peeks, etag)
        # Not by script_operation, here and in commit: each turn pays for its calls.
        command = ("EVALSHA", script.sha, 4, *keys, *arguments)
        return Operation(command, partial(self._loaded, id, window, known), script)

    def peek(self, id: str, window: int, command: str = "EVALSHA_RO") -> Operation[Record | None]:
        """Load without writing, also where a server takes no writes, by one of two commands."""
        operation = self.load(id, window, peeks="1")
        return replace(operation, command=(command, *operation.command[1:]))

    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Operation[Acquired]:
        """See `RedisBackend.acquire`."""

        def read(reply: Any) -> Reply[Acquired]:
            position, *loaded = reply
            if position:
                return Reply(Acquired(position, None))
            record = self._loaded(id, window, known, loaded[0] if loaded else None)
            return Reply(Acquired(0, record.value), record.then)

        keys = (*self.keys(id), self.queue_key(id))
        etag = b"" if known is None else known.etag
        arguments = (window, self.max_age_ms, "", etag, _lease(lease), milliseconds(seconds))
        return script_operation(scripts.ACQUIRE, keys, arguments, read)

    def renew(self, id: str, lease: str, seconds: float) -> Operation[bool]:
        """See `RedisBackend.renew`."""
        arguments = (_lease(lease), milliseconds(seconds))
        return script_operation(scripts.RENEW, (self.queue_key(id),), arguments, _truth)

    def release(self, id: str, lease: str) -> Operation[None]:
        """See `RedisBackend.release`."""
        return script_operation(scripts.RELEASE, (self.queue_key(id),), (_lease(lease),), nothing)

    def commit(self, id: str, change: Change) -> Operation[Committed]:
        """See `RedisBackend.commit`."""
        commit, appended = change.commit, to_append(change.append)
        commit.sending()
        arguments: list[Argument] = [
            id,
            self._head(change, len(appended)),
            commit.writer + change.seen[1],
            change.owner or "",
            "" if change.visitor is None else f"={change.visitor}",
            *flat(change.set.items()),
            *change.unset,
        ]
        if change.increment:
            arguments += flat(change.increment.items())
        if change.expected:
            arguments += flat(map(_expectation, change.expected.items()))
        if change.replace:
            arguments += flat(map(_replacement, change.replace))
        arguments += appended
        if change.once:
            indexes = [i for i, (each, _) in enumerate(change.append) if each in change.once]
            arguments.append(struct.pack(f"<{len(indexes)}I", *indexes))
        script, keys = scripts.COMMIT, self.keys(id)
        if change.lease is not None:
            script, keys = scripts.COMMIT_IN_TURN, (*keys, self.queue_key(id))
            arguments.append(_lease(change.lease))
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        return Operation(command, partial(self._committed, id, change), script)

    def read_messages(self, id: str, start: int, stop: int) -> Operation[Sequence[Pair]]:
        """See `RedisBackend.read_messages`."""

        def read(reply: Any) -> Reply[Sequence[Pair]]:
            first, packed = reply
            return Reply(PackedMessages(checked(packed), first))

        return script_operation(scripts.PAGE, self.keys(id)[:3], (start, stop), read)

    def find(self, id: str, message_id: str) -> Operation[tuple[int, bytes] | None]:
        """See `RedisBackend.find`."""

        def read(reply: Any) -> Reply[tuple[int, bytes] | None]:
            if reply is None:
                return Reply(None)
            if not isinstance(reply[0], int):
                raise refusal(Change(), *reply)
            position, packed = reply
            [(found_id, data)] = PackedMessages(checked([packed]), position)
            return Reply((position, data) if found_id == message_id else None)

        arguments = (locator(message_id), message_id)
        return script_operation(scripts.FIND, self.keys(id), arguments, read)

    def exists(self, id: str) -> Operation[bool]:
        """See `RedisBackend.exists`."""
        return Operation(("HEXISTS", self.keys(id)[0], "v"), _truth)

    def touch(self, id: str, ttl: float | None) -> Operation[bool]:
        """See `RedisBackend.touch`."""

        def read(reply: Any) -> Reply[bool]:
            if not isinstance(reply[0], int):
                raise ConversationCorrupt(NOT_A_RECORD)
            found, new_ttl, saved, owner = (*reply, None, None, None)[:4]
            return Reply(bool(found), self.indexing(owner, id, new_ttl, saved) if owner else None)

        arguments = (_optional(ttl and ttl_ms(ttl)), self.max_age_ms)
        return script_operation(scripts.TOUCH, self.keys(id), arguments, read)

    def delete(self, id: str, expected_version: int | None) -> Operation[bool]:
        """See `RedisBackend.delete`."""

        def read(reply: Any) -> Reply[bool]:
            if not isinstance(reply[0], int):
                raise refusal(Change(expected_version=expected_version), *reply)
            deleted, owner = (*reply, None)[:2]
            return Reply(bool(deleted), self.index.forget(text(owner), [id]) if owner else None)

        arguments = (milliseconds(TOMBSTONE_SECONDS), _optional(expected_version), "", "", "")
        return script_operation(scripts.DELETE, self.keys(id), arguments, read)

    def purge(self, id: str, selection: Selection, dry_run: bool) -> Operation[bool | None]:
        """Delete a conversation if it is selected; in a dry run, only tell whether it is. None:
        there is no such conversation."""

        def read(reply: Any) -> Reply[bool | None]:
            deleted, owner = (*reply, None)[:2]
            if deleted == 0:
                return Reply(None)
            forget = self.index.forget(text(owner), [id]) if owner and not dry_run else None
            return Reply(deleted == 1, forget)

        arguments = (
            milliseconds(TOMBSTONE_SECONDS),
            "",
            _optional(selection.idle_for and milliseconds(selection.idle_for)),
            _optional(selection.owner),
            "1" if dry_run else "",
        )
        return script_operation(scripts.DELETE, self.keys(id), arguments, read)

    def rename(self, id: str, new_id: str, expected_version: int | None) -> Operation[bool]:
        """See `RedisBackend.rename`."""

        def read(reply: Any) -> Reply[bool]:
            if not isinstance(reply[0], int):
                raise refusal(Change(expected_version=expected_version), *reply)
            moved, owner, ttl, saved = (*reply, None, None, None)[:4]
            index = self.indexing(owner, new_id, ttl, saved, former_id=id) if owner else None
            return Reply(bool(moved), index)

        arguments = (new_id, _optional(expected_version), milliseconds(TOMBSTONE_SECONDS))
        return script_operation(scripts.RENAME, self.keys(id) + self.keys(new_id), arguments, read)

    def summary(
        self, id: str, keys: Sequence[str] = (), bounds: str = ""
    ) -> Operation[ConversationSummary | None]:
        """Describe a conversation without sliding its expiry, with the values under some keys of
        its state. None: there is no such one."""
        return script_operation(
            scripts.SUMMARY,
            self.keys(id)[:3],
            keys,
            lambda reply: Reply(summary_of(reply, keys, bounds)),
        )

    def probe(self, key: str) -> Operation[None]:
        """Write to `key`, because a server may answer and refuse writes alone."""
        return script_operation(scripts.PROBE, (key,), (), nothing)

    def quarantine(self, id: str) -> Operation[None]:
        """Rename the keys of a damaged conversation, so that it is neither served nor
        overwritten. A sound one stays."""
        arguments = (milliseconds(QUARANTINE_SECONDS), milliseconds(PARTIAL_SECONDS))
        return script_operation(scripts.QUARANTINE, self.keys(id), arguments, nothing)

    def indexing(
        self, owner: Any, id: str, ttl_ms: Any, saved: Any, former_id: str = ""
    ) -> Operation[None]:
        """Add the conversation to its owner's index, and then acknowledge that in the conversation:
        whatever happens in between, it stays due."""
        owner, ttl_ms, saved = text(owner), int(ttl_ms), int(saved)
        arguments = (owner, ttl_ms, saved)
        ack = script_operation(scripts.INDEX_ACK, self.keys(id)[:1], arguments, nothing)
        return self.index.add(owner, [(id, ttl_ms, saved)], former_id, then=ack)

    def _loaded(
        self, id: str, window: int, known: Record | None, reply: Any
    ) -> Reply[Record | None]:
        if reply is None:
            return Reply(None)
        if known is not None and len(reply) == UNCHANGED_SIZE:
            accessed, expires, ttl, index_due = reply
            expires = math.inf if expires < 0 else expires / 1000  # -1: it never expires
            record = known.again(window, accessed / 1000, expires, int(ttl) / 1000 or math.inf)
        else:
            record, index_due = record_of(id, reply)
        if not (index_due and record.owner):
            return Reply(record)
        saved = round(record.modified_at * 1000)
        return Reply(record, self.indexing(record.owner, id, ttl_ms(record.ttl), saved))

    def _committed(self, id: str, change: Change, reply: Any) -> Reply[Committed]:
        if not isinstance(reply[0], int):
            raise refusal(change, *reply)
        now, ttl, owner = reply[4:7]
        index = self.indexing(owner, id, ttl, now) if owner else None
        return Reply(committed_of(change, reply), index)

    def _head(self, change: Change, appended: int) -> bytes:
        return _HEAD.pack(
            _CREATE[change.create],
            change.unless_deleted,
            _NONE if change.expected_version is None else change.expected_version,
            _NONE if change.ttl is None else ttl_ms(change.ttl),
            ttl_ms(change.default_ttl),
            self.max_age_ms,
            _NONE if change.keep_messages is None else change.keep_messages,
            change.commit.number,
            change.commit.floor,
            len(change.set),
            len(change.unset),
            len(change.increment),
            len(change.expected),
            len(change.replace),
            appended,
            bool(change.once),
            _NONE if change.max_state_bytes is None else change.max_state_bytes,
            _NONE if change.max_messages is None else change.max_messages,
            change.drop_oldest,
            change.release,
            change.seen[0],
            change.window,
        )


def _digest(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _expectation(item: tuple[str, bytes | None]) -> tuple[Argument, ...]:
    return item[0], _digest(item[1])


def _replacement(replacement: Replacement) -> tuple[Argument, ...]:
    id = replacement.id
    return locator(id), id, _digest(replacement.old), replacement.new


def _optional(value: Argument | None) -> Argument:
    return "" if value is None else value


def _lease(lease: str) -> bytes:
    return hashlib.blake2b(lease.encode(), digest_size=16).digest()


def _truth(reply: Any) -> Reply[bool]:
    return Reply(bool(reply))
