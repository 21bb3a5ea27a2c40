"""What the scripts reply with, as the classes of records.py and as our exceptions."""

from typing import Any, Final

from ...exceptions import ConversationConflict, ConversationCorrupt
from ..records import (
    TURN_LOST,
    Change,
    ConversationSummary,
    Record,
    beyond_64_bits,
    moment,
    not_a_number,
)

NOT_A_RECORD: Final = "The stored hash is not a django-convstate record."


def text(value: Any) -> str:
    """Return a value of a reply as text: a script gives bytes or an integer."""
    return value.decode() if isinstance(value, bytes) else str(value)


def record_of(id: str, reply: list[Any]) -> tuple[Record, bool]:
    """Return the record that load.lua replies with, and whether its owner's index is due.

    Raises:
        ConversationCorrupt: it is none.
    """
    try:
        # The script has compared the id with the key. Of what is no record it says that alone.
        _, version, owner, created, now, left, ttl, index_due, count, state, messages = reply
        record = Record(
            id=id,
            version=int(version),
            owner=None if owner is None else owner.decode(),
            created_at=int(created) / 1000,
            last_accessed=now / 1000,
            expires_at=(now + left) / 1000,
            ttl=int(ttl) / 1000,
            state={key.decode(): value for key, value in zip(state[::2], state[1::2], strict=True)},
            messages=messages,
            message_count=count,
        )
    except (TypeError, ValueError):
        raise ConversationCorrupt(NOT_A_RECORD) from None
    return record, bool(index_due)


def summary_of(reply: list[Any] | None) -> ConversationSummary | None:
    """Return the summary that summary.lua replies with; None where there is no conversation."""
    if reply is None:
        return None
    stored_id, version, owner, created, accessed, left, count, size = reply
    try:
        return ConversationSummary(
            id=text(stored_id),
            version=int(version),
            owner=None if owner is None else text(owner),
            created_at=moment(int(created) / 1000),
            last_accessed=moment(int(accessed) / 1000),
            expires_at=moment((int(accessed) + left) / 1000),
            message_count=count,
            size=size,
        )
    except (TypeError, ValueError, OverflowError):
        return None  # it is damaged, which its next load reports


def refusal(change: Change, kind: bytes, *details: Any) -> Exception:
    """Return why a script refused `change`, with the message that every backend gives."""
    match kind, *details:
        case b"lost", *_:
            return ConversationConflict(TURN_LOST)
        case b"unfit", version, owner:
            change.refuse_unless_fits(
                None if version is None else int(version), None if owner is None else text(owner)
            )
        case b"number", key:
            return not_a_number(text(key))
        case b"overflow", key:
            return beyond_64_bits(text(key))
    return ConversationCorrupt(NOT_A_RECORD)
