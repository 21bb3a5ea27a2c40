"""When to stop asking a server, and when to probe whether it is back.

A circuit breaker (M. Nygard, Release It!). Closed: every operation asks the server. Open: none
does, but for one probe now and then, due at `next_probe`; the prober reports with `probe_failed` or
`close`. What counts is failures in a row: an error that says nothing about the server is not
reported to the breaker, and neither is a call that was cancelled. An answer that comes too late is
a failure; that it comes too late is for the backend's own time limit to find.

No lock is held during a wait, and the clock is monotonic.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

FAILURE_THRESHOLD: Final = 3  # failures in a row that open it, unless one of them is not transient
SHORTEST_PROBE_WAIT: Final = 1.0  # seconds
LONGEST_PROBE_WAIT: Final = 30.0
RECURRENCE_WINDOW: Final = 30.0  # seconds; an outage so soon after another is the same trouble


class Breaker:
    """One for each shard of a server: what may fail by itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin closed. `clock` returns seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._recurrences = 0
        self._closed_at = -RECURRENCE_WINDOW
        self._opened_at = 0.0
        self.failures = 0  # in a row
        self.is_open = False
        # Counts the changes of state. An operation that began in another state says nothing.
        self.era = 0
        self.next_probe = 0.0
        self.reason = ""

    def succeeded(self, era: int) -> None:
        """Count an answer to what was asked in `era`."""
        if self.failures and era == self.era:
            self.failures = 0

    def failed(self, era: int, reason: str, *, transient: bool = True) -> bool:
        """Count a failure of what was asked in `era`, and tell whether this opened the breaker.

        Args:
            reason: for people.
            transient: the next operation may fare better. False: it would not, so do not wait for
                more failures.
        """
        with self._lock:
            if self.is_open or era != self.era:
                return False
            self.failures += 1
            self.reason = reason
            if transient and self.failures < FAILURE_THRESHOLD:
                return False
            self._open()
            return True

    def probe_failed(self, reason: str) -> None:
        """Wait longer for the next probe."""
        with self._lock:
            self.reason = reason
            self._plan_probe()

    def close(self) -> None:
        """Let every operation ask again: the probe was answered."""
        with self._lock:
            self.is_open = False
            self.era += 1
            self.failures = 0
            self._closed_at = self._clock()

    def _open(self) -> None:
        now = self._clock()
        recurs = now - self._closed_at < RECURRENCE_WINDOW
        self._recurrences = self._recurrences + 1 if recurs else 0
        self._opened_at = now
        self.is_open = True
        self.era += 1
        self._plan_probe()

    def _plan_probe(self) -> None:
        # A third of what the outage has lasted: so the waits grow, and a server that was down for
        # ten seconds is found within four and has everything within five. Jitter over the whole of
        # it keeps many processes from probing at once. A server that keeps failing is probed less
        # often.
        now = self._clock()
        least = min(LONGEST_PROBE_WAIT, SHORTEST_PROBE_WAIT * 5**self._recurrences)
        most = min(LONGEST_PROBE_WAIT, max(2 * least, (now - self._opened_at) / 3))
        self.next_probe = now + random.uniform(least, most)  # noqa: S311 - hides nothing
