"""A stored conversation in the memory of this process: what a `Change` does to it, and the `Record`
of it.

For backends that handle a conversation as a whole: locmem keeps them in a dictionary, cache reads
one, changes it and writes it back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..records import DEFAULT_TTL, Change, Committed, Record, entry_size
from ..refusals import add_to_counter
from ..reports import ConversationSummary, moment, moment_or_never
from .commit_log import CommitLog
from .memory import memory_of_state
from .message_list import MessageList
from .packed import Pair


@dataclass(slots=True, repr=False)
class StoredConversation:
    """A stored conversation. Times are seconds since the epoch. `state_size` is in bytes of JSON,
    `state_memory` in bytes of memory; None: not computed yet."""

    created_at: float
    modified_at: float
    last_accessed: float
    ttl: float = DEFAULT_TTL
    owner: str | None = None
    version: int = 0
    state: dict[str, bytes] = field(default_factory=dict)
    messages: MessageList = field(default_factory=MessageList)
    commits: CommitLog = field(default_factory=CommitLog)
    state_size: int | None = None
    state_memory: int | None = None

    @classmethod
    def of(cls, record: Record, messages: Iterable[Pair]) -> "StoredConversation":
        """Return the conversation that a record describes, with all its messages."""
        return cls(
            created_at=record.created_at,
            modified_at=record.modified_at,
            last_accessed=record.last_accessed,
            ttl=record.ttl,
            owner=record.owner,
            version=record.version,
            state=dict(record.state),
            messages=MessageList.of(messages, record.dropped, record.last_key),
        )

    def copy(self) -> "StoredConversation":
        """Return a copy that can be changed without changing this one."""
        return replace(self, state=self.state.copy(), messages=self.messages.copy())

    @property
    def size(self) -> int:
        """State and messages in bytes of JSON."""
        return self.messages.size + self._state_size()

    @property
    def memory(self) -> int:
        """State and messages in bytes of memory. While others stay as they are, it takes no time
        that grows with them."""
        if self.state_memory is None:
            self.state_memory = memory_of_state(self.state)
        return self.state_memory + self.messages.memory + len(self.commits.packed)

    def touch(self, now: float, ttl: float | None) -> None:
        """Slide the expiry, with a new idle time in seconds if given."""
        self.last_accessed = now
        self.ttl = self.ttl if ttl is None else ttl

    def expires_at(self, max_age: float | None) -> float:
        """Return when it expires, by its idle time and by `max_age` after its creation."""
        idle = self.last_accessed + self.ttl
        return idle if max_age is None else min(idle, self.created_at + max_age)

    def apply(
        self, change: Change, now: float, max_age: float | None, clock: float | None = None
    ) -> Committed:
        """Apply `change` wholly or not at all, and remember the commit. Whether the change fits is
        not checked here, but by `apply_if_fits`.

        Args:
            now: seconds since the epoch.
            max_age: that of the conversation, in seconds.
            clock: seconds by the clock that says when a writer may be forgotten; None: `now`.

        Raises:
            Diverged, ConversationTooLarge: see `Change`.
            InvalidConversationType, InvalidConversationValue: see `add_to_counter`.
        """
        # All that may be refused comes first.
        messages, count = self.messages, len(self.messages)
        if change.expected or change.replace:
            found = [(each, messages.data(each.id)) for each in change.replace]
            change.refuse_unless_expected(self.state, found)
        new = self._new_values(change)
        size = self._size_with(new)
        added = messages.prepare(change, now)
        kept = count
        if change.keep_messages is not None:
            kept = max(0, min(count, change.keep_messages - messages.dropped))
        change.refuse_if_too_large(self._state_size(), size, kept + len(added.packed))

        self._renew(change, now)
        if new:
            self._set_state(new, size)
        for each in change.replace:
            messages.replace(each)
        if kept < count:
            messages.truncate(messages.dropped + kept)
            others: Sequence[Pair] = messages.newest(change.window)
        else:
            others = messages.since(change.seen, change.window)
        others_end = messages.end
        messages.extend(added)
        if change.drop_oldest and (surplus := change.surplus(len(messages))):
            messages.drop_oldest(surplus)
        self.commits = self.commits.adding(change.commit, now if clock is None else clock)
        return Committed(
            self.version,
            len(messages),
            self.expires_at(max_age),
            messages.dropped,
            messages.last_key,
            False,
            added.existing,
            others,
            others_end,
        )

    def _renew(self, change: Change, now: float) -> None:
        """Count the commit, and start the time to live anew."""
        if self.version == 0:
            self.ttl = change.default_ttl
        self.version += 1
        self.last_accessed = self.modified_at = now
        if change.owner is not None:
            self.owner = change.owner
        if change.ttl is not None:
            self.ttl = change.ttl

    def _set_state(self, new: dict[str, bytes | None], size: int) -> None:
        for key, value in new.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        self.state_size, self.state_memory = size, None

    def answer_again(self, change: Change, max_age: float | None) -> Committed:
        """Return the answer to a change that was applied already: how things are now."""
        messages = self.messages
        return Committed(
            self.version,
            len(messages),
            self.expires_at(max_age),
            messages.dropped,
            messages.last_key,
            repeated=True,
            existing=messages.stored_otherwise(change) if change.once else (),
            others=messages.newest(change.window),
            others_end=messages.end,
        )

    def record(self, id: str, window: int, max_age: float | None) -> Record:
        """Return what `load` answers, with the newest `window` messages."""
        messages = self.messages
        newest = messages.newest(window)
        return Record(
            id=id,
            version=self.version,
            owner=self.owner,
            created_at=self.created_at,
            modified_at=self.modified_at,
            last_accessed=self.last_accessed,
            expires_at=self.expires_at(max_age),
            ttl=self.ttl,
            state=self.state.copy(),
            messages=newest,
            message_count=len(messages),
            dropped=messages.dropped,
            first=messages.first() if len(newest) < len(messages) else None,
            last_key=messages.last_key,
        )

    def summary(self, id: str, max_age: float | None, keys: Sequence[str]) -> ConversationSummary:
        """Return what `scan` yields."""
        return ConversationSummary(
            id=id,
            version=self.version,
            owner=self.owner,
            created_at=moment(self.created_at),
            modified_at=moment(self.modified_at),
            last_accessed=moment(self.last_accessed),
            expires_at=moment_or_never(self.expires_at(max_age)),
            message_count=len(self.messages),
            size=self.size,
            state={key: self.state[key] for key in keys if key in self.state},
        )

    def _new_values(self, change: Change) -> dict[str, bytes | None]:
        """Return what becomes of each key that changes; None: it is dropped."""
        new: dict[str, bytes | None] = dict(change.set)
        for key in change.unset:
            new[key] = None
        for key, by in change.increment.items():
            new[key] = add_to_counter(new.get(key, self.state.get(key)), by, key)
        return new

    def _state_size(self) -> int:
        if self.state_size is None:
            self.state_size = sum(entry_size(key, value) for key, value in self.state.items())
        return self.state_size

    def _size_with(self, new: dict[str, bytes | None]) -> int:
        size = self._state_size()
        for key, value in new.items():
            old = self.state.get(key)
            size += 0 if value is None else entry_size(key, value)
            size -= 0 if old is None else entry_size(key, old)
        return size


def apply_if_fits(
    stored: StoredConversation | None,
    change: Change,
    now: float,
    max_age: float | None,
    *,
    is_deleted: bool = False,
    clock: float | None = None,
) -> tuple[StoredConversation, Committed]:
    """Apply `change`, if it fits, to what is stored or, if that is None, to a new conversation.
    Return the conversation and the answer.

    Raises as `Change.refuse_unless_fits` and `StoredConversation.apply` do.
    """
    if stored is None:
        change.refuse_unless_fits(None, None, is_deleted=is_deleted)
        stored = StoredConversation(now, now, now)
    else:
        change.refuse_unless_fits(stored.version, stored.owner)
    return stored, stored.apply(change, now, max_age, clock)
