"""The queue of those who wait for a turn of a conversation, as locmem and cache keep it. Redis has
the same as a Lua script.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import orjson

from ... import clock


class LeaseQueue:
    """The leases of one conversation, first come, first served: the first one has the turn.

    `expires` has the leases in their order, each with the moment at which it expires, in seconds.
    Those that were not renewed in time are dropped when a `LeaseQueue` is made.
    """

    __slots__ = ("_now", "expires")

    def __init__(self, expires: Mapping[str, float], now: float) -> None:
        """Take the leases in their order, and what the caller's clock says."""
        self.expires = {lease: until for lease, until in expires.items() if until > now}
        self._now = now

    @classmethod
    def parse(cls, data: object, now: float) -> "LeaseQueue":
        """Return the queue that `dump` wrote. Anything else is an empty queue: the commit of the
        one who had the turn is refused then, and says so."""
        try:
            expires = orjson.loads(data)  # type: ignore[arg-type]
            return cls({str(lease): float(until) for lease, until in expires.items()}, now)
        except (AttributeError, TypeError, ValueError):
            return cls({}, now)

    def dump(self) -> bytes:
        """Return the queue as JSON."""
        return orjson.dumps(self.expires)

    def enqueue(self, lease: str, seconds: float) -> int:
        """Add `lease` at the end, or prolong it where it is. Return how many are before it."""
        self.expires[lease] = self._now + seconds
        return list(self.expires).index(lease)

    def renew(self, lease: str, seconds: float) -> bool:
        """Prolong the lease that has the turn. False: `lease` has not."""
        if held := self.is_held_by(lease):
            self.enqueue(lease, seconds)
        return held

    def leave(self, lease: str) -> None:
        """Remove `lease`, if it is there."""
        self.expires.pop(lease, None)

    def is_held_by(self, lease: str) -> bool:
        """Tell whether `lease` has the turn."""
        return next(iter(self.expires), None) == lease


class LeaseQueues:
    """The queues of many conversations in memory, by the monotonic clock. An empty queue takes no
    memory. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self._expires: dict[str, dict[str, float]] = {}
        self._next_sweep = 0.0

    def get(self, id: str) -> LeaseQueue:
        """Return the queue of a conversation as it is now. A change of it changes nothing here."""
        return LeaseQueue(self._expires.get(id, {}), clock.monotonic())

    def has(self, id: str) -> bool:
        """Tell whether there is a lease for a turn of a conversation."""
        return id in self._expires and bool(self.get(id).expires)

    def leave(self, id: str, lease: str) -> None:
        """Remove `lease` from the queue of a conversation, if it is there."""
        if id in self._expires:
            with self.changing(id) as queue:
                queue.leave(lease)

    @contextmanager
    def changing(self, id: str) -> Iterator[LeaseQueue]:
        """Yield the queue of a conversation, and keep what becomes of it in the with block."""
        queue = self.get(id)
        yield queue
        self._sweep()
        self._expires.pop(id, None)
        if queue.expires:
            self._expires[id] = queue.expires

    def _sweep(self) -> None:
        """Drop the queues whose leases have all expired; the more there are, the less often."""
        now = clock.monotonic()
        if now >= self._next_sweep:
            self._expires = {id: q for id, q in self._expires.items() if max(q.values()) > now}
            self._next_sweep = now + max(1.0, len(self._expires) / 10_000)
