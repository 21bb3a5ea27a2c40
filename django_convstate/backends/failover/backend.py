"""Asks the primary while it is available. In an outage it goes on in memory, and replays later what
was changed. No error of an outage reaches the caller, and nothing that was accepted is dropped."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final

from asgiref.sync import sync_to_async

from ...exceptions import ConversationInterrupted
from ..base import ConversationStateBackend
from ..locmem import LocMemBackend
from ..records import Change, Committed, Record
from ..reports import ConversationSummary, Finding, Health, PurgeReport, Selection
from ..toolkit.packed import Pair
from .instances import instances
from .journal import Journal
from .last_known import LastKnownCache
from .offline import OfflineStore
from .recovery import Recovery
from .turns import TurnsWithFailover

KNOWN_CONVERSATIONS: Final = 5000
KNOWN_SECONDS: Final = 600.0
KNOWN_BYTES: Final = 16 * 2**20
JOURNAL_BYTES: Final = 64 * 2**20

Load = Callable[[str, int], Record | None]
ALoad = Callable[[str, int], Awaitable[Record | None]]


class FailoverBackend(TurnsWithFailover):
    """A primary, and a fallback in memory for as long as the primary is unavailable.

    Every process has its own fallback. What is promised is in docs/outages.md.
    """

    name: ClassVar = "failover"

    def __init__(
        self,
        primary: ConversationStateBackend,
        fallback: LocMemBackend,
        *,
        outage_memory: float = KNOWN_SECONDS,
        known_conversations: int = KNOWN_CONVERSATIONS,
        known_bytes: int = KNOWN_BYTES,
        journal_bytes: int = JOURNAL_BYTES,
    ) -> None:
        """Wrap `primary`. Nothing is connected, and no thread is started.

        Args:
            fallback: where changed conversations are in an outage. It evicts none from now on.
            outage_memory: for how many seconds a conversation is remembered for an outage after the
                primary has last shown it; 0: not at all.
            known_conversations, known_bytes: the most that is kept for that; last seen, first gone.
            journal_bytes: how many bytes of memory may wait for replay, with what is in `fallback`.
                More is refused with `BackendUnavailable`.
        """
        super().__init__(max_age=primary.max_age)
        self.primary = primary
        self.fallback = fallback
        for trait in ("name", "can_scan", "expires_natively", "is_shared"):  # for a caller
            setattr(self, trait, getattr(primary, trait))
        self._known_limits = known_conversations, known_bytes, primary.max_age, outage_memory
        self._journal_bytes = journal_bytes
        self._begin()

    def _begin(self) -> None:
        self.fallback.keep_all(self.max_age)  # the journal bounds it
        self._known = LastKnownCache(*self._known_limits)
        self._offline = OfflineStore(
            self.fallback, self._known, Journal(self._journal_bytes), lambda: self._recovery.wake()
        )
        self._leases = self._offline.leases
        self._recovery = Recovery(self.primary, self._offline)
        instances.add(self)

    def begin_anew(self) -> None:
        """Begin with nothing, as a forked process does: the parent replays what it accepted."""
        self.fallback.clear()
        self._begin()

    # Each operation asks the primary. Where that is unavailable, the offline store answers.

    def load(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """See `ConversationStateBackend.load`. In an outage, the record is `degraded`. What is
        `known` is what is remembered here."""
        route = self._recovery.route(id, only_reads=True)
        load: Load = self.primary.load if route.writable else self.primary.peek
        era, known = self._known.era, self._known.exact(id, window) if route.writable else None
        if known is not None:
            load = partial(self.primary.load, known=known)
        record = route.ask(load, self._offline.load, id, window)
        if route.answered:
            self._known.put(id, record, era, known)
        if not (route.answered and route.writable):
            self._offline.note_use(id)
        return record if record is None or route.writable else replace(record, degraded=True)

    async def aload(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """See `load`."""
        route = self._recovery.route(id, only_reads=True)
        load: ALoad = self.primary.aload if route.writable else self.primary.apeek
        era, known = self._known.era, self._known.exact(id, window) if route.writable else None
        if known is not None:
            load = partial(self.primary.aload, known=known)
        record = await route.aask(load, self._offline.load, id, window)
        if route.answered:
            self._known.put(id, record, era, known)
        if not (route.answered and route.writable):
            self._offline.note_use(id)
        return record if record is None or route.writable else replace(record, degraded=True)

    def peek(self, id: str, window: int) -> Record | None:
        """See `ConversationStateBackend.peek`."""
        route = self._recovery.route(id, only_reads=True)
        record = route.ask(self.primary.peek, self._offline.load, id, window)
        if record is None:
            self._known.forget(id)
        return record

    async def apeek(self, id: str, window: int) -> Record | None:
        """See `peek`."""
        route = self._recovery.route(id, only_reads=True)
        record = await route.aask(self.primary.apeek, self._offline.load, id, window)
        if record is None:
            self._known.forget(id)
        return record

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `ConversationStateBackend.read_messages`."""
        route = self._recovery.route(id, only_reads=True)
        return route.ask(self.primary.read_messages, self._offline.read_messages, id, start, stop)

    async def aread_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `read_messages`."""
        route = self._recovery.route(id, only_reads=True)
        return await route.aask(
            self.primary.aread_messages, self._offline.read_messages, id, start, stop
        )

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        route = self._recovery.route(id, only_reads=True)
        return route.ask(self.primary.find, self._offline.find, id, message_id)

    async def afind(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `find`."""
        route = self._recovery.route(id, only_reads=True)
        return await route.aask(self.primary.afind, self._offline.find, id, message_id)

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""
        route = self._recovery.route(id, only_reads=True)
        exists = route.ask(self.primary.exists, self._offline.exists, id)
        if not exists:
            self._known.forget(id)
        return exists

    async def aexists(self, id: str) -> bool:
        """See `exists`."""
        route = self._recovery.route(id, only_reads=True)
        exists = await route.aask(self.primary.aexists, self._offline.exists, id)
        if not exists:
            self._known.forget(id)
        return exists

    def commit(self, id: str, change: Change) -> Committed:
        """See `ConversationStateBackend.commit`. In an outage, the answer is `degraded`."""
        route = self._recovery.route(id)
        fenced = change
        if change.lease is not None:
            fenced = self._leases.fenced(id, change, by_primary=True)
        era = self._known.era
        try:
            committed = route.ask(self.primary.commit, self._offline.commit, id, fenced)
        except ConversationInterrupted:
            self._known.forget(id)  # others have deleted it, or it has expired
            raise
        if change.release:
            self._leases.committed(id, change)
        if route.answered:
            self._known.apply(id, change, committed, era)
        return committed

    async def acommit(self, id: str, change: Change) -> Committed:
        """See `commit`."""
        route = self._recovery.route(id)
        fenced = change
        if change.lease is not None:
            fenced = self._leases.fenced(id, change, by_primary=True)
        era = self._known.era
        try:
            committed = await route.aask(self.primary.acommit, self._offline.commit, id, fenced)
        except ConversationInterrupted:
            self._known.forget(id)  # others have deleted it, or it has expired
            raise
        if change.release:
            self._leases.committed(id, change)
        if route.answered:
            self._known.apply(id, change, committed, era)
        return committed

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """See `ConversationStateBackend.touch`."""
        route = self._recovery.route(id)
        found = route.ask(self.primary.touch, self._offline.touch, id, ttl)
        if route.answered:
            self._known.touch(id, ttl, found=found)
        return found

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        """See `touch`."""
        route = self._recovery.route(id)
        found = await route.aask(self.primary.atouch, self._offline.touch, id, ttl)
        if route.answered:
            self._known.touch(id, ttl, found=found)
        return found

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`."""
        route = self._recovery.route(id)
        found = route.ask(self.primary.delete, self._offline.delete, id, expected_version)
        self._known.forget(id)
        return found

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        """See `delete`."""
        route = self._recovery.route(id)
        found = await route.aask(self.primary.adelete, self._offline.delete, id, expected_version)
        self._known.forget(id)
        return found

    def id_beside(self, id: str) -> str:
        """See `ConversationStateBackend.id_beside`."""
        return self.primary.id_beside(id)

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.rename`."""
        route = self._recovery.route(id)
        found = route.ask(self.primary.rename, self._offline.rename, id, new_id, expected_version)
        self._known.move(id, new_id, found=found)
        return found

    async def arename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `rename`."""
        route = self._recovery.route(id)
        found = await route.aask(
            self.primary.arename, self._offline.rename, id, new_id, expected_version
        )
        self._known.move(id, new_id, found=found)
        return found

    def restore(self, id: str, record: Record, messages: Iterable[Pair], **options: Any) -> None:
        """See `ConversationStateBackend.restore`."""
        restore = partial(self.primary.restore, **options)
        self._recovery.route(id).ask(restore, self._offline.restore, id, record, messages)
        self._known.forget(id)

    async def arestore(
        self, id: str, record: Record, messages: Iterable[Pair], **options: Any
    ) -> None:
        """See `restore`."""
        restore = partial(self.primary.arestore, **options)
        await self._recovery.route(id).aask(restore, self._offline.restore, id, record, messages)
        self._known.forget(id)

    def scan(self, owner: str | None = None, **options: Any) -> Iterator[ConversationSummary]:
        """See `ConversationStateBackend.scan`. Only the primary knows all conversations."""
        return self.primary.scan(owner, **options)

    def ascan(self, owner: str | None = None, **options: Any) -> AsyncIterator[ConversationSummary]:
        """See `scan`."""
        return self.primary.ascan(owner, **options)

    def purge(self, selection: Selection, **options: Any) -> PurgeReport:
        """See `ConversationStateBackend.purge`."""
        report = self.primary.purge(selection, **options)
        if not report.dry_run:
            for id in self._offline.forget_purged(selection):
                self.primary.delete(id)  # it may have been replayed just now
        return report

    async def apurge(self, selection: Selection, **options: Any) -> PurgeReport:
        """See `purge`."""
        report = await self.primary.apurge(selection, **options)
        if not report.dry_run:
            for id in self._offline.forget_purged(selection):
                await self.primary.adelete(id)  # it may have been replayed just now
        return report

    def find_damage(self, ttl: float, **options: Any) -> Iterator[Finding]:
        """See `ConversationStateBackend.find_damage`."""
        return self.primary.find_damage(ttl, **options)

    def health(self) -> Health:
        """Tell how the primary is. In an outage it is not asked: the probes have done so."""
        health = self._recovery.outage_health() or self.primary.health()
        return self._judged(self._recovery.completed(health))

    async def ahealth(self) -> Health:
        """See `health`."""
        health = self._recovery.outage_health() or await self.primary.ahealth()
        return self._judged(self._recovery.completed(health))

    def _judged(self, health: Health) -> Health:
        why = "" if health.connected else self.primary.misconfigured
        return replace(health, is_misconfigured=True, detail=why) if why else health

    def shard_of(self, id: str) -> str | None:
        """See `ConversationStateBackend.shard_of`."""
        return self.primary.shard_of(id)

    def isolated(self, name: str) -> "FailoverBackend":
        """See `ConversationStateBackend.isolated`."""
        other = FailoverBackend.__new__(FailoverBackend)
        primary, fallback = self.primary.isolated(name), self.fallback.isolated(name)
        vars(other).update(vars(self), primary=primary, fallback=fallback)
        other.begin_anew()
        return other

    def erase(self) -> None:
        """See `ConversationStateBackend.erase`. What waits for replay is dropped, too."""
        self._offline.abandon()
        self._recovery.stop()
        self.primary.erase()

    def age(self, seconds: float) -> None:
        """See `ConversationStateBackend.age`."""
        self.primary.age(seconds)

    def end_outage(self, restore: Callable[[], object]) -> None:
        """See `Recovery.end_outage`."""
        self._recovery.end_outage(restore)

    def close(self) -> None:
        """Replay what is possible, and close connections. The rest is tried at the next use."""
        self._recovery.stop()
        self.primary.close()

    async def aclose(self) -> None:
        """See `close`."""
        await sync_to_async(self.close, thread_sensitive=False)()
        await self.primary.aclose()

    def finish(self) -> None:
        """Replay what is possible, and log how much is lost, because the process ends."""
        self._recovery.stop(for_good=True)
