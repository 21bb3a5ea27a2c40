"""Conversations in the memory of this process: the default, for development, tests and one worker.

Stored is bytes, so nobody's later mutation leaks in. Expired conversations go as it runs: there is
no timer thread.
"""

import heapq
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, ParamSpec, TypeVar

from django.core.checks import CheckMessage, Warning

from .. import conf
from ..exceptions import ConversationConflict
from .base import ConversationStateBackend
from .records import (
    TURN_LOST,
    Acquired,
    Change,
    Committed,
    ConversationSummary,
    Health,
    Progress,
    PurgeReport,
    Record,
    Selection,
)
from .toolkit.lease_queue import Lines
from .toolkit.stored import Entry

logger = logging.getLogger("django_convstate")

P = ParamSpec("P")
T = TypeVar("T")


class LocMemBackend(ConversationStateBackend):
    name: ClassVar = "locmem"
    option_names: ClassVar = ("max_age", "max_conversations")
    is_shared: ClassVar = False

    def __init__(self, *, max_age: float | None = None, max_conversations: int = 1000) -> None:
        """Keep at most `max_conversations`; when full, the fifth that is idle for longest goes."""
        super().__init__(max_age=max_age)
        self.max_conversations = max_conversations
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._next_sweep = 0.0
        self._lines = Lines()
        _forkable.add(self)

    def load(self, id: str, window: int) -> Record | None:
        with self._lock:
            return self._load(id, window)

    def commit(self, id: str, change: Change) -> Committed:
        now = time.time()
        with self._lock:
            entry = self._alive(id, now)
            if entry is not None and (answered := entry.commits.find(change.commit_id)):
                return answered
            if change.lease is not None and not self._lines.is_held_by(id, change.lease):
                raise ConversationConflict(TURN_LOST)
            committed, evicted = self._apply(id, entry, change, now)
            if change.lease is not None and change.release:
                self._lines.leave(id, change.lease)
        if evicted:
            logger.warning(
                "Memory for conversations is full: dropped the %d of %d that were idle for "
                "longest. Raise MAX_CONVERSATIONS, or use a backend that keeps them elsewhere.",
                evicted,
                self.max_conversations,
            )
        return committed

    def read_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        with self._lock:
            entry = self._alive(id, time.time())
            return entry.between(start, stop) if entry else []

    def exists(self, id: str) -> bool:
        with self._lock:
            return self._alive(id, time.time()) is not None

    def touch(self, id: str, ttl: float | None = None) -> bool:
        now = time.time()
        with self._lock:
            entry = self._alive(id, now)
            if entry is None:
                return False
            entry.touch(now, ttl)
            return True

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        with self._lock:
            entry = self._alive(id, time.time())
            if entry is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(entry.version, None)
            del self._entries[id]
            return True

    def adopt(self, id: str, entry: Entry | None) -> None:
        """Put an entry in the place of whatever there is; None: nothing."""
        with self._lock:
            if entry is None:
                self._entries.pop(id, None)
            else:
                self._entries[id] = entry

    def clear(self) -> None:
        """Forget everything, turns included."""
        with self._lock:
            self._entries.clear()
            self._lines = Lines()

    def has_line(self, id: str) -> bool:
        """Tell whether anybody has, or waits for, a turn."""
        with self._lock:
            return self._lines.has(id)

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        with self._lock:
            position = self._lines.stand(id, lease, seconds)
            return Acquired(position, None if position else self._load(id, window))

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        with self._lock:
            return self._lines.renew(id, lease, seconds)

    def release(self, id: str, lease: str) -> None:
        with self._lock:
            self._lines.leave(id, lease)

    def scan(self, owner: str | None = None) -> Iterator[ConversationSummary]:
        now = time.time()
        with self._lock:
            found = [
                entry.summary(id, self.max_age)
                for id, entry in self._entries.items()
                if entry.expires_at(self.max_age) > now and owner in (None, entry.owner)
            ]
        return iter(sorted(found, key=lambda summary: summary.last_accessed, reverse=True))

    def purge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        now = time.time()

        def selected(entry: Entry) -> bool:
            if selection.only_expired:
                return entry.expires_at(self.max_age) <= now
            idle_for, owner = selection.idle_for, selection.owner
            is_idle = idle_for is None or now - entry.last_accessed >= idle_for
            return is_idle and owner in (None, entry.owner)

        with self._lock:
            ids = [id for id, entry in self._entries.items() if selected(entry)]
            examined = len(self._entries)
            if not dry_run:
                for id in ids:
                    del self._entries[id]
        if progress:
            progress(examined, examined)
        return PurgeReport(examined, len(ids), dry_run)

    def health(self) -> Health:
        started = time.perf_counter()
        with self._lock:
            kept = len(self._entries)
        latency_ms = (time.perf_counter() - started) * 1000
        return Health(
            self.name,
            True,
            latency_ms,
            detail=f"{kept} of {self.max_conversations} conversations in this process",
        )

    @classmethod
    def check_deployment(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        return [
            Warning(
                "Conversations are kept in the memory of each server process: every worker has its "
                "own, and a restart forgets them all.",
                hint=f"Set {conf.BACKEND} to a backend that the processes share.",
                id="convstate.W001",
            )
        ]

    def _load(self, id: str, window: int) -> Record | None:
        now = time.time()
        entry = self._alive(id, now)
        if entry is None:
            return None
        entry.last_accessed = now
        return entry.record(id, window, self.max_age)

    def _apply(
        self, id: str, entry: Entry | None, change: Change, now: float
    ) -> tuple[Committed, int]:
        """Return what the change is answered, and how many conversations had to make room."""
        if entry is not None:
            change.refuse_unless_fits(entry.version, entry.owner)
            return entry.apply(change, now, self.max_age), 0
        change.refuse_unless_fits(None, None)
        entry = Entry(now, now)
        committed = entry.apply(change, now, self.max_age)
        evicted = self._make_room(now)
        self._entries[id] = entry
        return committed, evicted

    def _alive(self, id: str, now: float) -> Entry | None:
        entry = self._entries.get(id)
        if entry is not None and entry.expires_at(self.max_age) <= now:
            del self._entries[id]
            return None
        return entry

    def _make_room(self, now: float) -> int:
        """Drop what has expired and, if that is not enough, what is idle for longest: how many?"""
        if len(self._entries) < self.max_conversations and now < self._next_sweep:
            return 0
        for id in [i for i, e in self._entries.items() if e.expires_at(self.max_age) <= now]:
            del self._entries[id]
        # A sweep looks at every entry, so the more there are, the rarer it comes: its cost stays
        # at some microseconds a second.
        self._next_sweep = now + max(1.0, len(self._entries) / 10_000)
        if len(self._entries) < self.max_conversations:
            return 0
        idle_for_longest = heapq.nsmallest(
            max(1, self.max_conversations // 5),
            self._entries,
            key=lambda id: self._entries[id].last_accessed,
        )
        for id in idle_for_longest:
            del self._entries[id]
        return len(idle_for_longest)

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)  # memory is no I/O: the twins need no thread

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        return self.renew(id, lease, seconds)


# A fork while another thread is at work would leave the child a lock that nobody releases and an
# entry half changed. So the forking thread takes every lock first.
_forkable: "weakref.WeakSet[LocMemBackend]" = weakref.WeakSet()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    for backend in list(_forkable):
        backend._lock.acquire()
        _held.append(backend._lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
