"""What the scripts reply with, as the classes of records.py and as our exceptions."""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from ...exceptions import (
    BackendUnavailable,
    ConversationConflict,
    ConversationCorrupt,
    ConversationError,
)
from ..records import Change, Committed, Diverged, Record
from ..refusals import (
    TURN_LOST,
    beyond_64_bits,
    id_is_taken,
    not_a_number,
    refuse_restore,
    state_too_large,
    too_many_messages,
)
from ..reports import ConversationSummary, moment, moment_or_never
from ..toolkit.packed import NO_KEY, PackedMessages, checked
from ..toolkit.writer import unjudgeable

NOT_A_RECORD: Final = "The stored hash is not a django-convstate record."
PARTIAL: Final = "A part of the conversation is missing; perhaps the server has evicted it."
# What reading a reply may raise where what is stored is damaged.
MISREAD: Final = (ArithmeticError, LookupError, TypeError, ValueError, struct.error)
# See scripts/common.lua.
PARTS: Final = struct.Struct("<4I3d10s")
UNCHANGED_SIZE: Final = 4  # of the reply of load.lua to who has the conversation as it is


def text(value: Any) -> str:
    """Return a value of a reply as text: a script gives bytes or an integer."""
    return value.decode() if isinstance(value, bytes) else str(value)


def record_of(id: str, reply: list[Any]) -> tuple[Record, bool]:
    """Return the record that load.lua replies with, and whether its owner's index is due.

    Raises:
        ConversationCorrupt: it is none, or not a whole one.
    """
    try:
        # The script has compared the id with the key. Of what is no record it says that alone.
        (
            _,
            version,
            owner,
            created,
            accessed,
            expires,
            ttl,
            index_due,
            packed_parts,
            stored_count,
            stored_given,
            state,
            messages,
            first,
            etag,
        ) = reply
        if packed_parts is None:  # of 0.1
            count, dropped, keys, given = stored_count, 0, len(state) // 2, 0
            modified, last_key = int(accessed), NO_KEY
        else:
            count, dropped, keys, given, _, _, modified, last_key = PARTS.unpack(packed_parts)
        record = Record(
            id=id,
            version=int(version),
            owner=None if owner is None else owner.decode(),
            created_at=int(created) / 1000,
            modified_at=modified / 1000,
            last_accessed=int(accessed) / 1000,
            expires_at=math.inf if expires < 0 else expires / 1000,  # -1: it never expires
            ttl=int(ttl) / 1000 or math.inf,
            state={key.decode(): value for key, value in zip(state[::2], state[1::2], strict=True)},
            messages=PackedMessages(checked(messages), dropped + count - len(messages)),
            message_count=count,
            dropped=dropped,
            first=None if first is None else PackedMessages(checked([first]), dropped)[0],
            last_key=last_key,
            etag=etag,
        )
    except MISREAD:
        raise ConversationCorrupt(NOT_A_RECORD) from None
    if (stored_count, stored_given, len(record.state)) != (count, given, keys):
        raise ConversationCorrupt(PARTIAL)
    return record, bool(index_due)


def committed_of(change: Change, reply: list[Any]) -> Committed:
    """Return the answer that commit.lua gives."""
    version, count, dropped, left, now, _, _, last_key, others_end, etag, follows, *more = reply
    expires_at = math.inf if left < 0 else (now + left) / 1000  # -1: it never expires
    repeated, existing, others = more or (0, (), ())
    return Committed(
        version,
        count,
        expires_at,
        dropped,
        last_key,
        bool(repeated),
        [change.append[index][0] for index in existing] if existing else (),
        PackedMessages(checked(others), others_end - len(others)) if others else (),
        others_end,
        modified_at=now / 1000,
        etag=etag,
        follows=follows,
    )


def summary_of(
    reply: list[Any] | None, keys: Sequence[str], bounds: str
) -> ConversationSummary | None:
    """Return the summary that summary.lua replies with; None where there is no conversation."""
    if reply is None:
        return None
    stored_id, version, owner, created, modified, accessed, expires, count, size, values = reply
    try:
        return ConversationSummary(
            id=text(stored_id),
            version=int(version),
            owner=None if owner is None else text(owner),
            created_at=moment(int(created) / 1000),
            modified_at=moment(float(modified) / 1000),
            last_accessed=moment(int(accessed) / 1000),
            expires_at=moment_or_never(math.inf if expires < 0 else expires / 1000),
            message_count=count,
            size=size,
            state={
                key: value for key, value in zip(keys, values, strict=True) if value is not None
            },
            bounds=bounds,
        )
    except (TypeError, ValueError, OverflowError):
        return None  # it is damaged, which its next load reports


def refusal_to_restore(kind: bytes) -> Exception:
    """Return why a conversation was not restored."""
    try:
        if kind in (b"taken", b"changed"):
            refuse_restore(2, replaces=None if kind == b"taken" else 1, is_deleted=False)
        refuse_restore(None, replaces=None, is_deleted=kind == b"deleted")
    except ConversationError as error:
        return error
    return BackendUnavailable("What was to be restored is not staged any more; restore it again.")


def refusal(change: Change, kind: bytes, *details: Any) -> Exception:
    """Return why a script refused `change`, with the message that every backend gives."""
    match kind, *details:
        case b"unfit", version, owner, *deleted:
            change.refuse_unless_fits(
                None if version is None else int(version),
                None if owner is None else text(owner),
                is_deleted=bool(deleted and deleted[0]),
            )
        case b"diverged", state, messages:
            return Diverged(_by_name(state), _by_name(messages))
        case b"number", key:
            return not_a_number(text(key))
        case b"overflow", key:
            return beyond_64_bits(text(key))
        case b"large", size:
            return state_too_large(size, change.max_state_bytes or 0)
        case b"full", count:
            return too_many_messages(count, change.max_messages or 0)
    return _REFUSALS.get(kind, _not_a_record)()


def _not_a_record() -> Exception:
    return ConversationCorrupt(NOT_A_RECORD)


_REFUSALS: Final[dict[bytes, Callable[[], Exception]]] = {
    b"lost": lambda: ConversationConflict(TURN_LOST),
    b"stale": unjudgeable,
    b"taken": id_is_taken,
    b"partial": lambda: ConversationCorrupt(PARTIAL),
}


def _by_name(pairs: list[list[Any]]) -> dict[str, bytes | None]:
    return {text(name): value[0] if value else None for name, *value in pairs}
