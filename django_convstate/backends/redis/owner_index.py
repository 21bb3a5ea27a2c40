"""What is asked of an owner's index: two sorted sets of ids, by until when each conversation may
live, and by when it was last saved. See scripts/index_forms.lua.

A commit brings the second up to date once a minute at most, so a conversation may have been saved
up to a minute later than its index says. A listing reads the index in blocks, which are wide
enough for that, and orders a block by when its conversations were really saved.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..reports import CURSOR_SIZE, LISTING_LAG
from . import scripts
from .command import Operation, Reply, nothing, script_operation

LAG_MS: Final = round(LISTING_LAG * 1000)  # INDEX_LAG in scripts/common.lua
PAGE: Final = 500  # ids that a block has at most, but for
MOST_WITHIN_LAG: Final = 100  # that make a block larger than was asked for
OFFSET_MS: Final = 1e14  # see scripts/index_forms.lua
SCAN_PAGE: Final = 500  # ids that one round trip reads where the order does not matter
END_MS: Final = 0xFFFFFFFFFFFF  # above each time


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the listing of an owner: after a cursor, in the block of the index with these
    bounds, in milliseconds; the upper one is not included."""

    low: int = END_MS
    high: int = END_MS
    cursor: str = field(repr=False, default="")

    @property
    def bounds(self) -> str:
        """The bounds of the block, as the cursors of its conversations have them."""
        return f"{self.low:012x}{self.high:012x}"

    @classmethod
    def after(cls, cursor: str | None) -> "Place":
        """Return the place that the cursor of a summary names."""
        if cursor is None:
            return cls()
        saved, own, bounds = int(cursor[:12], 16), cursor[:CURSOR_SIZE], cursor[CURSOR_SIZE:]
        if not bounds:  # of another listing, or of a former version
            return cls(max(0, saved - LAG_MS), saved + LAG_MS, own)
        low, high = int(bounds[:12], 16), int(bounds[12:], 16)
        return cls(low, min(high, saved + LAG_MS), own)


@dataclass(frozen=True, slots=True)
class IndexPage:
    """What one round trip reads of an index.

    Attributes:
        rest: ids of the block in which the listing has come to a place.
        below: the lower bound of that block: of so much of it as a block may have, if a cursor
            that was made up names a wider one.
        block: ids of the next block.
        low: the lower bound of that; 0: nothing is below it.
        strays: rather than all that, ids that only a process of a former version has indexed.
    """

    rest: Sequence[str] = field(repr=False, default=())
    below: int = 0
    block: Sequence[str] = field(repr=False, default=())
    low: int = 0
    strays: Sequence[bytes] = field(repr=False, default=())


def expiry_ms(score: float) -> float:
    """Return when a conversation has expired, if it is not used again, by its score in the first of
    the sets; `math.inf`: never."""
    if score < OFFSET_MS:  # of a former version
        return score
    return math.inf if score >= 2 * OFFSET_MS else score - OFFSET_MS


class OwnerIndex:
    """The operations on the indexes of owners, with keys that begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def keys(self, owner: str) -> tuple[str, str]:
        """Return the keys of an owner's index, which hold a hash of the owner: that may be any
        text, and is not to be read off a key."""
        digest = hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()
        stem = f"{self._prefix}:owner:{{{digest}}}"
        return stem, f"{stem}:saved"

    def add(
        self,
        owner: str,
        conversations: Iterable[tuple[str, int, int]],
        former_id: str = "",
        then: Operation[None] | None = None,
    ) -> Operation[None]:
        """Add conversations: the id, the TTL (ms; 0: for ever) and when it was saved (ms) of each.

        Args:
            former_id: of the conversation, which is removed.
            then: what remains to be done after that.
        """
        arguments = (former_id, *(each for one in conversations for each in one))
        keys = self.keys(owner)
        return script_operation(scripts.INDEX, keys, arguments, lambda reply: Reply(None, then))

    def forget(self, owner: str, ids: Sequence[str | bytes]) -> Operation[None]:
        """Remove ids."""
        return script_operation(scripts.FORGET, self.keys(owner), ids, nothing)

    def scan(self, key: str, cursor: int) -> Operation[tuple[int | None, list[str]]]:
        """Read ids in one of the two sets, in no order, of which some may have expired, and where
        to read on (None: these were the last)."""

        def read(reply: Any) -> Reply[tuple[int | None, list[str]]]:
            following, members = reply
            return Reply((int(following) or None, ids_of(id for id, _ in members)))

        return Operation(("ZSCAN", key, cursor, "COUNT", SCAN_PAGE), read)

    def page(self, owner: str, place: Place, count: int, *, checks: bool) -> Operation[IndexPage]:
        """Read the rest of the block at a place, and below it a block of at least `count`.

        Args:
            checks: look for strays.
        """

        def read(reply: Any) -> Reply[IndexPage]:
            if len(reply) == 1:
                return Reply(IndexPage(strays=reply[0]))
            rest, below, block, low = reply
            return Reply(IndexPage(ids_of(rest), below, ids_of(block), low))

        check, most = "1" if checks else "", PAGE + MOST_WITHIN_LAG
        arguments = (check, place.high, place.low, most, count, LAG_MS, MOST_WITHIN_LAG)
        return script_operation(scripts.INDEX_PAGE, self.keys(owner), arguments, read)


def ids_of(members: Iterable[bytes]) -> list[str]:
    """Return the ids among members of an index. What is not text was put there by another
    program."""
    return [member.decode() for member in members if _is_text(member)]


def _is_text(member: bytes) -> bool:
    try:
        return bool(member.decode())
    except UnicodeDecodeError:
        return False
