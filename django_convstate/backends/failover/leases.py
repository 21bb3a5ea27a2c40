"""Whose turn it is while the primary cannot say.

A turn that the primary has given to this process goes on here, before those who come in an outage;
and one that was given here goes on here when the primary is back. A lease that has lapsed is fenced
here as it is there. Other processes know nothing of it.
"""

import threading
import time
from dataclasses import replace
from typing import Final

from ...exceptions import ConversationConflict
from ..locmem import LocMemBackend
from ..records import TURN_LOST, Change

GRACE: Final = 5.0  # seconds for which a lease is good after a commit with it
MANY: Final = 10_000  # turns after which those are dropped that were never given back


class Turns:
    def __init__(self, fallback: LocMemBackend) -> None:
        self._fallback = fallback
        self._lock = threading.Lock()
        # By conversation, what the primary has given to this process, and until when.
        self._from_primary: dict[str, tuple[str, float]] = {}
        self._from_here: dict[str, float] = {}

    def given(self, id: str, lease: str, seconds: float) -> None:
        """Take note that the primary has given, or renewed, a turn."""
        with self._lock:
            now = time.monotonic()
            self._from_primary[id] = lease, now + seconds
            if len(self._from_primary) > MANY:
                self._from_primary = {
                    id: held for id, held in self._from_primary.items() if held[1] > now
                }

    def after(self, id: str, change: Change) -> None:
        """Take note of a change that was applied, with which a turn may have been given back."""
        if change.lease is not None and change.release:
            self.over(id, change.lease)

    def over(self, id: str, lease: str) -> None:
        self._fallback.release(id, lease)
        with self._lock:
            self._from_here.pop(lease, None)
            if self._from_primary.get(id, ("", 0))[0] == lease:
                del self._from_primary[id]

    def stand(self, id: str, lease: str, seconds: float) -> int:
        """Stand in line here, behind whoever has the primary's turn: how many are before us?"""
        with self._lock:
            now = time.monotonic()
            holder, until = self._from_primary.get(id, ("", 0.0))
            if until > now and holder != lease and not self._fallback.has_line(id):
                self._fallback.acquire(id, holder, until - now, 1)
            position = self._fallback.acquire(id, lease, seconds, 1).position
            if position == 0:
                self._from_here[lease] = now + seconds
                if len(self._from_here) > MANY:
                    self._from_here = {k: v for k, v in self._from_here.items() if v > now}
            return position

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """Keep a turn here. One of the primary's goes on here if nobody else has one."""
        if lease in self._from_here or self._fallback.has_line(id):
            return self._fallback.renew(id, lease, seconds)
        return self.stand(id, lease, seconds) == 0

    def checked(self, id: str, change: Change, *, by_primary: bool) -> Change:
        """Return a change as it is sent on.

        Args:
            by_primary: to the primary, which sees to its own turns and knows nothing of those that
                were given here.

        Raises:
            ConversationConflict: the turn was lost.
        """
        lease = change.lease
        if lease is None or (by_primary and lease not in self._from_here):
            return change
        if (lease in self._from_here or self._fallback.has_line(id)) and not self._fallback.renew(
            id, lease, GRACE
        ):
            raise ConversationConflict(TURN_LOST)
        return replace(change, lease=None, release=False)
