"""What one operation may ask of the primary, and what it learns about the primary's state."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ...exceptions import BackendUnavailable
from .breaker import Breaker


@dataclass(slots=True)
class Shard:
    """A shard of the primary, which may fail by itself: a node of a cluster, or the whole.

    `readable`: while it takes no writes, it answers reads, or that is worth a try.
    """

    breaker: Breaker = field(default_factory=Breaker)
    readable: bool = True


class Route:
    """How one operation reaches its conversation's shard.

    `writable`: the primary may be asked for anything. `readable`: for what writes nothing. The
    operation then reports that it `succeeded` or, for a `BackendUnavailable`, that it `failed`. No
    other error says anything about the shard, least of all that the caller was cancelled.
    """

    __slots__ = ("_era", "_on_outage", "_shard", "readable", "writable")

    def __init__(self, shard: Shard, is_pending: bool, on_outage: Callable[[], None]) -> None:
        """Look which operations the shard takes now.

        Args:
            is_pending: some changes of the conversation wait for replay. Until then the primary
                does not know how it is.
            on_outage: is called when this operation opens the breaker.
        """
        self._shard = shard
        self._on_outage = on_outage
        self._era = shard.breaker.era
        self.writable = not (is_pending or shard.breaker.is_open)
        self.readable = self.writable or (shard.readable and not is_pending)

    def succeeded(self) -> None:
        """Report an answer of the primary. A read says nothing about writes, which may fail on."""
        if self.writable and self._shard.breaker.failures:
            self._shard.breaker.succeeded(self._era)

    def failed(self, error: BackendUnavailable) -> bool:
        """Report that the primary was unavailable for this operation, and tell whether it is not to
        be asked any more."""
        breaker = self._shard.breaker
        if not self.writable:
            self._shard.readable = False
        elif breaker.failed(self._era, str(error), transient=error.transient):
            self._shard.readable = True  # until a read fails, too
            self._on_outage()
        return breaker.is_open
