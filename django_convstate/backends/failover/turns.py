"""The turns of conversations: by leases of the primary or, in an outage, of this process."""

from ..base import ConversationStateBackend
from ..locmem import LocMemBackend
from ..records import Acquired
from .last_known import LastKnownCache
from .leases import LeaseTable
from .offline import OfflineStore
from .recovery import Recovery


class TurnsWithFailover(ConversationStateBackend):
    """The part of `FailoverBackend` that concerns turns."""

    primary: ConversationStateBackend
    fallback: LocMemBackend
    _known: LastKnownCache
    _leases: LeaseTable
    _offline: OfflineStore
    _recovery: Recovery

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        """See `ConversationStateBackend.acquire`. In an outage, the queue is this process's."""
        route = self._recovery.route(id, is_pending=self.fallback.has_queue(id))
        era = self._known.era
        acquired = route.ask(
            self.primary.acquire, self._offline.acquire, id, lease, seconds, window
        )
        if route.answered and acquired.position == 0:
            self._known.put(id, acquired.record, era)
            self._leases.granted(id, lease, seconds)
        return acquired

    async def aacquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        """See `acquire`."""
        route = self._recovery.route(id, is_pending=self.fallback.has_queue(id))
        era = self._known.era
        acquired = await route.aask(
            self.primary.aacquire, self._offline.acquire, id, lease, seconds, window
        )
        if route.answered and acquired.position == 0:
            self._known.put(id, acquired.record, era)
            self._leases.granted(id, lease, seconds)
        return acquired

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `ConversationStateBackend.renew`."""
        route = self._recovery.route(id, is_pending=self.fallback.has_queue(id))
        renewed = route.ask(self.primary.renew, self._renew_offline, id, lease, seconds)
        if route.answered and renewed:
            self._leases.granted(id, lease, seconds)
        return renewed

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        route = self._recovery.route(id, is_pending=self.fallback.has_queue(id))
        renewed = await route.aask(self.primary.arenew, self._renew_offline, id, lease, seconds)
        if route.answered and renewed:
            self._leases.granted(id, lease, seconds)
        return renewed

    def release(self, id: str, lease: str) -> None:
        """See `ConversationStateBackend.release`."""
        self._leases.ended(id, lease)
        # Where the primary is unavailable, its lease expires.
        self._recovery.route(id).ask(self.primary.release, self.fallback.release, id, lease)

    async def arelease(self, id: str, lease: str) -> None:
        """See `release`."""
        self._leases.ended(id, lease)
        # Where the primary is unavailable, its lease expires.
        await self._recovery.route(id).aask(self.primary.arelease, self.fallback.release, id, lease)

    def _renew_offline(self, id: str, lease: str, seconds: float) -> bool:
        if self._recovery.route(id, is_pending=self.fallback.has_queue(id)).writable:
            return True  # the primary was slow this once, and there is time for another try
        return self._leases.renew(id, lease, seconds)
