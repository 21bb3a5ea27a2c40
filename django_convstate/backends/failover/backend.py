"""Asks the primary while it is there; while it is not, goes on in memory and brings home later what
has happened. No error of an outage reaches the caller, and nothing that was accepted is dropped."""

import atexit
import logging
import os
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Final

from asgiref.sync import sync_to_async

from ...exceptions import BackendUnavailable
from ..base import ConversationStateBackend
from ..locmem import LocMemBackend
from ..records import (
    Acquired,
    Change,
    Committed,
    ConversationSummary,
    Health,
    PurgeReport,
    Record,
    Selection,
)
from .journal import Journal
from .last_known import LastKnown
from .leases import Turns
from .offline import Shelter
from .recovery import Part, Recovery

logger = logging.getLogger("django_convstate")

KNOWN_CONVERSATIONS: Final = 5000
KNOWN_BYTES: Final = 16 * 2**20
JOURNAL_BYTES: Final = 64 * 2**20


class FailoverBackend(ConversationStateBackend):
    """A primary, and a fallback in memory for as long as the primary is away.

    Every process has its own fallback: what is said in an outage is known to the others when it is
    home. docs/outages.md says what is promised.
    """

    name: ClassVar = "failover"

    def __init__(
        self,
        primary: ConversationStateBackend,
        fallback: LocMemBackend,
        *,
        known_conversations: int = KNOWN_CONVERSATIONS,
        known_bytes: int = KNOWN_BYTES,
        journal_bytes: int = JOURNAL_BYTES,
    ) -> None:
        """Wrap `primary`. Nothing is connected, and no thread is started.

        Args:
            fallback: where changed conversations are in an outage. Leave room in it for as many
                as the journal may hold.
            known_conversations, known_bytes: how many of the conversations that were used lately,
                and how many bytes of them, are kept in case.
            journal_bytes: how much may wait to be brought home. When that is full, changes are
                refused with `BackendUnavailable`.
        """
        super().__init__(max_age=primary.max_age)
        self.primary = primary
        self.fallback = fallback
        # To whoever asks, it is the primary.
        for trait in ("name", "can_scan", "expires_natively", "is_shared"):
            setattr(self, trait, getattr(primary, trait))
        self._limits = known_conversations, known_bytes, journal_bytes
        self.begin()
        _alive.add(self)

    def begin(self) -> None:
        """Begin with nothing known and nothing to bring home, as a forked process does."""
        known_conversations, known_bytes, journal_bytes = self._limits
        self._parts: dict[str, Part] = {}
        self._known = LastKnown(known_conversations, known_bytes, self.max_age)
        self._shelter = Shelter(self.fallback, self._known, Journal(journal_bytes))
        self._recovery = Recovery(self.primary, self._shelter, self._parts)

    # Each begins with the primary, if that may be asked, and falls through to the shelter.

    def load(self, id: str, window: int) -> Record | None:
        way = self._way(id)
        if way.is_open:
            with way:
                return self._known.keep(id, self.primary.load(id, window))
        elif way.is_readable:
            with way:
                return _degraded(self._known.keep(id, self.primary.peek(id, window)))
        return self._shelter.load(id, window)

    async def aload(self, id: str, window: int) -> Record | None:
        way = self._way(id)
        if way.is_open:
            with way:
                return self._known.keep(id, await self.primary.aload(id, window))
        elif way.is_readable:
            with way:
                return _degraded(self._known.keep(id, await self.primary.apeek(id, window)))
        return self._shelter.load(id, window)

    def peek(self, id: str, window: int) -> Record | None:
        way = self._way(id)
        if way.is_readable:
            with way:
                return self.primary.peek(id, window)
        return self._shelter.load(id, window)

    async def apeek(self, id: str, window: int) -> Record | None:
        way = self._way(id)
        if way.is_readable:
            with way:
                return await self.primary.apeek(id, window)
        return self._shelter.load(id, window)

    def commit(self, id: str, change: Change) -> Committed:
        way = self._way(id)
        if way.is_open:
            with way:
                sent = self._turns.checked(id, change, by_primary=True)
                return self._committed(id, change, self.primary.commit(id, sent))
        return self._recovery.needed_after(self._shelter.commit(id, change))

    async def acommit(self, id: str, change: Change) -> Committed:
        way = self._way(id)
        if way.is_open:
            with way:
                sent = self._turns.checked(id, change, by_primary=True)
                return self._committed(id, change, await self.primary.acommit(id, sent))
        return self._recovery.needed_after(self._shelter.commit(id, change))

    def read_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        way = self._way(id)
        if way.is_readable:
            with way:
                return self.primary.read_messages(id, start, stop)
        return self._shelter.read_messages(id, start, stop)

    async def aread_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        way = self._way(id)
        if way.is_readable:
            with way:
                return await self.primary.aread_messages(id, start, stop)
        return self._shelter.read_messages(id, start, stop)

    def exists(self, id: str) -> bool:
        way = self._way(id)
        if way.is_readable:
            with way:
                return self.primary.exists(id)
        return self._shelter.exists(id)

    async def aexists(self, id: str) -> bool:
        way = self._way(id)
        if way.is_readable:
            with way:
                return await self.primary.aexists(id)
        return self._shelter.exists(id)

    def touch(self, id: str, ttl: float | None = None) -> bool:
        way = self._way(id)
        if way.is_open:
            with way:
                return self._known.touch(id, ttl, self.primary.touch(id, ttl))
        return self._recovery.needed_after(self._shelter.touch(id, ttl))

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        way = self._way(id)
        if way.is_open:
            with way:
                return self._known.touch(id, ttl, await self.primary.atouch(id, ttl))
        return self._recovery.needed_after(self._shelter.touch(id, ttl))

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        way = self._way(id)
        if way.is_open:
            with way:
                deleted = self.primary.delete(id, expected_version)
                self._known.forget(id)
                return deleted
        return self._recovery.needed_after(self._shelter.delete(id, expected_version))

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        way = self._way(id)
        if way.is_open:
            with way:
                deleted = await self.primary.adelete(id, expected_version)
                self._known.forget(id)
                return deleted
        return self._recovery.needed_after(self._shelter.delete(id, expected_version))

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        way = self._way(id)
        if way.is_open and not self.fallback.has_line(id):
            with way:
                acquired = self.primary.acquire(id, lease, seconds, window)
                return self._noted(id, lease, seconds, acquired)
        return self._shelter.acquire(id, lease, seconds, window)

    async def aacquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        way = self._way(id)
        if way.is_open and not self.fallback.has_line(id):
            with way:
                acquired = await self.primary.aacquire(id, lease, seconds, window)
                return self._noted(id, lease, seconds, acquired)
        return self._shelter.acquire(id, lease, seconds, window)

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        way = self._way(id)
        if way.is_open and not self.fallback.has_line(id):
            with way:
                return self._renewed(id, lease, seconds, self.primary.renew(id, lease, seconds))
            if not way.has_closed:
                return True  # it was slow this once, and there is time for another try
        return self._turns.renew(id, lease, seconds)

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        way = self._way(id)
        if way.is_open and not self.fallback.has_line(id):
            with way:
                renewed = await self.primary.arenew(id, lease, seconds)
                return self._renewed(id, lease, seconds, renewed)
            if not way.has_closed:
                return True
        return self._turns.renew(id, lease, seconds)

    def release(self, id: str, lease: str) -> None:
        self._turns.over(id, lease)
        way = self._way(id)
        if way.is_open:
            with way:
                self.primary.release(id, lease)

    async def arelease(self, id: str, lease: str) -> None:
        self._turns.over(id, lease)
        way = self._way(id)
        if way.is_open:
            with way:
                await self.primary.arelease(id, lease)

    # Only the primary knows them all.

    def scan(self, owner: str | None = None) -> Iterator[ConversationSummary]:
        return self.primary.scan(owner)

    def ascan(self, owner: str | None = None) -> AsyncIterator[ConversationSummary]:
        return self.primary.ascan(owner)

    def purge(self, selection: Selection, **how: Any) -> PurgeReport:
        return self.primary.purge(selection, **how)

    async def apurge(self, selection: Selection, **how: Any) -> PurgeReport:
        return await self.primary.apurge(selection, **how)

    def health(self) -> Health:
        return self._recovery.health_now() or self._recovery.health_after(self.primary.health())

    async def ahealth(self) -> Health:
        return self._recovery.health_now() or self._recovery.health_after(
            await self.primary.ahealth()
        )

    def shard_of(self, id: str) -> str:
        return self.primary.shard_of(id)

    def close(self) -> None:
        """Bring home what can be, and let go of connections. What cannot be is kept in memory, and
        tried again as soon as the backend is used."""
        self._recovery.stop()
        self.primary.close()

    async def aclose(self) -> None:
        await sync_to_async(self.close, thread_sensitive=False)()
        await self.primary.aclose()

    @property
    def _turns(self) -> Turns:
        return self._shelter.turns

    def _committed(self, id: str, change: Change, committed: Committed) -> Committed:
        self._turns.after(id, change)
        return self._known.change(id, change, committed)

    def _noted(self, id: str, lease: str, seconds: float, acquired: Acquired) -> Acquired:
        if not acquired.position:
            self._known.keep(id, acquired.record)
            self._turns.given(id, lease, seconds)
        return acquired

    def _renewed(self, id: str, lease: str, seconds: float, renewed: bool) -> bool:
        if renewed:
            self._turns.given(id, lease, seconds)
        return renewed

    def _way(self, id: str) -> "_Way":
        name = self.primary.shard_of(id)
        part = self._parts.get(name)
        if part is None:
            part = self._parts.setdefault(name, Part())
        if part.breaker.is_open or self._shelter.journal.pending:
            self._recovery.wake()  # unless somebody has closed us, it is
        return _Way(part, self._recovery, self._shelter.holds(id))


class _Way:
    """The way to the primary for one operation: open, readable only, or neither; and what becomes
    of the part of the primary that it leads to.

    As a context manager around the call it swallows `BackendUnavailable`. Everything else says
    nothing about the primary, least of all that the caller was cancelled.
    """

    __slots__ = ("_era", "_part", "_recovery", "is_open", "is_readable")

    def __init__(self, part: Part, recovery: Recovery, held: bool) -> None:
        self._part = part
        self._recovery = recovery
        self._era = part.breaker.era
        # What waits to be brought home is more than the primary has.
        self.is_open = not (held or part.breaker.is_open)
        self.is_readable = self.is_open or (part.readable and not held)

    @property
    def has_closed(self) -> bool:
        """Whether it has become clear that the primary is away."""
        return self._part.breaker.is_open

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None and self.is_open:
            self._part.breaker.succeeded(self._era)
        if not isinstance(error, BackendUnavailable):
            return False
        if not self.is_open:
            self._part.readable = False
        elif self._part.breaker.failed(self._era, str(error), transient=error.transient):
            self._part.readable = True  # as far as is known
            self._recovery.wake()
        return True


def _degraded(record: Record | None) -> Record | None:
    return None if record is None else replace(record, degraded=True)


_alive: Final["weakref.WeakSet[FailoverBackend]"] = weakref.WeakSet()


def _forget_the_parent() -> None:
    # The parent brings home what it has accepted, and its thread is not in the child.
    for backend in list(_alive):
        backend.fallback.clear()
        backend.begin()


def _bring_home_at_exit() -> None:
    for backend in list(_alive):
        backend._recovery.stop(for_good=True)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_the_parent)
atexit.register(_bring_home_at_exit)
