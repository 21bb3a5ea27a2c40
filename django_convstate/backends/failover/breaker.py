"""When to leave a server alone, and when to look whether it is back.

A circuit breaker (M. Nygard, Release It!). Closed: everybody may ask. Open: nobody does, but for
one probe now and then, whose time `next_probe` tells; who sends it reports with `probe_failed` or
`close`. What counts is failures in a row: an error that says nothing about the server is not told
to the breaker, and neither is a call that was cancelled. An answer that comes too late is a
failure; that it comes too late is for the backend's own time limit to find.

No lock is held while anybody waits, and the clock is monotonic.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

OPENS_AFTER: Final = 3  # failures in a row, unless one of them is not transient
SHORTEST: Final = 1.0  # seconds to the next probe
LONGEST: Final = 30.0
STEADY: Final = 30.0  # seconds without trouble after which a new outage is another one


class Breaker:
    """One for each part of a server that may fail by itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._reopened = 0
        self._closed_at = -STEADY
        self._opened_at = 0.0
        self.is_open = False
        # Counts the changes of state. An operation that began in another state says nothing.
        self.era = 0
        self.next_probe = 0.0
        self.reason = ""

    def succeeded(self, era: int) -> None:
        """Take note of an answer to what was asked in `era`."""
        if self._failures and era == self.era:
            self._failures = 0

    def failed(self, era: int, reason: str, *, transient: bool = True) -> bool:
        """Take note of a failure of what was asked in `era`, and tell whether this opened it.

        Args:
            reason: for people.
            transient: the next one may fare better. False: it would not, so do not wait for it.
        """
        with self._lock:
            if self.is_open or era != self.era:
                return False
            self._failures += 1
            self.reason = reason
            if transient and self._failures < OPENS_AFTER:
                return False
            self._open()
            return True

    def probe_failed(self, reason: str) -> None:
        """Wait longer for the next one."""
        with self._lock:
            self.reason = reason
            self._plan()

    def close(self) -> None:
        """Let everybody ask again: the probe was answered."""
        with self._lock:
            self.is_open = False
            self.era += 1
            self._failures = 0
            self._closed_at = self._clock()

    def _open(self) -> None:
        now = self._clock()
        self._reopened = self._reopened + 1 if now - self._closed_at < STEADY else 0
        self._opened_at = now
        self.is_open = True
        self.era += 1
        self._plan()

    def _plan(self) -> None:
        # A third of what it has lasted: so the waits grow, and somebody who was away for ten
        # seconds is found within four and has everything within five. Jitter over the whole of it
        # keeps many processes from coming at once. A server that keeps falling over is left alone
        # for longer.
        now = self._clock()
        least = min(LONGEST, SHORTEST * 5**self._reopened)
        most = min(LONGEST, max(2 * least, (now - self._opened_at) / 3))
        self.next_probe = now + random.uniform(least, most)  # noqa: S311 - hides nothing
