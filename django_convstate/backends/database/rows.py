"""A row of a conversation as the `StoredConversation` that it is, and back.

The state is packed in one column: the length of a header (4 bytes, big-endian), the header (JSON:
keys and lengths) and the values one after the other.
"""

import math
import struct
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any, Final

import orjson

from ...exceptions import ConversationCorrupt
from ..records import entry_size
from ..reports import cursor_of, moment
from ..toolkit.commit_log import CommitLog
from ..toolkit.packed import KEY_SIZE
from ..toolkit.stored import StoredConversation
from .copies import state_copy, title_of
from .messages import MessageRows
from .models import Conversation
from .times import seconds_of, when, when_or_never

_LENGTH: Final = struct.Struct(">I")


def pack_state(state: Mapping[str, bytes]) -> bytes:
    """Return the state as one column keeps it."""
    header = orjson.dumps([[key, len(value)] for key, value in state.items()])
    return b"".join([_LENGTH.pack(len(header)), header, *state.values()])


def unpack_state(packed: bytes) -> dict[str, bytes]:
    """Return the state, or raise `ValueError`, `TypeError` or `struct.error`."""
    if not packed:
        return {}
    (size,) = _LENGTH.unpack_from(packed)
    start = _LENGTH.size + size
    header = orjson.loads(packed[_LENGTH.size : start])
    ends = list(accumulate((length for _, length in header), initial=start))
    if ends[-1] != len(packed) or any(length < 0 for _, length in header):
        raise ValueError("it is cut off")
    keys = [key for key, _ in header]
    if not all(isinstance(key, str) for key in keys):
        raise TypeError("a key")
    return {
        key: packed[first:last] for key, (first, last) in zip(keys, pairwise(ends), strict=True)
    }


def stored_of(row: Conversation, alias: str) -> StoredConversation:
    """Return the conversation in a row. Its messages are read when they are asked for.

    Raises:
        ConversationCorrupt: it makes no sense.
    """
    try:
        last_key, state = bytes(row.last_key), unpack_state(bytes(row.state))
        if len(last_key) != KEY_SIZE or row.message_count < 0 or row.dropped < 0:
            raise ValueError("a count, or a key")
        messages = MessageRows(
            alias,
            row.pk,
            dropped=row.dropped,
            count=row.message_count,
            last_key=last_key,
        )
        return StoredConversation(
            created_at=seconds_of(row.created_at),
            modified_at=seconds_of(row.modified_at),
            last_accessed=seconds_of(row.last_accessed),
            ttl=math.inf if row.ttl is None else row.ttl,
            owner=row.owner,
            version=row.version,
            state=state,
            messages=messages,
            commits=CommitLog.parse(bytes(row.commits)),
            state_size=row.state_size,
        )
    except (LookupError, TypeError, ValueError, struct.error):
        # Without the error, which may quote what is stored.
        raise ConversationCorrupt("The row of the conversation makes no sense.") from None


def columns_of(id: str, stored: StoredConversation, max_age: float | None) -> dict[str, Any]:
    """Return what a row has of a conversation, but for its state and when it began."""
    messages, modified_at = stored.messages, moment(stored.modified_at)
    return {
        "owner": stored.owner,
        "version": stored.version,
        "message_count": len(messages),
        "dropped": messages.dropped,
        "last_key": messages.last_key,
        "commits": stored.commits.packed,
        "modified_at": when(stored.modified_at),
        "cursor": cursor_of(id, modified_at),
        **lifetime_of(stored, max_age),
    }


def columns_of_row(row: Conversation) -> dict[str, Any]:
    """Return all that a new row has."""
    fields = row._meta.concrete_fields
    return {field.attname: getattr(row, field.attname) for field in fields if not field.primary_key}


def lifetime_of(stored: StoredConversation, max_age: float | None) -> dict[str, Any]:
    """Return when a conversation was last used, and when it expires."""
    return {
        "ttl": None if math.isinf(stored.ttl) else stored.ttl,
        "last_accessed": when(stored.last_accessed),
        "expires_at": when_or_never(stored.expires_at(max_age)),
    }


def state_columns(state: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what a row has of the state."""
    return {
        "state": pack_state(state),
        "state_size": sum(entry_size(key, value) for key, value in state.items()),
        "state_json": state_copy(state),
        "title": title_of(state),
    }
