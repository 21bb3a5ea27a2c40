"""The leases of turns while the primary cannot keep them.

A turn that the primary has granted to this process goes on here in an outage, before those who come
then; and one that was granted here goes on here when the primary is back. A lease that has expired
is fenced here as the primary does it. Other processes know nothing of what is granted here.
"""

import threading
from dataclasses import replace
from typing import Final

from ... import clock
from ...exceptions import ConversationConflict
from ..locmem import LocMemBackend
from ..records import Change
from ..refusals import TURN_LOST

RENEWED_BY_COMMIT: Final = 5.0  # seconds for which a lease is good after a commit with it
PRUNE_ABOVE: Final = 10_000  # leases, of which those that have expired are dropped then


class LeaseTable:
    """The leases that this process has been granted by the primary, and those granted here. The
    queues of the latter are in the fallback. Thread-safe."""

    def __init__(self, fallback: LocMemBackend) -> None:
        """Begin without leases."""
        self._fallback = fallback
        self._lock = threading.Lock()
        # By conversation, the lease that the primary has granted to this process, and its expiry.
        self._from_primary: dict[str, tuple[str, float]] = {}
        # The leases that were granted here, and their expiry.
        self._from_here: dict[str, float] = {}

    def granted(self, id: str, lease: str, seconds: float) -> None:
        """Record that the primary has granted or renewed a lease."""
        with self._lock:
            now = clock.monotonic()
            self._from_primary[id] = lease, now + seconds
            if len(self._from_primary) > PRUNE_ABOVE:
                self._from_primary = {
                    id: held for id, held in self._from_primary.items() if held[1] > now
                }

    def committed(self, id: str, change: Change) -> None:
        """Record that a change was applied, with which its lease may have ended."""
        if change.lease is not None and change.release:
            self.ended(id, change.lease)

    def ended(self, id: str, lease: str) -> None:
        """Record that a lease was given back, and take it out of the queue here."""
        self._fallback.release(id, lease)
        with self._lock:
            self._from_here.pop(lease, None)
            if self._from_primary.get(id, ("", 0))[0] == lease:
                del self._from_primary[id]

    def enqueue(self, id: str, lease: str, seconds: float) -> int:
        """Join the queue here, behind a lease that the primary has granted. Return how many are
        before this one; 0: it has the turn."""
        with self._lock:
            now = clock.monotonic()
            holder, until = self._from_primary.get(id, ("", 0.0))
            if until > now and holder != lease and not self._fallback.has_queue(id):
                self._fallback.acquire(id, holder, until - now, 1)
            position = self._fallback.acquire(id, lease, seconds, 1).position
            if position == 0:
                self._from_here[lease] = now + seconds
                if len(self._from_here) > PRUNE_ABOVE:
                    self._from_here = {
                        lease: until for lease, until in self._from_here.items() if until > now
                    }
            return position

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """Renew a lease here. One of the primary's goes on here, unless another holds the turn."""
        if lease in self._from_here or self._fallback.has_queue(id):
            return self._fallback.renew(id, lease, seconds)
        return self.enqueue(id, lease, seconds) == 0

    def fenced(self, id: str, change: Change, *, by_primary: bool) -> Change:
        """Check the lease of a change, and return the change as it is to be applied.

        Args:
            by_primary: the primary applies it, which checks its own leases and does not know those
                that were granted here.

        Raises:
            ConversationConflict: the lease is not held any more.
        """
        lease = change.lease
        if lease is None or (by_primary and lease not in self._from_here):
            return change
        if (lease in self._from_here or self._fallback.has_queue(id)) and not self._fallback.renew(
            id, lease, RENEWED_BY_COMMIT
        ):
            raise ConversationConflict(TURN_LOST)
        return replace(change, lease=None, release=False)
