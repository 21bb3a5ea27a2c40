"""Counts, ages and sizes of many conversations, of which only numbers are kept in memory."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table

from django_convstate import ConversationSummary

from .durations import format_duration
from .formats import format_bytes
from .tables import facts_of, now

PERCENTILES: Final = (50, 90, 99)
IDLE_BOUNDS: Final = (60, 3600, 86400, 7 * 86400, 30 * 86400)  # seconds
SIZE_BOUNDS: Final = (2**10, 10 * 2**10, 100 * 2**10, 2**20)  # bytes
_BAR: Final = 40  # columns of the longest bar

Format = Callable[[float], str]


class Statistics:
    """What there is, in numbers."""

    def __init__(self, summaries: Iterable[ConversationSummary]) -> None:
        """Go through all conversations once."""
        at, owners = now(), set[str]()
        sizes, counts, idle, ages = (array("d") for _ in range(4))
        self._newest: datetime | None = None
        self._unowned = 0
        for each in summaries:
            sizes.append(each.size)
            counts.append(each.message_count)
            idle.append(max(0.0, (at - each.last_accessed).total_seconds()))
            ages.append(max(0.0, (at - each.created_at).total_seconds()))
            self._newest = max(filter(None, (self._newest, each.last_accessed)))
            if each.owner is None:
                self._unowned += 1
            else:
                owners.add(each.owner)
        self._owners = len(owners)
        self._sizes, self._counts, self._idle, self._ages = (
            array("d", sorted(values)) for values in (sizes, counts, idle, ages)
        )

    @property
    def conversations(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def as_json(self) -> dict[str, Any]:
        """Return all numbers: bytes, seconds, counts."""
        return {
            "conversations": self.conversations,
            "without_owner": self._unowned,
            "owners": self._owners,
            "messages": round(sum(self._counts)),
            "bytes": round(sum(self._sizes)),
            "largest_bytes": round(max(self._sizes, default=0)),
            "last_activity": self._newest,
            "size_bytes": _spread(self._sizes),
            "messages_each": _spread(self._counts),
            "idle_seconds": _spread(self._idle),
            "age_seconds": _spread(self._ages),
            "by_idle_time": [
                {"below_seconds": bound, "conversations": count}
                for bound, count in _histogram(self._idle, IDLE_BOUNDS)
            ],
            "by_size": [
                {"below_bytes": bound, "conversations": count}
                for bound, count in _histogram(self._sizes, SIZE_BOUNDS)
            ],
        }

    def tables(self) -> RenderableType:
        """Return the numbers for people."""
        newest = self._newest
        totals = [
            ("conversations", f"{self.conversations:,}"),
            ("without an owner", f"{self._unowned:,}"),
            ("owners", f"{self._owners:,}"),
            ("messages", f"{sum(self._counts):,.0f}"),
            ("size", format_bytes(sum(self._sizes))),
            ("last used", f"{newest:%Y-%m-%d %H:%M:%S} UTC" if newest else "-"),
        ]
        if not self.conversations:
            return facts_of("Stats", totals)
        return Group(
            facts_of("Stats", totals),
            self._spreads(),
            _bars("Idle for", self._idle, IDLE_BOUNDS, format_duration),
            _bars("Size", self._sizes, SIZE_BOUNDS, format_bytes),
        )

    def _spreads(self) -> Table:
        table = Table("Each", "median", *(f"{p} %" for p in PERCENTILES[1:]), "largest")
        rows: list[tuple[str, Sequence[float], Format]] = [
            ("messages", self._counts, "{:,.0f}".format),
            ("size", self._sizes, format_bytes),
            ("idle for", self._idle, format_duration),
            ("age", self._ages, format_duration),
        ]
        for column in table.columns[1:]:
            column.justify = "right"
        for name, values, shown in rows:
            table.add_row(name, *(shown(value or 0) for value in _spread(values).values()))
        return table


def _spread(values: Sequence[float]) -> dict[str, int | None]:
    """Return the percentiles of sorted values, by the nearest rank, and the largest."""
    ranks = {f"p{p}": math.ceil(len(values) * p / 100) for p in PERCENTILES}
    ranks["max"] = len(values)
    return {name: round(values[rank - 1]) if values else None for name, rank in ranks.items()}


def _histogram(values: Sequence[float], bounds: Sequence[int]) -> Iterator[tuple[int | None, int]]:
    """Yield how many of the sorted values are below each bound, and not below the one before; and
    how many are below none."""
    before = 0
    for bound in bounds:
        # What equals a bound is not below it.
        up_to = bisect_right(values, math.nextafter(bound, 0))
        yield bound, up_to - before
        before = up_to
    yield None, len(values) - before


def _bars(title: str, values: Sequence[float], bounds: Sequence[int], shown: Format) -> Table:
    counted = list(_histogram(values, bounds))
    most = max(count for _, count in counted)
    table = Table(title, "Conversations", "", box=None)
    table.columns[1].justify = "right"
    for bound, count in counted:
        name = f"from {shown(bounds[-1])}" if bound is None else f"below {shown(bound)}"
        table.add_row(name, f"{count:,}", "█" * math.ceil(_BAR * count / most))
    return table
