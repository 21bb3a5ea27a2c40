"""Changes on their way to the store, until it has answered each of them."""

from collections import deque
from dataclasses import replace
from typing import Final

from ..backends.records import Change, Committed
from ..exceptions import (
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationValue,
    MessageNotFound,
)

# After these the store has answered no, and sending the same change again is no use.
REFUSALS: Final = (
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationValue,
    MessageNotFound,
)


class Pending:
    """Changes in the order in which they are to be sent, each with the position at which the
    messages are expected to end after it. One that the store may not have received stays, to be
    sent again."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[tuple[Change, int]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def first(self) -> Change | None:
        """The change to send next; None: there is none."""
        return self._queue[0][0] if self._queue else None

    def add(self, change: Change) -> None:
        """Add a change as the last one."""
        kept = change.seen[0] if change.keep_messages is None else change.keep_messages
        self._queue.append((change, kept + len(change.append)))

    def clear(self) -> None:
        """Forget all of them."""
        self._queue.clear()

    def expect(self, version: int) -> None:
        """Have the first one refused unless this is the stored version."""
        change, end = self._queue[0]
        self._queue[0] = replace(change, expected_version=version), end

    def release(self, lease: str) -> bool:
        """Have the last one give up the lease. False: it has none, or there is none."""
        if not self._queue or self._queue[-1][0].lease != lease:
            return False
        change, end = self._queue[-1]
        self._queue[-1] = replace(change, release=True), end
        return True

    def acknowledge(self, change: Change, committed: Committed) -> tuple[int, int] | None:
        """Take out what has been applied. Return where the messages were expected to end after it,
        and how many are to be appended by the changes that still wait; None if another task has
        sent it as well, and was faster."""
        if not self._queue or self._queue[0][0].commit is not change.commit:
            return None
        _, expected_end = self._queue.popleft()
        staged_later = 0
        if self._queue:
            staged_later = sum(len(each.append) for each, _ in self._queue)
            surplus = committed.end - expected_end
            seen = committed.end, committed.last_key
            self._queue = deque(_rebased(each, end, surplus, seen) for each, end in self._queue)
        return expected_end, staged_later


def _rebased(change: Change, end: int, surplus: int, seen: tuple[int, bytes]) -> tuple[Change, int]:
    """Return a change that waits, and the end expected after it, for `surplus` more messages."""
    keep = change.keep_messages
    return (
        replace(change, keep_messages=None if keep is None else keep + surplus, seen=seen),
        end + surplus,
    )
