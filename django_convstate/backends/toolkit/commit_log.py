"""Which commits a conversation has applied, by writer and number. Never changes: `adding` makes
another.

Packed, because there is one for every conversation: for each writer 22 bytes, and 8 for each range
of numbers from its floor on. There is one such range, and a few more while several of its commits
are under way. Redis keeps the same bytes (redis/scripts/commit_log.lua).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .writer import WRITER_SECONDS, Commit, unjudgeable

# The writer, when it last committed (whole seconds since the epoch), its floor, and how many ranges
# follow: of each the distance of its first number from the floor, and how many numbers it has.
_ENTRY: Final = struct.Struct("<8sIdH")
_ONE: Final = struct.Struct("<8sIdHII")
MAX_FLOOR: Final = 2**53  # a double holds whole numbers exactly up to this one
MAX_RANGES: Final = 4096  # of one writer; beyond that, the lowest can no longer be judged

Ranges = list[tuple[int, int]]  # first and last number of each


@dataclass(slots=True, repr=False)
class CommitLog:
    """The writers of the last day, the latest one last."""

    packed: bytes = b""

    def has(self, commit: Commit) -> bool:
        """Tell whether a commit was applied.

        Raises:
            ConversationConflict: that cannot be told any more.
        """
        packed = self.packed
        if len(packed) == _ONE.size:  # mostly there is one writer, with one range
            writer, _, floor, _, distance, count = _ONE.unpack(packed)
            if writer != commit.writer or commit.number >= floor + distance + count:
                return False
        elif commit.writer not in packed:
            return False
        for writer, _, floor, ranges in self.entries():
            if writer == commit.writer:
                if commit.number < floor:
                    raise unjudgeable()
                return any(first <= commit.number <= last for first, last in ranges)
        return False

    def adding(self, commit: Commit, now: float) -> "CommitLog":
        """Return the log with one commit more, and without the writers of more than a day ago."""
        if commit.floor == commit.number and self._is_below(commit):  # as it mostly is
            return CommitLog(_ONE.pack(commit.writer, int(now), commit.number, 1, 0, 1))
        others: list[bytes] = []
        floor, ranges = float(commit.floor), list[tuple[int, int]]()
        for writer, at, lowest, applied in self.entries():
            if writer == commit.writer:
                floor, ranges = max(floor, lowest), applied
            elif at + WRITER_SECONDS > now:
                others.append(_pack(writer, at, lowest, applied))
        ranges = _with(ranges, commit.number, int(floor))
        return CommitLog(b"".join([*others, _pack(commit.writer, int(now), floor, ranges)]))

    def _is_below(self, commit: Commit) -> bool:
        """Tell whether all that was applied are lower numbers of the same writer."""
        if len(self.packed) != _ONE.size:
            return not self.packed
        writer, _, floor, _, distance, count = _ONE.unpack(self.packed)
        return bool(writer == commit.writer and floor + distance + count <= commit.number)

    @classmethod
    def parse(cls, packed: bytes) -> "CommitLog":
        """Return the log that `packed` is, or raise `ValueError`."""
        log = cls(packed)
        try:
            list(log.entries())
        except struct.error:
            raise ValueError("commits") from None
        return log

    def entries(self) -> Iterator[tuple[bytes, int, float, Ranges]]:
        """Yield each writer, when it last committed, its floor, and what it has applied from there
        on."""
        at = 0
        while at < len(self.packed):
            writer, when, floor, count = _ENTRY.unpack_from(self.packed, at)
            if not 0 <= floor <= MAX_FLOOR:
                raise ValueError("a floor")
            numbers = struct.unpack_from(f"<{2 * count}I", self.packed, at + _ENTRY.size)
            yield (
                writer,
                when,
                floor,
                [
                    (int(floor) + distance, int(floor) + distance + length - 1)
                    for distance, length in zip(numbers[::2], numbers[1::2], strict=True)
                ],
            )
            at += _ENTRY.size + 8 * count


def _with(ranges: Ranges, number: int, floor: int) -> Ranges:
    """Return ranges of numbers from `floor` on, with one number more."""
    joined: Ranges = []
    for first, last in sorted([*ranges, (number, number)]):
        if last < floor:
            continue
        first = max(first, floor)
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return joined


def _pack(writer: bytes, at: int, floor: float, ranges: Ranges) -> bytes:
    if len(ranges) > MAX_RANGES:
        ranges = ranges[-MAX_RANGES:]
        floor = ranges[0][0]
    numbers = [
        number for first, last in ranges for number in (first - int(floor), last - first + 1)
    ]
    return _ENTRY.pack(writer, at, floor, len(ranges)) + struct.pack(f"<{len(numbers)}I", *numbers)
