"""The changes that the primary has yet to apply, by conversation, in the order in which they were
made."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ... import clock
from ...exceptions import BackendUnavailable
from ..records import TOMBSTONE_SECONDS, Change, Create
from ..toolkit.memory import (
    BYTES_OVERHEAD,
    GIVEN_OVERHEAD,
    SLOT,
    memory_of_change,
    memory_of_texts,
)
from ..toolkit.packed import is_natural, locator
from ..toolkit.stored import StoredConversation
from .last_known import Lifetime

# Bytes of memory besides their contents, measured: of a write, and of a conversation, in the
# journal and in the fallback together.
WRITE_OVERHEAD: Final = 1300
CONVERSATION_OVERHEAD: Final = 2600
EXPIRY_SLACK: Final = 1.0  # seconds; an answer of the primary is a little older than its arrival
CLOCK_SLACK: Final = 3600  # seconds by which a tombstone may be gone too early, as clocks differ


# What the wall clock said when the monotonic one was at 0. It may jump later.
_EPOCH: Final = clock.time() - clock.monotonic()


def steady_time() -> float:
    """Return the seconds since the epoch, by a clock that does not jump."""
    return _EPOCH + clock.monotonic()


@dataclass(frozen=True, slots=True)
class Touch:
    """The expiry was slid, with a new idle time in seconds or the old one."""

    ttl: float | None


@dataclass(frozen=True, slots=True)
class Delete:
    """The conversation was deleted, at a moment by `steady_time`. One that was begun under its id
    after that is not affected."""

    at: float


Write = Change | Touch | Delete


@dataclass(slots=True)
class PendingWrites:
    """The writes to one conversation that are to be replayed, and how far replay has come.

    Attributes:
        base: the conversation as it was known before the first of them. None: nothing was known.
        lifetime: when the primary had last shown the base, and when it expires there.
        size: what the base takes, in bytes of memory.
        writes: each with the position after the last message then, as this process counts them.
        offset: how much further that position is in the primary, because of what others have done.
            None: not known yet.
        shared_end: the position after those messages from before the outage that are still wanted.
            In the primary, what others have appended comes after these, and what was appended here
            last.
        is_begun_anew: what comes next was made after a deletion here, which is replayed already.
        is_complete: all of the conversation is known here: from before the outage, or because it
            was begun, or begun anew, here.
        pieces: how many of the first writes are pieces of one that was divided, without the last
            of these.
        followers: how many writes after the first are pieces that it is the head of.
        is_head_sent: the head was sent before, and there was no answer.
        visitor: whose the conversation must be, or nobody's (""), because what made it theirs was
            refused. None: that does not matter.
        is_shifted: a change of the messages was refused, so that positions here say nothing of
            those in the primary.
        failures: how often the first write could not be sent though the primary was there.
        retry_at: when to try again, by the monotonic clock.
    """

    base: StoredConversation | None
    lifetime: Lifetime | None = None
    size: int = 0
    writes: deque[tuple[Write, int]] = field(default_factory=deque)
    offset: int | None = None
    shared_end: int = 0
    is_begun_anew: bool = False
    is_complete: bool = False
    pieces: int = 0
    followers: int = 0
    is_head_sent: bool = False
    visitor: str | None = field(repr=False, default=None)
    is_shifted: bool = False
    failures: int = 0
    retry_at: float = 0.0

    @property
    def has_expired(self) -> bool:
        """Whether the base has expired in the primary, unless others have used it."""
        now = clock.monotonic()
        return self.lifetime is not None and self.lifetime.expires - EXPIRY_SLACK <= now

    @property
    def may_be_restored(self) -> bool:
        """Whether the primary still knows it if others have deleted what was known here."""
        age = 0.0 if self.lifetime is None else clock.monotonic() - self.lifetime.seen
        return age < TOMBSTONE_SECONDS - CLOCK_SLACK


class Journal:
    """At most `max_bytes` of pending writes: more are refused. Not thread-safe: the caller holds a
    lock. `pending` and `refused` count writes."""

    def __init__(self, max_bytes: int) -> None:
        """Begin empty."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._conversations: dict[str, PendingWrites] = {}
        self.pending = 0
        self.refused = 0

    def __contains__(self, id: str) -> bool:
        return id in self._conversations

    def ids(self) -> list[str]:
        """Return the conversations with pending writes, the longest waiting first."""
        return list(self._conversations)

    def get(self, id: str) -> PendingWrites | None:
        """Return the pending writes of a conversation, or None if there are none."""
        return self._conversations.get(id)

    @property
    def is_full(self) -> bool:
        """Whether hardly anything can be added."""
        return self._bytes + 2 * CONVERSATION_OVERHEAD > self._max_bytes

    def check_capacity(self, write: Write, base: StoredConversation | None) -> None:
        """Make sure that `write` can be added, for a conversation of which `base` is known.

        Raises:
            BackendUnavailable: the journal is full. Nothing was changed.
        """
        if self._bytes + _size_with(base) + _size_of(write) > self._max_bytes:
            self.refused += 1
            raise BackendUnavailable(
                f"The store is unavailable, and this process's journal of {self._max_bytes >> 20} "
                "MiB for changes to be replayed is full. Nothing was changed.",
                transient=False,
            )

    def add(
        self,
        id: str,
        write: Write,
        end: int,
        base: StoredConversation | None,
        lifetime: Lifetime | None = None,
    ) -> None:
        """Add a write that was applied here.

        Args:
            end: the position after the last message then, as this process counts them.
            base, lifetime: what was known of the conversation before. They count for the first
                write only.
        """
        if id not in self._conversations:
            begins = isinstance(write, Delete) or (
                isinstance(write, Change) and write.create is Create.MUST_BE_NEW
            )
            size = _size_with(base)
            self._conversations[id] = PendingWrites(
                base,
                lifetime,
                size,
                shared_end=0 if base is None else base.messages.end,
                is_complete=begins or base is not None,
            )
            self._bytes += size
        self._conversations[id].writes.append((write, end))
        self._bytes += _size_of(write)
        self.pending += 1

    def divide_first(self, id: str, pieces: Sequence[tuple[Write, int]]) -> None:
        """Put pieces, each with its position, in the place of the first write of a conversation.
        The first piece is their head. They still count as one."""
        conversation = self._conversations[id]
        write, _ = conversation.writes.popleft()
        conversation.writes.extendleft(reversed(pieces))
        self._bytes += sum(_size_of(piece) for piece, _ in pieces) - _size_of(write)
        conversation.followers = len(pieces) - 1
        conversation.pieces += conversation.followers
        conversation.is_head_sent = False

    def remove_followers(self, id: str) -> None:
        """Remove the pieces that the first write of a conversation is the head of."""
        conversation = self._conversations[id]
        head = conversation.writes.popleft()
        for _ in range(conversation.followers):
            write, _ = conversation.writes.popleft()
            self._bytes -= _size_of(write)
        conversation.writes.appendleft(head)
        conversation.pieces -= conversation.followers
        conversation.followers = 0

    def remove_first(self, id: str) -> bool:
        """Remove the first write of a conversation, and tell whether it was the last one."""
        conversation = self._conversations[id]
        write, _ = conversation.writes.popleft()
        self._bytes -= _size_of(write)
        conversation.followers = conversation.failures = 0
        if conversation.pieces:
            conversation.pieces -= 1
        else:
            self.pending -= 1
        if conversation.writes:
            return False
        self.drop(id)
        return True

    def drop(self, id: str) -> None:
        """Remove all writes of a conversation."""
        conversation = self._conversations.pop(id, None)
        if conversation is None:
            return
        sizes = (_size_of(write) for write, _ in conversation.writes)
        self._bytes -= conversation.size + sum(sizes)
        self.pending -= len(conversation.writes) - conversation.pieces


def _size_with(base: StoredConversation | None) -> int:
    if base is None:
        return CONVERSATION_OVERHEAD
    # The base is in the journal, and a copy of it in the fallback, with the same keys and values.
    places = len(base.state) * SLOT + len(base.messages.packed) * BYTES_OVERHEAD
    return CONVERSATION_OVERHEAD + base.memory + places


def _size_of(write: Write) -> int:
    """Return how much memory a write takes, in the journal and in the fallback."""
    if not isinstance(write, Change):
        return WRITE_OVERHEAD
    size = WRITE_OVERHEAD + memory_of_change(write)
    # The fallback has the same messages, keys and values in places of its own. It has new bytes
    # where messages are changed, or have an id that is no key.
    size += len(write.set) * SLOT + len(write.append) * BYTES_OVERHEAD
    size += sum(len(each.new) + BYTES_OVERHEAD for each in write.replace)
    if write.increment:
        size += memory_of_texts(write.increment) + len(write.increment) * (SLOT + BYTES_OVERHEAD)
    for id, data in write.append:
        if not is_natural(locator(id)):
            size += GIVEN_OVERHEAD + BYTES_OVERHEAD + len(data)
    return size
