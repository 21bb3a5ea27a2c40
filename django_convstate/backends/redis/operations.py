"""Each operation on Redis, once for sync and async code: what to send, and what the reply means.

A conversation is three keys with one hash tag, so that they live in one slot of a cluster:

    convstate:{ID}:meta      hash: id, v(ersion), o(wner), c(reated), a(ccessed), t(tl), x (when the
                             owner's index is due), b(ytes of the messages), l(og of commits)
    convstate:{ID}:state     hash: state key to JSON
    convstate:{ID}:messages  list of JSON

beside it, for seconds, who waits for a turn,

    convstate:{ID}:line      see line.lua

and each owner has an index, a sorted set of ids. Times are milliseconds since the epoch by the
server's clock, durations are milliseconds.
"""

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from ...exceptions import ConversationConflict, ConversationCorrupt
from ..records import (
    QUARANTINE_SECONDS,
    REMEMBERED_COMMITS,
    TURN_LOST,
    Acquired,
    Change,
    Committed,
    ConversationSummary,
    Create,
    Record,
    Selection,
    beyond_64_bits,
    moment,
    not_a_number,
)
from ..toolkit.stored import CommitLog

T = TypeVar("T")
Word = str | bytes | int | float


class Script:
    """A Lua script, which the server knows by the SHA-1 of its text."""

    def __init__(self, *parts: bytes) -> None:
        self.text = b"".join(parts)
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


def _lua(name: str) -> bytes:
    return (Path(__file__).parent / "scripts" / f"{name}.lua").read_bytes()


def _function(name: str) -> bytes:
    return b"local function %b()\n%b\nend\n" % (name.encode(), _lua(name))


LOAD: Final = Script(_lua("meta"), _lua("load"))
COMMIT: Final = Script(_lua("line"), _lua("meta"), _lua("commit"))
ACQUIRE: Final = Script(_lua("line"), _lua("meta"), _function("load"), _lua("acquire"))
RENEW: Final = Script(_lua("line"), _lua("renew"))
RELEASE: Final = Script(_lua("line"), _lua("release"))
TOUCH: Final = Script(_lua("meta"), _lua("touch"))
SET_ASIDE: Final = Script(_lua("meta"), _lua("aside"))
DELETE: Final = Script(_lua("delete"))
SUMMARY: Final = Script(_lua("summary"))
INDEX: Final = Script(_lua("index"))
NOTED: Final = Script(_lua("noted"))
PROBE: Final = Script(_lua("probe"))

PAGE: Final = 500  # ids that are read from an index in one go

# The numbers of a commit go in one word, because the asyncio client takes its time over each.
_NOT_OURS: Final = "The fields of the stored hash are none of ours."
NONE: Final = -1
_HEAD: Final = struct.Struct("<12d")
_CREATE: Final = {Create.EITHER: 0, Create.MUST_BE_NEW: 1, Create.MUST_EXIST: 2}


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One round trip: a command, and what its reply means."""

    command: tuple[Word, ...]
    read: Callable[[Any], "Answer[T]"]
    script: Script | None = None

    @property
    def key(self) -> Word:
        """The first key, by which a cluster knows whom to ask."""
        return self.command[1 if self.script is None else 3]

    def again(self) -> tuple[Word, ...]:
        """Return the command for a server that may not know the script, and will know it then."""
        if self.script is None:
            return self.command
        return str(self.command[0]).replace("SHA", ""), self.script.text, *self.command[2:]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a reply means, and what is left to do: the index of an owner lives in another slot."""

    value: T
    then: "Operation[None] | None" = None


class Operations:
    """The operations on conversations whose keys begin with `prefix`."""

    def __init__(self, prefix: str, max_age: float | None) -> None:
        self.prefix = prefix
        self.max_age_ms = None if max_age is None else _ms(max_age)

    def keys(self, id: str) -> tuple[str, str, str]:
        stem = f"{self.prefix}:{{{id}}}"
        return f"{stem}:meta", f"{stem}:state", f"{stem}:messages"

    def line_key(self, id: str) -> str:
        return f"{self.prefix}:{{{id}}}:line"

    def index_key(self, owner: str) -> str:
        # Hashed, because an owner may be any text, and need not be read off a key.
        digest = hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()
        return f"{self.prefix}:owner:{{{digest}}}"

    def load(self, id: str, window: int) -> Operation[Record | None]:
        arguments = (window, _optional(self.max_age_ms))
        return self._script(LOAD, self.keys(id), arguments, lambda reply: self._loaded(id, reply))

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Operation[Acquired]:
        def read(reply: Any) -> Answer[Acquired]:
            position, *loaded = reply
            if position:
                return Answer(Acquired(position, None))
            answer = self._loaded(id, loaded[0] if loaded else None)
            return Answer(Acquired(0, answer.value), answer.then)

        keys = (*self.keys(id), self.line_key(id))
        arguments = (window, _optional(self.max_age_ms), _lease(lease), _ms(seconds))
        return self._script(ACQUIRE, keys, arguments, read)

    def renew(self, id: str, lease: str, seconds: float) -> Operation[bool]:
        arguments = (_lease(lease), _ms(seconds))
        return self._script(
            RENEW, (self.line_key(id),), arguments, lambda reply: Answer(bool(reply))
        )

    def release(self, id: str, lease: str) -> Operation[None]:
        return self._script(RELEASE, (self.line_key(id),), (_lease(lease),), _nothing)

    def peek(self, id: str, window: int) -> Operation[Record | None]:
        """Load where nothing may be written. The script is the same; its writes are refused."""
        operation = self.load(id, window)
        return replace(operation, command=("EVALSHA_RO", *operation.command[1:]))

    def commit(self, id: str, change: Change) -> Operation[Committed]:
        def read(reply: Any) -> Answer[Committed]:
            if not isinstance(reply[0], int):
                raise _refusal(change, *reply)
            version, message_count, left, now, ttl, owner = reply
            committed = Committed(version, message_count, (now + left) / 1000)
            then = None if owner is None else self._index(_text(owner), id, int(ttl) / 1000)
            return Answer(committed, then)

        head = _HEAD.pack(
            _CREATE[change.create],
            _number(change.expected_version),
            _number(change.ttl and _ms(change.ttl)),
            _ms(change.default_ttl),
            _number(self.max_age_ms),
            _number(change.keep_messages),
            REMEMBERED_COMMITS,
            len(change.set),
            len(change.unset),
            len(change.increment),
            len(change.append),
            change.release,
        )
        arguments: tuple[Word, ...] = (
            id,
            head,
            CommitLog.key(change.commit_id),
            _optional(change.owner),
            *(word for item in change.set.items() for word in item),
            *change.unset,
            *(word for item in change.increment.items() for word in item),
            *change.append,
        )
        keys: tuple[str, ...] = self.keys(id)
        if change.lease is not None:
            keys, arguments = (*keys, self.line_key(id)), (*arguments, _lease(change.lease))
        return self._script(COMMIT, keys, arguments, read)

    def read_messages(self, id: str, start: int, stop: int) -> Operation[list[bytes]]:
        if start >= stop:
            start, stop = 1, 1  # LRANGE takes -1 for the last one, which nobody has asked for
        return Operation(("LRANGE", self.keys(id)[2], start, stop - 1), Answer)

    def exists(self, id: str) -> Operation[bool]:
        return Operation(("EXISTS", self.keys(id)[0]), lambda reply: Answer(bool(reply)))

    def touch(self, id: str, ttl: float | None) -> Operation[bool]:
        def read(reply: Any) -> Answer[bool]:
            match reply:
                case [0]:
                    return Answer(False)
                case [1, _, None]:
                    return Answer(True)
                case [1, lasts, owner]:
                    return Answer(True, self._index(_text(owner), id, int(lasts) / 1000))
            raise ConversationCorrupt(_NOT_OURS)

        arguments = (_optional(ttl and _ms(ttl)), _optional(self.max_age_ms))
        return self._script(TOUCH, self.keys(id), arguments, read)

    def delete(self, id: str, expected_version: int | None) -> Operation[bool]:
        def read(reply: Any) -> Answer[bool]:
            if not isinstance(reply[0], int):
                raise _refusal(Change(expected_version=expected_version), *reply)
            owner = reply[1] if len(reply) > 1 else None
            return Answer(bool(reply[0]), self.forget(_text(owner), [id]) if owner else None)

        return self._script(DELETE, self.keys(id), (_optional(expected_version), "", "", ""), read)

    def purge(self, id: str, selection: Selection, dry_run: bool) -> Operation[bool | None]:
        """Delete a conversation if it is selected. None: there is none. With `dry_run`, tell what
        would become of it."""

        def read(reply: Any) -> Answer[bool | None]:
            deleted, owner = reply if len(reply) > 1 else (reply[0], None)
            if deleted == 0:
                return Answer(None)
            forget = self.forget(_text(owner), [id]) if owner and not dry_run else None
            return Answer(deleted == 1, forget)

        arguments = (
            "",
            _optional(selection.idle_for and _ms(selection.idle_for)),
            _optional(selection.owner),
            "1" if dry_run else "",
        )
        return self._script(DELETE, self.keys(id), arguments, read)

    def summary(self, id: str) -> Operation[ConversationSummary | None]:
        return self._script(SUMMARY, self.keys(id), (), lambda reply: Answer(_summary(id, reply)))

    def owned(self, owner: str, cursor: int) -> Operation[tuple[int | None, list[str]]]:
        """A page of the ids in an owner's index, of which some may have expired, and where the
        next page begins (None: this was the last)."""

        def read(reply: Any) -> Answer[tuple[int | None, list[str]]]:
            following, members = reply
            return Answer((int(following) or None, [_text(id) for id, _ in members]))

        return Operation(("ZSCAN", self.index_key(owner), cursor, "COUNT", PAGE), read)

    def forget(self, owner: str, ids: list[str]) -> Operation[None]:
        """Take ids out of an owner's index."""
        return Operation(("ZREM", self.index_key(owner), *ids), _nothing)

    def probe(self, key: str) -> Operation[None]:
        """Write, because a server may answer and refuse just that."""
        return Operation(("EVALSHA", PROBE.sha, 1, key), _nothing, PROBE)

    def set_aside(self, id: str) -> Operation[None]:
        """Rename what is no conversation, so that it is neither served nor overwritten."""
        return self._script(SET_ASIDE, self.keys(id), (_ms(QUARANTINE_SECONDS),), _nothing)

    def _index(self, owner: str, id: str, ttl: float) -> Operation[None]:
        """Note in the owner's index that the conversation is theirs, and then with the conversation
        that this is done: whatever happens in between, it stays due."""
        meta, _, _ = self.keys(id)
        noted = self._script(NOTED, (meta,), (owner, _ms(ttl)), _nothing)
        index = (self.index_key(owner),)
        return self._script(INDEX, index, (id, _ms(ttl)), lambda reply: Answer(None, noted))

    def _loaded(self, id: str, reply: Any) -> Answer[Record | None]:
        if reply is None:
            return Answer(None)
        if len(reply) == 1:
            raise ConversationCorrupt(_NOT_OURS)
        record, index_due = _record(id, reply)
        if not index_due or record.owner is None:
            return Answer(record)
        return Answer(record, self._index(record.owner, id, record.ttl))

    def _script(
        self,
        script: Script,
        keys: tuple[str, ...],
        arguments: tuple[Word, ...],
        read: Callable[[Any], Answer[T]],
    ) -> Operation[T]:
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        return Operation(command, read, script)


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _optional(value: Word | None) -> Word:
    return "" if value is None else value


def _number(value: float | None) -> float:
    return NONE if value is None else value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _lease(lease: str) -> bytes:
    return hashlib.blake2b(lease.encode(), digest_size=16).digest()


def _nothing(reply: Any) -> Answer[None]:
    return Answer(None)


def _record(id: str, reply: list[Any]) -> tuple[Record, bool]:
    stored_id, version, owner, created, now, left, ttl, index_due, count, state, messages = reply
    try:
        record = Record(
            id=_text(stored_id),
            version=int(version),
            owner=None if owner is None else _text(owner),
            created_at=int(created) / 1000,
            last_accessed=now / 1000,
            expires_at=(now + left) / 1000,
            ttl=int(ttl) / 1000,
            state={key.decode(): value for key, value in zip(state[::2], state[1::2], strict=True)},
            messages=messages,
            message_count=count,
        )
    except (TypeError, ValueError):
        raise ConversationCorrupt(_NOT_OURS) from None
    if record.id != id:
        raise ConversationCorrupt("Stored is another conversation.")
    return record, bool(index_due)


def _summary(id: str, reply: list[Any] | None) -> ConversationSummary | None:
    if reply is None:
        return None
    stored_id, version, owner, created, accessed, left, count, size = reply
    try:
        return ConversationSummary(
            id=_text(stored_id),
            version=int(version),
            owner=None if owner is None else _text(owner),
            created_at=moment(int(created) / 1000),
            last_accessed=moment(int(accessed) / 1000),
            expires_at=moment((int(accessed) + left) / 1000),
            message_count=count,
            size=size,
        )
    except (TypeError, ValueError, OverflowError):
        return None  # no conversation; what it is turns out when somebody loads it


def _refusal(change: Change, kind: bytes, *details: Any) -> Exception:
    """Return why `change` was refused, in the words that every backend uses."""
    match kind, *details:
        case b"lost", *_:
            return ConversationConflict(TURN_LOST)
        case b"unfit", version, owner:
            change.refuse_unless_fits(
                None if version is None else int(version), None if owner is None else _text(owner)
            )
        case b"number", key:
            return not_a_number(_text(key))
        case b"overflow", key:
            return beyond_64_bits(_text(key))
    return ConversationCorrupt(_NOT_OURS)
