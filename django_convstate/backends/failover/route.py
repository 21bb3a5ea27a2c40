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
    """How one operation reaches the shard of its conversation; made by `Recovery.route`.

    Attributes:
        era: of the breaker, when the operation began.
        writable: the primary may be asked for anything, and not only for what writes nothing.
        may_ask: it may be asked for this operation.
        answered: it has answered this operation.
        on_trouble: is called when a failure of this operation gives a reason to probe.
    """

    __slots__ = ("answered", "era", "id", "may_ask", "on_trouble", "shard", "writable")

    shard: Shard
    id: str
    era: int
    writable: bool
    may_ask: bool
    answered: bool
    on_trouble: Callable[[], None]

    def ask(self, method: Callable[[*Ts], T], offline: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return what a method of the primary answers. Where that may not be asked, or raises
        `BackendUnavailable`, return what `offline` does.

        No other error says anything about the shard, least of all that the caller was cancelled.
        """
        if self.may_ask:
            try:
                answer = method(*args)
            except BackendUnavailable as error:
                self._failed(error)
            else:
                self.answered = True
                if self.writable and self.shard.breaker.awaits_answer:
                    self.shard.breaker.succeeded(self.era)
                return answer
        return offline(*args)

    async def aask(
        self, method: Callable[[*Ts], Awaitable[T]], offline: Callable[[*Ts], T], *args: *Ts
    ) -> T:
        """See `ask`."""
        if self.may_ask:
            try:
                answer = await method(*args)
            except BackendUnavailable as error:
                self._failed(error)
            else:
                self.answered = True
                if self.writable and self.shard.breaker.awaits_answer:
                    self.shard.breaker.succeeded(self.era)
                return answer
        return offline(*args)

    def _failed(self, error: BackendUnavailable) -> None:
        if not self.writable:
            self.shard.readable = False
            return
        breaker, is_transient = self.shard.breaker, error.transient
        if breaker.failed(self.era, str(error), transient=is_transient, about=self.id):
            self.shard.readable = True  # until a read fails, too
            self.on_trouble()
