"""When to stop asking a server, and when to probe whether it is back.

A circuit breaker (M. Nygard, Release It!). Closed: every operation asks the server. Open: none
does, but for one probe now and then, due at `next_probe`; the prober reports with `probe_failed` or
`close`. What counts is failures in a row: an error that says nothing about the server is not
reported to the breaker, and neither is a call that was cancelled. An answer that comes too late is
a failure; that it comes too late is for the backend's own time limit to find.

Failures of one conversation alone may be its own, because it is too large. They make the server
suspect, and a probe decides. And a server that has never answered may be slow only because all
connect to it at once: it is given time.

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
FIRST_ANSWER_WAIT: Final = 3.0  # seconds that a server has to answer for the first time
MAX_RECURRENCES: Final = 3  # that make the probes wait longer
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
        self._failures = 0  # in a row
        self._has_answered = False
        self._failing_since = 0.0
        # Up to two of the conversations that failed since the last answer.
        self._failing: set[str | None] = set()
        # Whether an answer changes anything.
        self.awaits_answer = True
        self.is_open = False
        self.is_suspect = False  # a probe is to decide
        # Counts the changes of state. An operation that began in another state says nothing.
        self.era = 0
        self.next_probe = 0.0
        self.reason = ""

    def succeeded(self, era: int) -> None:
        """Count an answer to what was asked in `era`."""
        with self._lock:
            if era == self.era:
                self._note_answer()

    def failed(
        self, era: int, reason: str, *, transient: bool = True, about: str | None = None
    ) -> bool:
        """Count a failure of what was asked in `era`, and tell whether there is something to probe:
        this opened the breaker, or made the server suspect.

        Args:
            reason: for people.
            transient: the next operation may fare better. False: it would not, so do not wait for
                more failures.
            about: the conversation, which may be the reason itself; None: it is not.
        """
        with self._lock:
            if self.is_open or era != self.era:
                return False
            if not self._failures:
                self._failing_since = self._clock()
            self._failures += 1
            if len(self._failing) < 2:
                self._failing.add(about)
            self.awaits_answer = True
            self.reason = reason
            if transient and not self._is_enough():
                return False
            if transient and about is not None and len(self._failing) == 1:
                was_suspect, self.is_suspect = self.is_suspect, True
                return not was_suspect
            self._open()
            return True

    def _is_enough(self) -> bool:
        is_new = not self._has_answered
        if is_new and self._clock() - self._failing_since < FIRST_ANSWER_WAIT:
            return False
        return self._failures >= FAILURE_THRESHOLD

    def _note_answer(self) -> None:
        self._has_answered = True
        self._failures = 0
        self._failing.clear()
        self.awaits_answer = self.is_suspect = False

    def probe_failed(self, reason: str) -> None:
        """Open it, or wait longer for the next probe."""
        with self._lock:
            self.reason = reason
            if self.is_open:
                self._plan_probe()
            else:
                self._open()

    def close(self) -> None:
        """Let every operation ask again: the probe was answered."""
        with self._lock:
            if self.is_open:
                self.is_open = False
                self.era += 1
                self._closed_at = self._clock()
            self._note_answer()

    def _open(self) -> None:
        now = self._clock()
        recurs = now - self._closed_at < RECURRENCE_WINDOW
        self._recurrences = min(self._recurrences + 1, MAX_RECURRENCES) if recurs else 0
        self._opened_at = now
        self.is_open = True
        self.is_suspect = False
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
