"""This process as a writer: the numbers of its commits, by which a store tells a commit that it has
applied from one that it has not.

As RIFL and Kafka's idempotent producer do it: a writer numbers its commits, and says with each the
lowest number that it may still send. What is below that, the store need not remember.
"""

import os
import secrets
from collections import deque
from typing import Final

from ... import clock
from ...exceptions import ConversationConflict
from . import forksafe

WRITER_SECONDS: Final = 24 * 3600  # a store forgets a writer so long after its last commit
_RESEND_SECONDS: Final = WRITER_SECONDS - 3600  # clocks of two machines may differ

_Closed = deque[tuple[str, int]]  # numbers that are not open any more, by conversation


class Commit:
    """The identity of one commit: its writer (8 bytes), its number, and the floor: the writer's
    lowest number that was open for this conversation when the commit was made.

    It is open for as long as anything refers to it, a Change that waits or a journal: it may be
    sent until then.
    """

    __slots__ = ("_origin", "floor", "number", "sent_at", "writer")

    def __init__(
        self, writer: bytes, number: int, floor: int, origin: "tuple[_Closed, str] | None" = None
    ) -> None:
        self.writer = writer
        self.number = number
        self.floor = floor
        self._origin = origin
        self.sent_at: float | None = None  # seconds by the monotonic clock, the first time

    def sending(self) -> None:
        """Note that the store is about to be asked to apply it, perhaps not for the first time.

        Raises:
            ConversationConflict: it was sent so long ago that the store may have forgotten whether
                it was applied.
        """
        now = clock.monotonic()
        if self.sent_at is None:
            self.sent_at = now
        elif now - self.sent_at > _RESEND_SECONDS:
            raise unjudgeable()

    def __reduce__(self) -> "tuple[type[Commit], tuple[bytes, int, int]]":
        # A copy has the same number, so that only one of the two is applied.
        return Commit, (self.writer, self.number, self.floor)

    def __repr__(self) -> str:
        return f"<Commit {self.number} of {self.writer.hex()}>"

    def __del__(self) -> None:
        if self._origin is not None:
            closed, id = self._origin
            closed.append((id, self.number))


class Writer:
    """Numbers commits, and knows which of them are open. Thread-safe. In a forked process it is
    another writer, which knows of none."""

    def __init__(self) -> None:
        self._lock = forksafe.lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self.key = secrets.token_bytes(8)
        # Numbers that were given up, by conversation. A finalizer may run anywhere, even under our
        # lock, so it adds to this alone.
        self._closed: _Closed = deque()
        # Above all that were given so far: a number is used once for a conversation.
        self._next = 1
        self._open: dict[str, dict[int, None]] = {}  # by conversation, lowest first
        self._last: dict[str, int] = {}  # given to each conversation that has open ones

    def begin(self, id: str) -> Commit:
        """Return a new commit to conversation `id`."""
        with self._lock:
            if self._pid != os.getpid():  # uWSGI forks without Python's hooks
                self._begin_anew()
            if self._closed:
                self._forget_closed()
            numbers = self._open.get(id)
            if numbers is None:  # as it mostly is
                number = floor = self._next
                self._open[id] = {number: None}
            else:
                # The next one of this conversation, whatever others have: without gaps, a store
                # remembers them as one range.
                number, floor = self._last[id] + 1, next(iter(numbers))
                numbers[number] = None
            self._last[id] = number
            if number >= self._next:
                self._next = number + 1
            return Commit(self.key, number, floor, (self._closed, id))

    def lowest_open(self, id: str, commit: Commit) -> int:
        """Return the floor of `commit` as it is now: more may be closed since it was made."""
        with self._lock:
            self._forget_closed()
            numbers = self._open.get(id) if commit.writer == self.key else None
            return min(commit.number, next(iter(numbers))) if numbers else commit.floor

    def _forget_closed(self) -> None:
        while self._closed:
            id, number = self._closed.popleft()
            numbers = self._open[id]
            del numbers[number]
            if not numbers:
                del self._open[id], self._last[id]


class ThisProcess:
    """Holds the writer that this process is."""

    writer: Final = Writer()


def lone_commit() -> Commit:
    """Return a commit by a writer of its own, for a change that is not one of many."""
    return Commit(secrets.token_bytes(8), 1, 1)


def unjudgeable() -> ConversationConflict:
    """Return the error for a commit where it is not known any more whether it was applied."""
    return ConversationConflict(
        "It cannot be told any more whether this change was applied before. It was not applied "
        "now; reload() and decide again."
    )
