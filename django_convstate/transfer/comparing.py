"""Compares conversations of two stores."""

import hashlib
import math
from typing import Final

from ..backends.records import Change, Create, Record
from ..backends.reports import ConversationSummary
from ..exceptions import ConversationConflict, ConversationInterrupted
from ..repository import Repository
from .lines import Whole
from .reading import TOLERANCE

_EXPIRY_TOLERANCE: Final = 1.0  # seconds
_NO_VERSION: Final = 2**53  # that no conversation reaches


def digest(whole: Whole) -> bytes:
    """Return a digest of what a conversation contains, but for its times."""
    record, total = whole.record, hashlib.blake2b(digest_size=16)
    parts = [record.id.encode(), repr((record.owner, record.version, record.dropped)).encode()]
    for key in sorted(record.state):
        parts += key.encode(), record.state[key]
    parts.append(b"messages")
    for id, data in whole.messages:
        parts += id.encode(), data
    for part in parts:
        total.update(b"%d:%b" % (len(part), part))
    return total.digest()


def was_deleted(repository: Repository, id: str) -> bool:
    """Tell whether a store knows that a conversation was deleted, which it does for a day. It is
    asked by a change that fits nothing."""
    change = Change(create=Create.EITHER, unless_deleted=True, expected_version=_NO_VERSION)
    try:
        repository.commit(id, change)
    except ConversationInterrupted:
        return True
    except ConversationConflict:
        return False
    raise AssertionError("unreachable")


def is_same(one: Whole, other: Whole) -> bool:
    """Tell whether two are the same, but for when they were last used."""
    times = [
        (one.record.created_at, other.record.created_at),
        (one.record.modified_at, other.record.modified_at),
        (one.record.ttl, other.record.ttl),
    ]
    return all(map(_is_near, *zip(*times, strict=True))) and digest(one) == digest(other)


def _is_near(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= TOLERANCE


def is_newer(found: Record, summary: ConversationSummary) -> bool:
    """Tell whether what is in the target was saved later than what the source has."""
    later = found.modified_at - summary.modified_at.timestamp()
    return later > TOLERANCE or (later >= -TOLERANCE and found.version > summary.version)


def is_copy(found: Record, summary: ConversationSummary) -> bool:
    """Tell whether what is in the target is what the source has, with the time that it has left."""
    if found.version != summary.version:
        return False
    for name in ("created_at", "modified_at"):
        if not _is_near(getattr(found, name), getattr(summary, name).timestamp()):
            return False
    used_since = found.last_accessed - summary.last_accessed.timestamp()
    if used_since > TOLERANCE:
        return True
    expires_at = math.inf if summary.expires_at is None else summary.expires_at.timestamp()
    lasts = found.expires_at == expires_at or (
        abs(found.expires_at - expires_at) <= _EXPIRY_TOLERANCE
    )
    return used_since >= -TOLERANCE and lasts
