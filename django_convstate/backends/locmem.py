"""Conversations in the memory of this process: the default, for development, tests and one worker.

What is stored is bytes, so that a later change of a caller's object changes nothing here. Expired
conversations are dropped by the operations that find them: there is no timer thread.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from django.core.checks import CheckMessage, Warning

from .. import clock, conf
from ..exceptions import BackendUnavailable, ConversationConflict, ConversationTooLarge
from .base import ConversationStateBackend
from .records import TOMBSTONE_SECONDS, Acquired, Change, Committed, Record
from .refusals import TURN_LOST, id_is_taken, refuse_restore
from .reports import ConversationSummary, Finding, Health, Progress, PurgeReport, Selection
from .toolkit import forksafe
from .toolkit.lease_queue import LeaseQueues
from .toolkit.listing import newest_first
from .toolkit.memory import memory_of_change
from .toolkit.packed import Pair
from .toolkit.stored import StoredConversation, apply_if_fits
from .toolkit.table import CONVERSATION_OVERHEAD, ConversationTable, growth_of

MAX_BYTES: Final = 64 * 2**20
TOMBSTONES_PER_CONVERSATION: Final = 10  # that may be kept
TOMBSTONE_BYTES: Final = 500  # of memory, with ids of usual length; a tenth of MAX_BYTES at most

logger = logging.getLogger("django_convstate")

P = ParamSpec("P")
T = TypeVar("T")


class LocMemBackend(ConversationStateBackend):
    """Keeps conversations in a dictionary, under one lock.

    The failover backend keeps in one of these what changes in an outage.
    """

    name: ClassVar = "locmem"
    option_names: ClassVar[tuple[str, ...]] = ("max_age", "max_conversations", "max_bytes")
    is_shared: ClassVar = False

    def __init__(
        self,
        *,
        max_age: float | None = None,
        max_conversations: int = 1000,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Keep at most `max_conversations`, in at most `max_bytes` of memory. When it is full, the
        fifth that has been idle for longest is dropped, but for conversations in a turn."""
        super().__init__(max_age=max_age)
        self.max_conversations = max_conversations
        self.max_bytes = max_bytes
        self._table = ConversationTable(max_age)
        # Of those that were deleted: until when that is to be known, and the new id of one that
        # was moved.
        self._tombstones: dict[str, tuple[float, str]] = {}
        self._queues = LeaseQueues()
        self._lock = forksafe.lock()

    def keep_all(self, max_age: float | None) -> None:
        """Evict nothing from now on: the caller bounds what is here. `max_age` is that of the
        conversations, in seconds."""
        self.max_conversations = self.max_bytes = sys.maxsize
        self.max_age = self._table.max_age = max_age

    def load(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """Return a copy of the conversation, and slide its expiry."""
        with self._lock:
            return self._load(id, window)

    def commit(self, id: str, change: Change) -> Committed:
        """Apply the change under the lock; what grows may push out other conversations.

        Raises as `ConversationStateBackend.commit` does, and:

        Raises:
            BackendUnavailable: the memory is full of conversations in a turn. Nothing was changed.
            ConversationTooLarge: it would take more than `max_bytes` alone.
        """
        now = clock.time()
        with self._lock:
            stored = self._table.get(id)
            if stored is not None and stored.commits.has(change.commit):
                return stored.answer_again(change, self.max_age)
            if change.lease is not None and not self._queues.get(id).is_held_by(change.lease):
                raise ConversationConflict(TURN_LOST)
            evicted = 0
            if stored and self._table.memory + memory_of_change(change) > self.max_bytes:
                evicted = self._make_room(id, growth_of(stored, change))
            changed, committed = apply_if_fits(
                stored,
                change,
                now,
                self.max_age,
                is_deleted=stored is None and self._is_deleted(id),
                clock=clock.monotonic(),
            )
            if stored is None:
                evicted = self._begin(id, changed)
            else:
                self._table.use(id)
                self._table.recount(id)
            if change.lease is not None and change.release:
                self._queues.leave(id, change.lease)
        self._log_evicted(evicted, begun=stored is None)
        return committed

    def peek(self, id: str, window: int) -> Record | None:
        """See `ConversationStateBackend.peek`."""
        with self._lock:
            stored = self._table.get(id)
            return stored.record(id, window, self.max_age) if stored else None

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `ConversationStateBackend.read_messages`."""
        with self._lock:
            stored = self._table.get(id)
            return stored.messages.between(start, stop) if stored else []

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        with self._lock:
            stored = self._table.get(id)
            return stored.messages.find(message_id) if stored else None

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""
        with self._lock:
            return self._table.get(id) is not None

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """See `ConversationStateBackend.touch`."""
        with self._lock:
            stored = self._table.get(id)
            if stored is None:
                return False
            stored.touch(clock.time(), ttl)
            self._table.use(id)
            return True

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`."""
        with self._lock:
            stored = self._table.get(id)
            if stored is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            self._bury(id)
            return True

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.rename`."""
        with self._lock:
            stored = self._table.get(id)
            if stored is None:
                return self._tombstones.get(id, (0.0, ""))[1] == new_id
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            if self._table.get(new_id) is not None:
                raise id_is_taken()
            stored.last_accessed = clock.time()
            self._table.move(id, new_id)
            self._table.use(new_id)
            self._table.recount(new_id)
            self._bury(id, new_id)
            return True

    def restore(
        self,
        id: str,
        record: Record,
        messages: Iterable[Pair],
        *,
        unless_deleted: bool = False,
        replaces: int | None = None,
    ) -> None:
        """See `ConversationStateBackend.restore`."""
        restored = StoredConversation.of(record, messages)
        with self._lock:
            stored = self._table.get(id)
            refuse_restore(
                stored.version if stored else None,
                replaces=replaces,
                is_deleted=unless_deleted and self._is_deleted(id),
            )
            evicted = self._begin(
                id, restored, idle=max(0.0, clock.time() - restored.last_accessed)
            )
        self._log_evicted(evicted, begun=True)

    def put(self, id: str, conversation: StoredConversation) -> None:
        """Keep a conversation as it is, in the place of what there is under that id."""
        with self._lock:
            self._table.put(id, conversation)

    def discard(self, id: str) -> None:
        """Drop a conversation, or what is known of its deletion, if it is there. Its leases
        stay."""
        with self._lock:
            self._table.pop(id)
            self._tombstones.pop(id, None)

    def clear(self) -> None:
        """Drop all conversations and all leases."""
        with self._lock:
            self._table.clear()
            self._tombstones.clear()
            self._queues = LeaseQueues()

    def has_queue(self, id: str) -> bool:
        """Tell whether there is a lease for a turn of the conversation, held or waiting."""
        with self._lock:
            return self._queues.has(id)

    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `ConversationStateBackend.acquire`."""
        with self._lock:
            with self._queues.changing(id) as queue:
                position = queue.enqueue(lease, seconds)
            return Acquired(position, None if position else self._load(id, window))

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `ConversationStateBackend.renew`."""
        with self._lock, self._queues.changing(id) as queue:
            return queue.renew(lease, seconds)

    def release(self, id: str, lease: str) -> None:
        """See `ConversationStateBackend.release`."""
        with self._lock:
            self._queues.leave(id, lease)

    def scan(
        self,
        owner: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> Iterator[ConversationSummary]:
        """Yield what is stored at the moment of the call, newest saved first."""
        with self._lock:
            found = [
                stored.summary(id, self.max_age, keys)
                for id, stored, _, is_expired in self._table.items()
                if not is_expired and owner in (None, stored.owner)
            ]
        return newest_first(found, limit, after)

    def purge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        """See `ConversationStateBackend.purge`."""
        idle_for, owner = selection.idle_for or 0.0, selection.owner
        with self._lock:
            examined = len(self._table)
            ids = [
                id
                for id, stored, idle, is_expired in self._table.items()
                if (
                    is_expired
                    if selection.only_expired
                    else idle >= idle_for and owner in (None, stored.owner)
                )
            ]
            for id in () if dry_run else ids:
                if selection.only_expired:
                    self._table.pop(id)
                else:
                    self._bury(id)
        if progress:
            progress(examined, examined)
        return PurgeReport(examined, len(ids), dry_run)

    def find_damage(self, ttl: float, *, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield nothing: what is in memory is as it was put there."""
        return iter(())

    def health(self) -> Health:
        """See `ConversationStateBackend.health`."""
        started = time.perf_counter()
        with self._lock:
            kept = len(self._table)
        latency_ms = (time.perf_counter() - started) * 1000
        detail = f"{kept} of {self.max_conversations} conversations in this process"
        return Health(self.name, True, latency_ms, detail=detail)

    @classmethod
    def check_deployment(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """Warn: the memory of one process is rarely what a deployment wants."""
        return [
            Warning(
                "Conversations are kept in the memory of each server process: every worker has its "
                "own, and a restart forgets them all.",
                hint=f"Set {conf.BACKEND} to a backend that the processes share.",
                id="convstate.W001",
            )
        ]

    def _load(self, id: str, window: int) -> Record | None:
        stored = self._table.get(id)
        if stored is None:
            return None
        stored.last_accessed = clock.time()
        self._table.use(id)
        return stored.record(id, window, self.max_age)

    def _begin(self, id: str, stored: StoredConversation, idle: float = 0.0) -> int:
        """Keep a new conversation, which was last used `idle` seconds ago, in the place of another.
        Return how many were evicted for it."""
        replaced = self._table.memory_of(id)
        growth = CONVERSATION_OVERHEAD + stored.memory - replaced
        evicted = self._make_room(id, growth, count=0 if replaced else 1)
        self._tombstones.pop(id, None)
        self._table.put(id, stored, idle)
        return evicted

    def _is_deleted(self, id: str) -> bool:
        return id in self._tombstones and self._tombstones[id][0] > clock.monotonic()

    def _bury(self, id: str, new_id: str = "") -> None:
        """Drop a conversation, and remember that it was deleted, or moved to a new id."""
        self._table.pop(id)
        # The oldest first: an id comes to the end when it is buried again.
        self._tombstones.pop(id, None)
        self._tombstones[id] = clock.monotonic() + TOMBSTONE_SECONDS, new_id
        most = TOMBSTONES_PER_CONVERSATION * self.max_conversations
        if len(self._tombstones) > min(most, max(1, self.max_bytes // 10 // TOMBSTONE_BYTES)):
            del self._tombstones[next(iter(self._tombstones))]

    def _make_room(self, id: str, growth: int, count: int = 0) -> int:
        """Drop what has expired and, if that is not enough, what is idle for longest, so that a
        conversation can grow by so many bytes, or can be one more. Return how many of the
        latter."""
        table, most, room = self._table, self.max_conversations, self.max_bytes - growth

        def is_full() -> bool:
            return (count > 0 and len(table) >= most) or (growth > 0 and table.memory > room)

        if table.sweep(now=is_full()):
            now = clock.monotonic()
            self._tombstones = {id: t for id, t in self._tombstones.items() if t[0] > now}
        if not is_full():
            return 0
        if (own := table.memory_of(id)) > room:
            raise ConversationTooLarge(
                f"The conversation would take {own + growth} bytes of memory; MAX_BYTES is "
                f"{self.max_bytes}."
            )
        evicted = table.evict(
            most - max(1, most // 5) if count else most,
            room - room // 5,
            lambda other: other == id or self._queues.has(other),
        )
        if is_full():
            raise BackendUnavailable(
                "The memory for conversations is full of those that are in a turn. Nothing was "
                "changed. Raise MAX_CONVERSATIONS or MAX_BYTES."
            )
        return evicted

    def _log_evicted(self, count: int, *, begun: bool) -> None:
        if count:
            logger.warning(
                "Memory for conversations is full: dropped the %d of %d that were idle for "
                "longest. Raise MAX_CONVERSATIONS or MAX_BYTES, or use a backend that keeps them "
                "elsewhere.",
                count,
                len(self._table) + count - begun,
            )

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)  # memory is no I/O: the twins need no thread

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        return self.renew(id, lease, seconds)
