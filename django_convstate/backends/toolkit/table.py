"""Conversations in the memory of this process: how long they live, which of them were used last,
and how much memory they take.

They live by the monotonic clock: one that lets the wall clock jump makes none of them expire. The
times that are shown to people are the wall clock's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ... import clock
from ..records import Change
from .memory import memory_of_messages, memory_of_state
from .stored import StoredConversation

CONVERSATION_OVERHEAD: Final = 1300  # bytes of memory of one besides its contents, measured


@dataclass(slots=True)
class Entry:
    """A conversation in a table.

    Attributes:
        begun, used: when it was created and when it was last used, by the monotonic clock.
        memory: what it counts for, in bytes.
    """

    conversation: StoredConversation
    begun: float
    used: float
    memory: int = 0

    def expires(self, max_age: float | None) -> float:
        """Return when it expires, by the monotonic clock."""
        idle = self.used + self.conversation.ttl
        return idle if max_age is None else min(idle, self.begun + max_age)


class ConversationTable:
    """Conversations by id, the least recently used first. Not thread-safe: the caller holds a lock.

    `memory` is what all of them take, in bytes.
    """

    def __init__(self, max_age: float | None) -> None:
        """Begin empty. `max_age` is that of the conversations, in seconds."""
        self.max_age = max_age
        self.memory = 0
        self._entries: dict[str, Entry] = {}
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, id: str) -> StoredConversation | None:
        """Return a conversation; None: there is none, or it has expired."""
        entry = self._entries.get(id)
        if entry is not None and entry.expires(self.max_age) <= clock.monotonic():
            self.pop(id)
            return None
        return None if entry is None else entry.conversation

    def put(self, id: str, conversation: StoredConversation, idle: float = 0.0) -> None:
        """Keep a conversation, which was last used `idle` seconds ago, in the place of another."""
        self.pop(id)
        used = clock.monotonic() - idle
        begun = used - max(0.0, conversation.last_accessed - conversation.created_at)
        self._entries[id] = Entry(conversation, begun, used)
        self.recount(id)

    def use(self, id: str) -> None:
        """Start the idle time of a conversation anew."""
        entry = self._entries[id] = self._entries.pop(id)
        entry.used = clock.monotonic()

    def recount(self, id: str) -> None:
        """Take note of how much memory a conversation takes by now."""
        entry = self._entries[id]
        conversation = entry.conversation
        names = len(id) + len(conversation.owner or "")
        counted = CONVERSATION_OVERHEAD + names + conversation.memory
        self.memory += counted - entry.memory
        entry.memory = counted

    def pop(self, id: str) -> StoredConversation | None:
        """Remove a conversation and return it, if there is one."""
        entry = self._entries.pop(id, None)
        if entry is None:
            return None
        self.memory -= entry.memory
        return entry.conversation

    def move(self, id: str, new_id: str) -> None:
        """Give a conversation a new id. Its age goes on."""
        self._entries[new_id] = self._entries.pop(id)

    def clear(self) -> None:
        """Remove all."""
        self._entries.clear()
        self.memory = 0

    def memory_of(self, id: str) -> int:
        """Return what a conversation takes, in bytes; 0: it is not there."""
        entry = self._entries.get(id)
        return 0 if entry is None else entry.memory

    def items(self) -> Iterator[tuple[str, StoredConversation, float, bool]]:
        """Yield each conversation: its id, itself, its idle seconds, and whether it has expired."""
        now = clock.monotonic()
        for id, entry in self._entries.items():
            yield id, entry.conversation, now - entry.used, entry.expires(self.max_age) <= now

    def sweep(self, *, now: bool) -> bool:
        """Remove what has expired, `now` or if it is time, and tell whether that was done.

        It looks at every conversation, so the more there are, the rarer it comes: its cost stays at
        some microseconds a second.
        """
        moment = clock.monotonic()
        if not now and moment < self._next_sweep:
            return False
        for id in [id for id, _, _, is_expired in self.items() if is_expired]:
            self.pop(id)
        self._next_sweep = moment + max(1.0, len(self) / 10_000)
        return True

    def evict(self, max_count: int, max_memory: int, spare: Callable[[str], bool]) -> int:
        """Remove the least recently used, but for those to `spare`, until at most `max_count` are
        there, which take at most `max_memory` bytes. Return how many."""
        evicted: list[str] = []
        count, memory = len(self), self.memory
        for id, entry in self._entries.items():
            if count <= max_count and memory <= max_memory:
                break
            if not spare(id):
                evicted.append(id)
                count, memory = count - 1, memory - entry.memory
        for id in evicted:
            self.pop(id)
        return len(evicted)


def growth_of(conversation: StoredConversation, change: Change) -> int:
    """Return by how many bytes of memory a change lets a conversation grow. What it takes away is
    not subtracted, but for what it replaces."""
    size = 0
    if change.append:
        size += memory_of_messages(change.append)
    if change.set:
        state = conversation.state
        replaced = {key: state[key] for key in change.set if key in state}
        size += memory_of_state(change.set) - memory_of_state(replaced)
    return size + sum(len(each.new) - len(each.old or b"") for each in change.replace)
