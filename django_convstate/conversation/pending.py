"""Changes on their way to the store, until it has answered each of them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple

from ..backends.records import Change, Committed, Create, Replacement
from ..backends.toolkit.packed import NO_KEY, Pair, packed_of
from ..backends.toolkit.writer import Commit
from ..exceptions import (
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationValue,
    MessageNotFound,
)
from .edits import Edits

# After these the store has answered no, and sending the same change again is no use.
REFUSALS: Final = (
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationValue,
    MessageNotFound,
)

NOTHING: Final[Sequence[Pair]] = ()  # is appended


# Of what has changed: `keep_messages`, `append`, `once`, `replace` and `seen` of a `Change`; and
# where the messages end after it.
MessageChanges = tuple[
    int | None, Sequence[Pair], Collection[str], Sequence[Replacement], tuple[int, bytes], int
]

# The same, before it is made a `Change` of; see `MessageLog`.
LogChanges = tuple[int | None, Edits | None, tuple[list[bytes], dict[str, None], int]]


class Pending(list[tuple[Change, int]]):
    """Changes in the order in which they are to be sent, each with the position at which the
    messages are expected to end after it. One that the store may not have received stays, to be
    sent again."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Pending: {len(self)}>"

    __sentry_repr__ = __repr__

    @property
    def first(self) -> Change | None:
        """The change to send next; None: there is none."""
        try:
            return self[0][0]
        except IndexError:  # no question before, for another thread may take it out
            return None

    def add_follower(
        self,
        applied: Change,
        committed: Committed,
        replacements: Sequence[Replacement],
        commit: Commit,
        lease: str | None,
    ) -> None:
        """Add a change, to be sent before those that wait, of messages that one which was applied
        was to append, and that were there already."""
        change = Change(
            create=Create.MUST_EXIST,
            visitor=applied.visitor,
            replace=replacements,
            commit=commit,
            lease=None if applied.release else lease,
            seen=(committed.end, committed.last_key),
            window=applied.window,
        )
        self.insert(0, (change, committed.end))

    def expect(self, version: int) -> None:
        """Have the first one refused unless this is the stored version."""
        change, end = self[0]
        self[0] = replace(change, expected_version=version), end

    def release(self, lease: str) -> bool:
        """Have the last one give up the lease. False: it has none, or there is none."""
        if not self or self[-1][0].lease != lease:
            return False
        change, end = self[-1]
        if not change.release:
            self[-1] = replace(change, release=True), end
        return True

    def is_first(self, change: Change) -> bool:
        """Tell whether a change is the one to send next."""
        return bool(self) and self[0][0].commit is change.commit

    def take(self, change: Change) -> tuple[int, bool] | None:
        """Take out what has been applied. Return where the messages were expected to end after it,
        and whether others wait. None: another task has sent it as well, and was faster."""
        if not self or self[0][0].commit is not change.commit:
            return None
        return self.pop(0)[1], bool(self)

    def settle(self, change: Change, committed: Committed, expected_end: int) -> "Settled":
        """Have the changes that wait count messages as the store does after one was applied."""
        end = committed.end
        is_cut = any(each.keep_messages is not None for each, _ in self)
        # After a cut, what is known here is given up, so that the next answer has all.
        seen = (0, NO_KEY) if is_cut else (end, committed.last_key)
        later = 0
        for place, (each, _) in enumerate(tuple(self)):
            keep = each.keep_messages
            if keep is not None:
                end = keep = shifted(keep, change, committed, expected_end)
                later = 0
            end += len(each.append)
            later += len(each.append)
            self[place] = replace(each, keep_messages=keep, seen=seen), end
        return Settled(change, committed, expected_end, end, later, is_cut)


class Settled(NamedTuple):
    """A change that was applied, and what that means for the messages.

    Attributes:
        expected_end: where they were expected to end after it.
        stored_end: where they are expected to end now, after all changes that wait.
        later: how many were appended later, and wait.
        is_cut: whether one of those that wait drops some.
    """

    change: Change
    committed: Committed
    expected_end: int
    stored_end: int
    later: int
    is_cut: bool


def shifted(position: int, change: Change, committed: Committed, expected_end: int) -> int:
    """Return where in the store a position is that was counted before a change was applied."""
    before = expected_end - len(change.append)
    if position < before:
        return position
    if committed.repeated:
        # Others may have appended behind its own messages: keep them all.
        return position if committed.end == expected_end else committed.end
    existing = [
        id for id, _ in islice(change.append, position - before) if id in committed.existing
    ]
    return position + committed.others_end - before - len(existing)


def joined(before: list[bytes], before_end: int, committed: Committed) -> list[bytes]:
    """Return the messages before a commit's own: those known, with those of others."""
    others = packed_of(committed.others)
    start = committed.others_end - len(others)
    if start > before_end:
        return others  # there is a gap, of messages that are further back than the window
    return before[: max(0, len(before) - (before_end - start))] + others
