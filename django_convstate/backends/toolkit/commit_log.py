"""Which commits a conversation has applied, by writer and number. Never changes: `adding` makes
another.

Packed, because there is one for every conversation: for each writer 22 bytes and 4 for each number
that is still open or was open lately. Redis keeps the same bytes (redis/scripts/commit_log.lua).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .writer import WRITER_SECONDS, Commit, unjudgeable

# The writer, when it last committed (whole seconds since the epoch), its floor, and how many
# numbers from there on were applied; these follow as their distance from the floor.
_ENTRY: Final = struct.Struct("<8sIdH")
_ONE: Final = struct.Struct("<8sIdHI")
MAX_NUMBERS: Final = 4096  # of one writer; beyond that, the lowest can no longer be judged


@dataclass(slots=True)
class CommitLog:
    """The writers of the last day, the latest one last."""

    packed: bytes = b""

    def has(self, commit: Commit) -> bool:
        """Tell whether a commit was applied.

        Raises:
            ConversationConflict: that cannot be told any more.
        """
        packed = self.packed
        if len(packed) == _ONE.size:  # mostly there is one writer, with one number
            writer, _, floor, _, distance = _ONE.unpack(packed)
            if writer != commit.writer or commit.number > floor + distance:
                return False
        elif commit.writer not in packed:
            return False
        for writer, _, floor, numbers in self.entries():
            if writer == commit.writer:
                if commit.number < floor:
                    raise unjudgeable()
                return commit.number in numbers
        return False

    def adding(self, commit: Commit, now: float) -> "CommitLog":
        """Return the log with one commit more, and without the writers of more than a day ago."""
        is_alone = not self.packed or (
            len(self.packed) == _ONE.size and self.packed.startswith(commit.writer)
        )
        if is_alone and commit.floor == commit.number:  # and nothing else is open
            return CommitLog(_ONE.pack(commit.writer, int(now), commit.number, 1, 0))
        others, floor, numbers = [], float(commit.floor), {commit.number}
        for writer, at, lowest, applied in self.entries():
            if writer == commit.writer:
                floor = max(floor, lowest)
                numbers |= applied
            elif at + WRITER_SECONDS > now:
                others.append(_pack(writer, at, lowest, applied))
        return CommitLog(b"".join([*others, _pack(commit.writer, int(now), floor, numbers)]))

    @classmethod
    def parse(cls, packed: bytes) -> "CommitLog":
        """Return the log that `packed` is, or raise `ValueError`."""
        log = cls(packed)
        try:
            list(log.entries())
        except struct.error:
            raise ValueError("commits") from None
        return log

    def entries(self) -> Iterator[tuple[bytes, int, float, set[int]]]:
        """Yield of each writer its name, the second of its last commit, its floor, and the numbers
        that were applied from there on. Raises `struct.error` where this is no log."""
        at = 0
        while at < len(self.packed):
            writer, when, floor, count = _ENTRY.unpack_from(self.packed, at)
            distances = struct.unpack_from(f"<{count}I", self.packed, at + _ENTRY.size)
            yield writer, when, floor, {int(floor) + distance for distance in distances}
            at += _ENTRY.size + 4 * count


def _pack(writer: bytes, at: int, floor: float, numbers: set[int]) -> bytes:
    kept = sorted(number for number in numbers if number >= floor)[-MAX_NUMBERS:]
    if len(kept) == MAX_NUMBERS:
        floor = kept[0]
    distances = [number - int(floor) for number in kept]
    return _ENTRY.pack(writer, at, floor, len(kept)) + struct.pack(f"<{len(kept)}I", *distances)
