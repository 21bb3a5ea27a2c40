"""Changes on their way to the store, until it has answered each of them."""

from collections import deque
from dataclasses import replace
from typing import Final

from ..backends.records import Change, Committed
from ..exceptions import (
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    InvalidConversationValue,
)

# After these the store has answered no, and sending the same change again is no use.
REFUSALS: Final = (
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    InvalidConversationValue,
)


class Pending:
    """Changes in the order in which they are to be sent, each with the number of messages that are
    expected after it. One that the store may not have received stays, to be sent again."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[tuple[Change, int]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def first(self) -> Change | None:
        """The change to send next; None: there is none."""
        return self._queue[0][0] if self._queue else None

    def add(self, change: Change, message_count: int) -> None:
        """Add a change as the last one. `message_count` is expected after it."""
        self._queue.append((change, message_count))

    def clear(self) -> None:
        """Forget all of them."""
        self._queue.clear()

    def expect(self, version: int) -> None:
        """Have the first one refused unless this is the stored version."""
        change, count = self._queue[0]
        self._queue[0] = replace(change, expected_version=version), count

    def release(self, lease: str) -> bool:
        """Have the last one give up the lease. False: it has none, or there is none."""
        if not self._queue or self._queue[-1][0].lease != lease:
            return False
        change, count = self._queue[-1]
        self._queue[-1] = replace(change, release=True), count
        return True

    def acknowledge(self, change: Change, committed: Committed) -> int | None:
        """Take out what has been applied. Return how many messages more there are than expected;
        None if another task has sent it as well, and was faster."""
        if not self._queue or self._queue[0][0].commit_id != change.commit_id:
            return None
        _, expected_count = self._queue.popleft()
        surplus = committed.message_count - expected_count
        if surplus:
            self._queue = deque(_rebased(later, count, surplus) for later, count in self._queue)
        return surplus


def _rebased(change: Change, count: int, surplus: int) -> tuple[Change, int]:
    """Return a change that waits, and the count expected after it, for `surplus` more messages."""
    if change.keep_messages is not None:
        change = replace(change, keep_messages=change.keep_messages + surplus)
    return change, count + surplus
