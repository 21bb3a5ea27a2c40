"""One timer of an event loop for the time limits of all its tasks.

`asyncio.timeout()` makes a timer for each: for operations, whose time is hardly ever up, that took
longer than all else that is done between a caller and its connection.
"""

import asyncio
import math
import time
from contextvars import Context
from typing import Protocol


class Limit(Protocol):
    """What is called when its time is up.

    Attributes:
        until: when that is, by time.monotonic(). It may grow while it is watched.
    """

    until: float

    def expire(self) -> None:
        """Cancel what takes too long."""


class Watch:
    """Watches limits in one event loop."""

    def __init__(self) -> None:
        self._limits: set[Limit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        # Else the timer, which is set again and again, would run in a copy of the context of the
        # request that was there first, and keep alive all that is in it.
        self._context = Context()

    def begin(self, limit: Limit) -> None:
        """Have a limit expire when its time is up, if it is not ended before."""
        self._limits.add(limit)
        if limit.until < self._fires_at:
            self._set_timer(limit.until)

    def end(self, limit: Limit) -> None:
        """Stop watching a limit. The timer stays: the next operation needs it, too."""
        self._limits.discard(limit)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = max(0.0, at - time.monotonic())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._fire, context=self._context)
        self._fires_at = at

    def _fire(self) -> None:
        self._timer, self._fires_at = None, math.inf
        now = time.monotonic()
        for limit in [each for each in self._limits if each.until <= now]:
            self._limits.discard(limit)
            limit.expire()
        if self._limits:
            self._set_timer(min(each.until for each in self._limits))
