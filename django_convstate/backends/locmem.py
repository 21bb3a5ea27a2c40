"""Conversations in the memory of this process: the default, for development, tests and one worker.

What is stored is bytes, so that a later change of a caller's object changes nothing here. Expired
conversations are dropped by the operations that find them: there is no timer thread.
"""

import heapq
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from django.core.checks import CheckMessage, Warning

from .. import clock, conf
from ..exceptions import ConversationConflict
from .base import ConversationStateBackend
from .records import (
    TOMBSTONE_SECONDS,
    TURN_LOST,
    Acquired,
    Change,
    Committed,
    Record,
    id_is_taken,
    refuse_restore,
)
from .reports import ConversationSummary, Health, Progress, PurgeReport, Selection
from .toolkit import forksafe
from .toolkit.lease_queue import LeaseQueues
from .toolkit.listing import newest_first
from .toolkit.packed import Pair
from .toolkit.stored import StoredConversation, apply_if_fits

TOMBSTONES_PER_CONVERSATION: Final = 10  # that may be kept

logger = logging.getLogger("django_convstate")

P = ParamSpec("P")
T = TypeVar("T")


class LocMemBackend(ConversationStateBackend):
    """Keeps conversations in a dictionary, under one lock.

    The failover backend keeps in one of these what changes in an outage.
    """

    name: ClassVar = "locmem"
    option_names: ClassVar = ("max_age", "max_conversations")
    is_shared: ClassVar = False

    def __init__(self, *, max_age: float | None = None, max_conversations: int = 1000) -> None:
        """Keep at most `max_conversations`. When it is full, the fifth of them that have been idle
        for longest are dropped."""
        super().__init__(max_age=max_age)
        self.max_conversations = max_conversations
        self._conversations: dict[str, StoredConversation] = {}
        # Of those that were deleted: until when that is to be known, and the new id of one that
        # was moved.
        self._tombstones: dict[str, tuple[float, str]] = {}
        self._queues = LeaseQueues()
        self._lock = forksafe.lock()
        self._next_sweep = 0.0

    def load(self, id: str, window: int) -> Record | None:
        """Return a copy of the conversation, and slide its expiry."""
        with self._lock:
            return self._load(id, window)

    def commit(self, id: str, change: Change) -> Committed:
        """Apply the change under the lock; a new conversation may push out others."""
        now = clock.time()
        with self._lock:
            stored = self._alive(id, now)
            if stored is not None and stored.commits.has(change.commit):
                return stored.answer_again(change, self.max_age)
            if change.lease is not None and not self._queues.get(id).is_held_by(change.lease):
                raise ConversationConflict(TURN_LOST)
            changed, committed = apply_if_fits(
                stored,
                change,
                now,
                self.max_age,
                is_deleted=stored is None and self._is_deleted(id, now),
            )
            evicted = 0 if stored is not None else self._begin(id, changed, now)
            if change.lease is not None and change.release:
                with self._queues.changing(id) as queue:
                    queue.leave(change.lease)
        if evicted:
            logger.warning(
                "Memory for conversations is full: dropped the %d of %d that were idle for "
                "longest. Raise MAX_CONVERSATIONS, or use a backend that keeps them elsewhere.",
                evicted,
                self.max_conversations,
            )
        return committed

    def peek(self, id: str, window: int) -> Record | None:
        """See `ConversationStateBackend.peek`."""
        with self._lock:
            stored = self._alive(id, clock.time())
            return stored.record(id, window, self.max_age) if stored else None

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `ConversationStateBackend.read_messages`."""
        with self._lock:
            stored = self._alive(id, clock.time())
            return stored.messages.between(start, stop) if stored else []

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        with self._lock:
            stored = self._alive(id, clock.time())
            return stored.messages.find(message_id) if stored else None

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""
        with self._lock:
            return self._alive(id, clock.time()) is not None

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """See `ConversationStateBackend.touch`."""
        now = clock.time()
        with self._lock:
            stored = self._alive(id, now)
            if stored is None:
                return False
            stored.touch(now, ttl)
            return True

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`."""
        with self._lock:
            stored = self._alive(id, clock.time())
            if stored is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            self._bury(id)
            return True

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.rename`."""
        now = clock.time()
        with self._lock:
            stored = self._alive(id, now)
            if stored is None:
                return self._tombstones.get(id, (0.0, ""))[1] == new_id
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            if self._alive(new_id, now) is not None:
                raise id_is_taken()
            stored.last_accessed = now
            self._conversations[new_id] = stored
            self._bury(id, new_id)
            return True

    def restore(
        self, id: str, record: Record, messages: Iterable[Pair], *, unless_deleted: bool = False
    ) -> None:
        """See `ConversationStateBackend.restore`."""
        restored, now = StoredConversation.of(record, messages), clock.time()
        with self._lock:
            stored = self._alive(id, now)
            refuse_restore(
                exists=stored is not None,
                is_deleted=unless_deleted and self._is_deleted(id, now),
            )
            self._begin(id, restored, now)

    def put(self, id: str, conversation: StoredConversation) -> None:
        """Keep a conversation as it is, in the place of what there is under that id."""
        with self._lock:
            self._conversations[id] = conversation

    def discard(self, id: str) -> None:
        """Drop a conversation, if it is there. Its leases stay."""
        with self._lock:
            self._conversations.pop(id, None)

    def clear(self) -> None:
        """Drop all conversations and all leases."""
        with self._lock:
            self._conversations.clear()
            self._tombstones.clear()
            self._queues = LeaseQueues()

    def has_queue(self, id: str) -> bool:
        """Tell whether there is a lease for a turn of the conversation, held or waiting."""
        with self._lock:
            return bool(self._queues.get(id).expires)

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
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
        with self._lock, self._queues.changing(id) as queue:
            queue.leave(lease)

    def scan(
        self,
        owner: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> Iterator[ConversationSummary]:
        """Yield what is stored at the moment of the call, newest saved first."""
        now = clock.time()
        with self._lock:
            found = [
                stored.summary(id, self.max_age, keys)
                for id, stored in self._conversations.items()
                if stored.expires_at(self.max_age) > now and owner in (None, stored.owner)
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
        now = clock.time()

        def selected(stored: StoredConversation) -> bool:
            if selection.only_expired:
                return stored.expires_at(self.max_age) <= now
            idle_for, owner = selection.idle_for, selection.owner
            is_idle = idle_for is None or now - stored.last_accessed >= idle_for
            return is_idle and owner in (None, stored.owner)

        with self._lock:
            ids = [id for id, stored in self._conversations.items() if selected(stored)]
            examined = len(self._conversations)
            if not dry_run:
                for id in ids:
                    if selection.only_expired:
                        del self._conversations[id]
                    else:
                        self._bury(id)
        if progress:
            progress(examined, examined)
        return PurgeReport(examined, len(ids), dry_run)

    def health(self) -> Health:
        """See `ConversationStateBackend.health`."""
        started = time.perf_counter()
        with self._lock:
            kept = len(self._conversations)
        latency_ms = (time.perf_counter() - started) * 1000
        return Health(
            self.name,
            True,
            latency_ms,
            detail=f"{kept} of {self.max_conversations} conversations in this process",
        )

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
        now = clock.time()
        stored = self._alive(id, now)
        if stored is None:
            return None
        stored.last_accessed = now
        return stored.record(id, window, self.max_age)

    def _alive(self, id: str, now: float) -> StoredConversation | None:
        stored = self._conversations.get(id)
        if stored is not None and stored.expires_at(self.max_age) <= now:
            del self._conversations[id]
            return None
        return stored

    def _begin(self, id: str, stored: StoredConversation, now: float) -> int:
        """Keep a new conversation, and return how many were evicted for it."""
        evicted = self._make_room(now)
        self._tombstones.pop(id, None)
        self._conversations[id] = stored
        return evicted

    def _is_deleted(self, id: str, now: float) -> bool:
        return id in self._tombstones and self._tombstones[id][0] > now

    def _bury(self, id: str, new_id: str = "") -> None:
        """Drop a conversation, and remember that it was deleted, or moved to a new id."""
        del self._conversations[id]
        # The oldest first: an id comes to the end when it is buried again.
        self._tombstones.pop(id, None)
        self._tombstones[id] = clock.time() + TOMBSTONE_SECONDS, new_id
        if len(self._tombstones) > TOMBSTONES_PER_CONVERSATION * self.max_conversations:
            del self._tombstones[next(iter(self._tombstones))]

    def _make_room(self, now: float) -> int:
        """Drop what has expired and, if that is not enough, what is idle for longest. Return how
        many of the latter."""
        if len(self._conversations) < self.max_conversations and now < self._next_sweep:
            return 0
        for id in [i for i, e in self._conversations.items() if e.expires_at(self.max_age) <= now]:
            del self._conversations[id]
        self._tombstones = {id: t for id, t in self._tombstones.items() if t[0] > now}
        # A sweep looks at every conversation, so the more there are, the rarer it comes: its cost
        # stays at some microseconds a second.
        self._next_sweep = now + max(1.0, len(self._conversations) / 10_000)
        if len(self._conversations) < self.max_conversations:
            return 0
        idle_for_longest = heapq.nsmallest(
            max(1, self.max_conversations // 5),
            self._conversations,
            key=lambda id: self._conversations[id].last_accessed,
        )
        for id in idle_for_longest:
            del self._conversations[id]
        return len(idle_for_longest)

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)  # memory is no I/O: the twins need no thread

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        return self.renew(id, lease, seconds)
