"""A stored conversation in the memory of this process: what a `Change` does to it, and the `Record`
of it.

For backends that handle a conversation as a whole: locmem keeps them in a dictionary, cache reads
one, changes it and writes it back.
"""

import hashlib
import struct
from dataclasses import dataclass, field, replace
from typing import Final

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

OLDER_MESSAGES: Final = "The older messages cannot be read while the store is unavailable."


@dataclass(slots=True)
class CommitLog:
    """The last commits of one conversation and what they were answered. It never changes: `adding`
    makes another.

    Packed, because there is one for every conversation in memory: 8 bytes for the commit id (a
    BLAKE2 hash), 4 each for version and message count, 8 for the expiry.
    """

    packed: bytes = b""
    _FORMAT = struct.Struct("<8sIId")

    def find(self, commit_id: str) -> Committed | None:
        """Return what a commit was answered, or None if it is not among those remembered."""
        key = self.key(commit_id)
        if key in self.packed:  # mostly it is not, and this is the fast way to know
            for known, *answer in self._FORMAT.iter_unpack(self.packed):
                if known == key:
                    return Committed(*answer)
        return None

    def adding(self, commit_id: str, answer: Committed) -> "CommitLog":
        """Return the log with one commit more, without the oldest beyond `REMEMBERED_COMMITS`."""
        newest = self._FORMAT.pack(
            self.key(commit_id), answer.version, answer.message_count, answer.expires_at
        )
        return CommitLog((self.packed + newest)[-REMEMBERED_COMMITS * self._FORMAT.size :])

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
class StoredConversation:
    """A stored conversation. Times are seconds since the epoch.

    `unloaded_count` is how many messages come before those in `messages`: the store has them, and
    this process has not loaded them.
    """

    created_at: float
    last_accessed: float
    ttl: float = DEFAULT_TTL
    owner: str | None = None
    version: int = 0
    state: dict[str, bytes] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    unloaded_count: int = 0
    commits: CommitLog = field(default_factory=CommitLog)

    def copy(self) -> "StoredConversation":
        """Return a copy that can be changed without changing this one."""
        return replace(self, state=self.state.copy(), messages=self.messages.copy())

    @property
    def message_count(self) -> int:
        """How many messages the conversation has, loaded or not."""
        return self.unloaded_count + len(self.messages)

    @property
    def size(self) -> int:
        """State and messages in bytes of JSON."""
        return sum(map(len, self.messages)) + sum(
            len(key.encode()) + len(value) for key, value in self.state.items()
        )

    def touch(self, now: float, ttl: float | None) -> None:
        """Slide the expiry, with a new idle time in seconds if given."""
        self.last_accessed = now
        self.ttl = self.ttl if ttl is None else ttl

    def between(self, start: int, stop: int) -> list[bytes]:
        """Return messages `start` to `stop`, as a slice with bounds >= 0 does.

        Raises:
            BackendUnavailable: some of them are not loaded.
        """
        if start < min(stop, self.unloaded_count):
            raise BackendUnavailable(OLDER_MESSAGES)
        return self.messages[
            max(0, start - self.unloaded_count) : max(0, stop - self.unloaded_count)
        ]

    def expires_at(self, max_age: float | None) -> float:
        """Return when it expires, by its idle time and by `max_age` after its creation."""
        idle = self.last_accessed + self.ttl
        return idle if max_age is None else min(idle, self.created_at + max_age)

    def apply(self, change: Change, now: float, max_age: float | None) -> Committed:
        """Apply `change` wholly or not at all, and remember the commit. Whether the change fits is
        not checked here, but by `apply_if_fits`.

        Raises as `add_to_counter` does.
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
            del self.messages[max(0, change.keep_messages - self.unloaded_count) :]
            self.unloaded_count = min(self.unloaded_count, change.keep_messages)
        self.messages.extend(change.append)
        committed = Committed(self.version, self.message_count, self.expires_at(max_age))
        self.commits = self.commits.adding(change.commit_id, committed)
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
        """Return what `load` answers, with the newest `window` messages."""
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
        """Return what `scan` yields."""
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


def apply_if_fits(
    stored: StoredConversation | None, change: Change, now: float, max_age: float | None
) -> tuple[StoredConversation, Committed]:
    """Apply `change`, if it fits, to what is stored or, if that is None, to a new conversation.
    Return the conversation and the answer.

    Raises as `Change.refuse_unless_fits` and `add_to_counter` do.
    """
    if stored is None:
        change.refuse_unless_fits(None, None)
        stored = StoredConversation(now, now)
    else:
        change.refuse_unless_fits(stored.version, stored.owner)
    return stored, stored.apply(change, now, max_age)
