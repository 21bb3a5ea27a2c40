"""A conversation at rest in this process: what a Change does to it, and what it looks like outside.

Shared by the backends that hold a whole conversation in their hands: locmem keeps entries, cache
reads one, changes it and writes it back.
"""

import hashlib
import struct
from dataclasses import dataclass, field, replace

from ...exceptions import BackendUnavailable
from ..records import (
    DEFAULT_TTL,
    REMEMBERED_COMMITS,
    Change,
    Committed,
    ConversationSummary,
    Record,
    add_to_counter,
    moment,
)


class CommitLog:
    """The last commits of one conversation and what they were answered.

    Packed, because there is one for every conversation in memory: 8 bytes for the commit id (a
    BLAKE2 hash), 4 each for version and message count, 8 for the expiry.
    """

    __slots__ = ("packed",)
    _FORMAT = struct.Struct("<8sIId")

    def __init__(self, packed: bytes = b"") -> None:
        self.packed = packed

    def find(self, commit_id: str) -> Committed | None:
        key = self.key(commit_id)
        if key in self.packed:  # mostly it is not, and this is the fast way to know
            for known, *answer in self._FORMAT.iter_unpack(self.packed):
                if known == key:
                    return Committed(*answer)
        return None

    def add(self, commit_id: str, answer: Committed) -> None:
        newest = self._FORMAT.pack(
            self.key(commit_id), answer.version, answer.message_count, answer.expires_at
        )
        self.packed = (self.packed + newest)[-REMEMBERED_COMMITS * self._FORMAT.size :]

    @classmethod
    def parse(cls, text: str) -> "CommitLog":
        """Return the log whose `packed.hex()` is `text`, or raise `ValueError`."""
        packed = bytes.fromhex(text)
        if len(packed) % cls._FORMAT.size:
            raise ValueError("commits")
        return cls(packed)

    @staticmethod
    def key(commit_id: str) -> bytes:
        """Return what stands for `commit_id` in the log, in memory and in Redis."""
        return hashlib.blake2b(commit_id.encode(), digest_size=8).digest()


@dataclass(slots=True, repr=False)
class Entry:
    """A stored conversation. Times are seconds since the epoch. `hidden` is how many messages it
    has before those that are here, in a store that is away."""

    created_at: float
    last_accessed: float
    ttl: float = DEFAULT_TTL
    owner: str | None = None
    version: int = 0
    state: dict[str, bytes] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    hidden: int = 0
    commits: CommitLog = field(default_factory=CommitLog)

    @classmethod
    def of(cls, record: Record) -> "Entry":
        """Return what a record tells, to be changed without changing the record."""
        return cls(
            created_at=record.created_at,
            last_accessed=record.last_accessed,
            ttl=record.ttl,
            owner=record.owner,
            version=record.version,
            state=record.state.copy(),
            messages=record.messages.copy(),
            hidden=record.message_count - len(record.messages),
        )

    def copy(self) -> "Entry":
        return replace(
            self,
            state=self.state.copy(),
            messages=self.messages.copy(),
            commits=CommitLog(self.commits.packed),
        )

    @property
    def message_count(self) -> int:
        return self.hidden + len(self.messages)

    @property
    def size(self) -> int:
        """Bytes of JSON."""
        return sum(map(len, self.messages)) + sum(
            len(key.encode()) + len(value) for key, value in self.state.items()
        )

    def touch(self, now: float, ttl: float | None) -> None:
        self.last_accessed = now
        self.ttl = self.ttl if ttl is None else ttl

    def keep_newest(self, count: int) -> None:
        """Forget the messages before the newest `count`."""
        if (surplus := len(self.messages) - count) > 0:
            del self.messages[:surplus]
            self.hidden += surplus

    def between(self, start: int, stop: int) -> list[bytes]:
        """Return messages `start` to `stop`, as a slice with bounds >= 0 does.

        Raises:
            BackendUnavailable: some of them are not here.
        """
        if start < min(stop, self.hidden):
            raise BackendUnavailable("The older messages are in the store that is away.")
        return self.messages[max(0, start - self.hidden) : max(0, stop - self.hidden)]

    def expires_at(self, max_age: float | None) -> float:
        idle = self.last_accessed + self.ttl
        return idle if max_age is None else min(idle, self.created_at + max_age)

    def apply(self, change: Change, now: float, max_age: float | None) -> Committed:
        """Do what `change` says, wholly or not at all, and remember having done it.

        Raises as `add_to_counter` does; whether the change fits is the caller's to check.
        """
        sums = self._sums(change)
        self.last_accessed = now
        if self.version == 0:
            self.ttl = change.default_ttl
        self.version += 1
        if change.owner is not None:
            self.owner = change.owner
        if change.ttl is not None:
            self.ttl = change.ttl
        self.state.update(change.set)
        for key in change.unset:
            self.state.pop(key, None)
        self.state.update(sums)
        if change.keep_messages is not None:
            del self.messages[max(0, change.keep_messages - self.hidden) :]
            self.hidden = min(self.hidden, change.keep_messages)
        self.messages.extend(change.append)
        committed = Committed(self.version, self.message_count, self.expires_at(max_age))
        self.commits.add(change.commit_id, committed)
        return committed

    def _sums(self, change: Change) -> dict[str, bytes]:
        # Before anything is changed, because a sum may be impossible.
        return {
            key: add_to_counter(
                None if key in change.unset else change.set.get(key, self.state.get(key)), by, key
            )
            for key, by in change.increment.items()
        }

    def record(self, id: str, window: int, max_age: float | None) -> Record:
        return Record(
            id=id,
            version=self.version,
            owner=self.owner,
            created_at=self.created_at,
            last_accessed=self.last_accessed,
            expires_at=self.expires_at(max_age),
            ttl=self.ttl,
            state=self.state.copy(),
            messages=self.messages[-window:],
            message_count=self.message_count,
        )

    def summary(self, id: str, max_age: float | None) -> ConversationSummary:
        return ConversationSummary(
            id=id,
            version=self.version,
            owner=self.owner,
            created_at=moment(self.created_at),
            last_accessed=moment(self.last_accessed),
            expires_at=moment(self.expires_at(max_age)),
            message_count=self.message_count,
            size=self.size,
        )
