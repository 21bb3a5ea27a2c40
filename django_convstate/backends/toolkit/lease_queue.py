"""The queue of those who wait for a turn of a conversation, as locmem and cache keep it. Redis has
the same as a Lua script.
"""

import time
from collections.abc import Mapping

import orjson


class LeaseQueue:
    """The leases of one conversation, first come, first served: the first one has the turn.

    Each lease expires at a moment of the caller's clock, in seconds. Those that were not renewed in
    time are dropped when a `LeaseQueue` is made.
    """

    __slots__ = ("_expires",)

    def __init__(self, expires: Mapping[str, float], now: float) -> None:
        """Take the leases in their order, each with the moment at which it expires."""
        self._expires = {lease: until for lease, until in expires.items() if until > now}

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
        return orjson.dumps(self._expires)

    def enqueue(self, lease: str, until: float) -> int:
        """Add `lease` at the end, or prolong it where it is. Return how many are before it."""
        self._expires[lease] = until
        return list(self._expires).index(lease)

    def renew(self, lease: str, until: float) -> bool:
        """Prolong the lease that has the turn. False: `lease` has not."""
        if not self.is_held_by(lease):
            return False
        self._expires[lease] = until
        return True

    def leave(self, lease: str) -> None:
        """Remove `lease`, if it is there."""
        self._expires.pop(lease, None)

    def is_held_by(self, lease: str) -> bool:
        """Tell whether `lease` has the turn."""
        return next(iter(self._expires), None) == lease

    @property
    def expires(self) -> dict[str, float]:
        """The leases in their order, each with the moment at which it expires."""
        return self._expires

    @property
    def ends_at(self) -> float:
        """When the last lease expires, unless one is renewed."""
        return max(self._expires.values())


class LeaseQueues:
    """The queues of many conversations in memory, by the monotonic clock. An empty queue takes no
    memory. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self._expires: dict[str, dict[str, float]] = {}
        self._next_sweep = 0.0

    def __contains__(self, id: str) -> bool:
        """Tell whether any lease of the conversation has not expired."""
        return id in self._expires and bool(self._queue(id, time.monotonic()).expires)

    def enqueue(self, id: str, lease: str, seconds: float) -> int:
        """See `LeaseQueue.enqueue`."""
        now = time.monotonic()
        self._sweep(now)
        queue = self._queue(id, now)
        position = queue.enqueue(lease, now + seconds)
        self._store(id, queue)
        return position

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `LeaseQueue.renew`."""
        now = time.monotonic()
        queue = self._queue(id, now)
        renewed = queue.renew(lease, now + seconds)
        self._store(id, queue)
        return renewed

    def leave(self, id: str, lease: str) -> None:
        """See `LeaseQueue.leave`."""
        queue = self._queue(id, time.monotonic())
        queue.leave(lease)
        self._store(id, queue)

    def is_held_by(self, id: str, lease: str) -> bool:
        """See `LeaseQueue.is_held_by`."""
        return self._queue(id, time.monotonic()).is_held_by(lease)

    def _queue(self, id: str, now: float) -> LeaseQueue:
        return LeaseQueue(self._expires.get(id, {}), now)

    def _store(self, id: str, queue: LeaseQueue) -> None:
        if queue.expires:
            self._expires[id] = queue.expires
        else:
            self._expires.pop(id, None)

    def _sweep(self, now: float) -> None:
        """Drop the queues whose leases have all expired; the more there are, the less often."""
        if now < self._next_sweep:
            return
        for id in list(self._expires):
            self._store(id, self._queue(id, now))
        self._next_sweep = now + max(1.0, len(self._expires) / 10_000)
