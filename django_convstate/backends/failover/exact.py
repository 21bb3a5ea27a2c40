"""What is stored, where that is certain: a record with its etag, and what a commit has made of it.

While the primary still has that etag, the record need not be sent again.
"""

import sys
from dataclasses import dataclass, field
from typing import Final

from ..records import Change, Committed, Record
from ..toolkit.memory import memory_of
from ..toolkit.packed import (
    CLOCK_SLACK_MS,
    KEY_SIZE,
    PackedMessages,
    Pair,
    data_of,
    id_of,
    next_key,
    pack_under,
    packed_of,
    to_append,
)
from .snapshot import KEPT_MESSAGES, OVERHEAD, memory_with

TIME_SIZE: Final = 6  # bytes of a sort key that are its time in milliseconds


@dataclass(slots=True, eq=False)
class Exact:
    """A record with an etag, no mutable part of which is used elsewhere.

    Attributes:
        packed: its messages, as they are stored.
        reach: the largest window of which it has all that a load returns.
        size: what it takes, in bytes of memory.
    """

    record: Record
    packed: list[bytes] = field(repr=False)
    reach: int
    size: int


def exactly(loaded: Record) -> Exact:
    """Return a copy of what the primary has loaded."""
    record = loaded.again(sys.maxsize, loaded.last_accessed, loaded.expires_at, loaded.ttl)
    packed = packed_of(record.messages)
    reach = _reach(packed, record.message_count, record.first)
    return Exact(record, packed, reach, memory_with(record))


def advanced(exact: Exact | None, id: str, change: Change, committed: Committed) -> Exact | None:
    """Return the conversation as it is stored after a commit.

    Args:
        exact: how it was before; None: that is not known.

    Returns:
        None: it is not certain how it is stored, because the change was applied to something else,
        or does what is seldom done.
    """
    # Each save comes here, so there are few further calls, as they mostly are.
    if exact is None and committed.version == 1:
        exact = _begun(id, change, committed)
    if (
        exact is None
        or exact.record.etag != committed.follows
        or not committed.etag
        or change.replace
        or change.keep_messages is not None
    ):
        return None
    known = exact.record
    packed, last_key = _appended(exact, change, committed.modified_at)
    count = known.message_count + len(packed) - len(exact.packed)
    if (
        count != committed.message_count  # messages were there already
        or last_key != committed.last_key
        or known.dropped != committed.dropped
    ):
        return None
    first = known.first
    if (surplus := len(packed) - max(KEPT_MESSAGES, len(exact.packed))) > 0:
        if len(packed) == count:
            first = id_of(packed[0], known.dropped), data_of(packed[0])
        del packed[:surplus]
    state = {**known.state, **change.set}
    if change.unset or change.increment:
        _unset_and_count(state, change)
    messages = PackedMessages(packed, known.dropped + count - len(packed))
    record = Record(
        id=id,
        version=committed.version,
        owner=known.owner or change.owner or None,
        created_at=known.created_at,
        modified_at=committed.modified_at,
        last_accessed=committed.modified_at,
        expires_at=committed.expires_at,
        ttl=known.ttl if change.ttl is None else change.ttl,
        state=state,
        messages=messages,
        message_count=count,
        dropped=known.dropped,
        first=first,
        last_key=last_key,
        etag=committed.etag,
    )
    reach = exact.reach if first is None else len(packed)
    return Exact(record, packed, reach, OVERHEAD + memory_of(state, messages, first))


def _begun(id: str, change: Change, committed: Committed) -> Exact:
    """Return a conversation right before its first commit."""
    now = committed.modified_at
    messages = PackedMessages([], 0)
    record = Record(
        id=id,
        version=0,
        owner=None,
        created_at=now,
        modified_at=now,
        last_accessed=now,
        expires_at=now,
        ttl=change.default_ttl,
        state={},
        messages=messages,
        message_count=0,
    )
    return Exact(record, messages.packed, sys.maxsize, OVERHEAD)


def _appended(exact: Exact, change: Change, now: float) -> tuple[list[bytes], bytes]:
    """Return the messages with those of a change, by the keys that they got `now`, by the clock of
    the primary; and the last key."""
    packed, last_key = exact.packed.copy(), exact.record.last_key
    latest = round(now * 1000) + CLOCK_SLACK_MS
    for message in to_append(change.append):
        key = message[:KEY_SIZE]
        if last_key < key and int.from_bytes(key[:TIME_SIZE]) <= latest:
            packed.append(message)
        else:  # it got another key
            key = next_key(last_key)
            packed.append(pack_under(key, id_of(message, 0), data_of(message)))
        last_key = key
    return packed, last_key


def _unset_and_count(state: dict[str, bytes], change: Change) -> None:
    for key in change.unset:
        state.pop(key, None)
    for key, by in change.increment.items():
        state[key] = b"%d" % (int(state.get(key, b"0")) + by)


def _reach(packed: list[bytes], count: int, first: Pair | None) -> int:
    if len(packed) == count:
        return sys.maxsize
    return 0 if first is None else len(packed)
