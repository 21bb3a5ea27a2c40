"""What one operation may ask of the primary, and what that shows about the primary's state."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple

from ...exceptions import BackendUnavailable
from .breaker import Breaker

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(slots=True)
class Shard:
    """A shard of the primary, which may fail by itself: a node of a cluster, or the whole.

    `readable`: while it takes no writes, it answers reads, or that is worth a try.
    """

    breaker: Breaker = field(default_factory=Breaker)
    readable: bool = True


class Route:
    """How one operation reaches the shard of its conversation.

    `writable`: the primary may be asked for anything, and not only for what writes nothing.
    `answered`: it has answered this operation.
    """

    __slots__ = ("_era", "_id", "_may_ask", "_on_trouble", "_shard", "answered", "writable")

    def __init__(
        self,
        shard: Shard,
        id: str,
        on_trouble: Callable[[], None],
        *,
        is_pending: bool,
        only_reads: bool,
    ) -> None:
        """Look what the shard may be asked now.

        Args:
            on_trouble: is called when a failure of this operation gives a reason to probe.
            is_pending: what this process has changed is not in the primary yet.
            only_reads: the operation writes nothing.
        """
        self._shard = shard
        self._id = id
        self._on_trouble = on_trouble
        self._era = shard.breaker.era
        self.writable = not (is_pending or shard.breaker.is_open)
        self._may_ask = self.writable or (only_reads and shard.readable and not is_pending)
        self.answered = False

    def ask(self, method: Callable[[*Ts], T], offline: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return what a method of the primary answers. Where that may not be asked, or raises
        `BackendUnavailable`, return what `offline` does.

        No other error says anything about the shard, least of all that the caller was cancelled.
        """
        if self._may_ask:
            try:
                answer = method(*args)
            except BackendUnavailable as error:
                self._failed(error)
            else:
                self.answered = True
                if self.writable and self._shard.breaker.awaits_answer:
                    self._shard.breaker.succeeded(self._era)
                return answer
        return offline(*args)

    async def aask(
        self, method: Callable[[*Ts], Awaitable[T]], offline: Callable[[*Ts], T], *args: *Ts
    ) -> T:
        """See `ask`."""
        if self._may_ask:
            try:
                answer = await method(*args)
            except BackendUnavailable as error:
                self._failed(error)
            else:
                self.answered = True
                if self.writable and self._shard.breaker.awaits_answer:
                    self._shard.breaker.succeeded(self._era)
                return answer
        return offline(*args)

    def _failed(self, error: BackendUnavailable) -> None:
        if not self.writable:
            self._shard.readable = False
            return
        breaker, is_transient = self._shard.breaker, error.transient
        if breaker.failed(self._era, str(error), transient=is_transient, about=self._id):
            self._shard.readable = True  # until a read fails, too
            self._on_trouble()
