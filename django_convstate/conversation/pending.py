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


class Outbox:
    """Changes in the order in which they are to be sent, each with the number of messages that we
    expect after it.

    `with outbox as change` is for sending the first one: if it is refused, it is dropped, with all
    the rest. What the store may not have got stays.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[Change, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, change: Change, message_count: int) -> None:
        self._waiting.append((change, message_count))

    def clear(self) -> None:
        self._waiting.clear()

    def expect(self, version: int) -> None:
        """Have the first one refused unless this is the stored version."""
        change, count = self._waiting[0]
        self._waiting[0] = replace(change, expected_version=version), count

    def release(self, lease: str) -> bool:
        """Have the last one give up the lease. False: it has none, or there is none."""
        if not self._waiting or self._waiting[-1][0].lease != lease:
            return False
        change, count = self._waiting[-1]
        self._waiting[-1] = replace(change, release=True), count
        return True

    def __enter__(self) -> Change:
        return self._waiting[0][0]

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, REFUSALS):
            self.clear()

    def answered(self, change: Change, committed: Committed) -> int | None:
        """Take out what has been applied. Return how many messages more there are than we expected;
        None if another task has sent it as well, and was faster."""
        if not self._waiting or self._waiting[0][0].commit_id != change.commit_id:
            return None
        _, expected_count = self._waiting.popleft()
        surplus = committed.message_count - expected_count
        if surplus:
            self._waiting = deque(_moved(later, count, surplus) for later, count in self._waiting)
        return surplus


def _moved(change: Change, count: int, surplus: int) -> tuple[Change, int]:
    """Return a change that waits, and the count expected after it, for `surplus` more messages."""
    if change.keep_messages is not None:
        change = replace(change, keep_messages=change.keep_messages + surplus)
    return change, count + surplus
