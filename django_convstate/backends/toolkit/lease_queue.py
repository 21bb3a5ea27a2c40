"""The line in which turns of a conversation wait for each other, as locmem and cache keep it. In
Redis, line.lua does the same.
"""

import time
from collections.abc import Mapping

import orjson


class Line:
    """Who stands in line, first come, first served: the first has the turn.

    Each place is kept until a moment of the caller's clock, in seconds. A place that nobody has
    renewed in time is dropped when somebody looks, which is when a `Line` is made.
    """

    __slots__ = ("_kept",)

    def __init__(self, kept: Mapping[str, float], now: float) -> None:
        self._kept = {lease: until for lease, until in kept.items() if until > now}

    @classmethod
    def parse(cls, data: object, now: float) -> "Line":
        """Return the line in `data`. What makes no sense is an empty one: whoever had the turn will
        be told so when committing."""
        try:
            kept = orjson.loads(data)  # type: ignore[arg-type]
            return cls({str(lease): float(until) for lease, until in kept.items()}, now)
        except (AttributeError, TypeError, ValueError):
            return cls({}, now)

    def dump(self) -> bytes:
        return orjson.dumps(self._kept)

    def stand(self, lease: str, until: float) -> int:
        """Keep the place of `lease`, or give it one at the end: how many are before it?"""
        self._kept[lease] = until
        return list(self._kept).index(lease)

    def renew(self, lease: str, until: float) -> bool:
        """Keep the turn of `lease`. False: it has none."""
        if not self.is_held_by(lease):
            return False
        self._kept[lease] = until
        return True

    def leave(self, lease: str) -> None:
        self._kept.pop(lease, None)

    def is_held_by(self, lease: str) -> bool:
        return next(iter(self._kept), None) == lease

    @property
    def kept(self) -> dict[str, float]:
        """Until when each place is kept, the first in line first."""
        return self._kept

    @property
    def ends_at(self) -> float:
        """When the last place lapses, if nobody renews."""
        return max(self._kept.values())


class Lines:
    """The lines of many conversations in memory, by a clock that nobody sets. One in which nobody
    stands takes no room. Whoever uses it sees to it that threads come one after the other."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, float]] = {}
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._kept)

    def stand(self, id: str, lease: str, seconds: float) -> int:
        now = time.monotonic()
        self._sweep(now)
        line = self._line(id, now)
        position = line.stand(lease, now + seconds)
        self._keep(id, line)
        return position

    def has(self, id: str) -> bool:
        """Tell whether anybody stands there."""
        return id in self._kept and bool(self._line(id, time.monotonic()).kept)

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        now = time.monotonic()
        line = self._line(id, now)
        renewed = line.renew(lease, now + seconds)
        self._keep(id, line)
        return renewed

    def leave(self, id: str, lease: str) -> None:
        line = self._line(id, time.monotonic())
        line.leave(lease)
        self._keep(id, line)

    def is_held_by(self, id: str, lease: str) -> bool:
        return self._line(id, time.monotonic()).is_held_by(lease)

    def _line(self, id: str, now: float) -> Line:
        return Line(self._kept.get(id, {}), now)

    def _keep(self, id: str, line: Line) -> None:
        if line.kept:
            self._kept[id] = line.kept
        else:
            self._kept.pop(id, None)

    def _sweep(self, now: float) -> None:
        """Drop the lines of those who have gone without a word; the more there are, the rarer."""
        if now < self._next_sweep:
            return
        for id in list(self._kept):
            self._keep(id, self._line(id, now))
        self._next_sweep = now + max(1.0, len(self._kept) / 10_000)
