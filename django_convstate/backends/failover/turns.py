"""The turns of conversations: by leases of the primary or, in an outage, of this process."""

from collections.abc import Awaitable, Callable
from functools import partial

from ..base import ConversationStateBackend
from ..locmem import LocMemBackend
from ..records import Acquired, Record
from .last_known import LastKnownCache
from .leases import LeaseTable
from .offline import OfflineStore
from .recovery import Recovery

Acquire = Callable[[str, str, float, int], Acquired]
AAcquire = Callable[[str, str, float, int], Awaitable[Acquired]]


class TurnsWithFailover(ConversationStateBackend):
    """The part of `FailoverBackend` that concerns turns."""

    primary: ConversationStateBackend
    fallback: LocMemBackend
    _known: LastKnownCache
    _leases: LeaseTable
    _offline: OfflineStore
    _recovery: Recovery

    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `ConversationStateBackend.acquire`. In an outage, the queue is this process's. What
        is `known` is what is remembered here."""
        route = self._recovery.route(id, is_pending=self.fallback.has_queue(id))
        acquire: Acquire = self.primary.acquire
        era, known = self._known.era, self._known.exact(id, window)
        if known is not None:
            acquire = partial(self.primary.acquire, known=known)
        acquired = route.ask(acquire, self._offline.acquire, id, lease, seconds, window)
        if route.answered and acquired.position == 0:
            self._known.put(id, acquired.record, era, known)
            self._leases.granted(id, lease, seconds)
        return acquired

    async def aacquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `acquire`."""
        route = self._recovery.route(id, is_pending=self.fallback.has_queue(id))
        acquire: AAcquire = self.primary.aacquire
        era, known = self._known.era, self._known.exact(id, window)
        if known is not None:
            acquire = partial(self.primary.aacquire, known=known)
        acquired = await route.aask(acquire, self._offline.acquire, id, lease, seconds, window)
        if route.answered and acquired.position == 0:
            self._known.put(id, acquired.record, era, known)
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
