"""One conversation as this process has last seen it in the primary: a record, and the changes
since, which are applied only when it is needed."""

from dataclasses import dataclass, field, replace
from typing import Final

from ...exceptions import InvalidConversationValue
from ..records import Change, Committed, Record
from ..toolkit.commit_log import CommitLog
from ..toolkit.memory import (
    memory_of,
    memory_of_messages,
    memory_of_replacement,
    memory_of_texts,
)
from ..toolkit.packed import key_of
from ..toolkit.stored import StoredConversation
from ..toolkit.writer import Commit

KEPT_MESSAGES: Final = 100  # of each conversation, the newest
CHANGE_OVERHEAD: Final = 1300  # bytes of memory of a change with its answer besides its contents
OVERHEAD: Final = 1300  # bytes of memory of a conversation besides its contents, measured


class Applied:
    """What a change has done that the primary has applied at `now`, and the answer; the names are
    those of `Change`. It has the identity of the commit and not the commit, which is open for as
    long as anything refers to it. `size` is in bytes of memory."""

    __slots__ = (
        "append",
        "committed",
        "default_ttl",
        "floor",
        "increment",
        "keep_messages",
        "now",
        "number",
        "owner",
        "replace",
        "set",
        "size",
        "ttl",
        "unset",
        "window",
        "writer",
    )

    def __init__(self, change: Change, committed: Committed, now: float) -> None:
        """Take what is kept of a change; `now` is in seconds since the epoch."""
        # Each save comes here, so there is one call, as they mostly are.
        self.now = now
        self.committed = committed
        commit = change.commit
        self.writer, self.number, self.floor = commit.writer, commit.number, commit.floor
        self.owner = change.owner
        self.ttl = change.ttl
        self.default_ttl = change.default_ttl
        self.set = change.set
        self.unset = change.unset
        self.increment = change.increment
        self.replace = change.replace
        self.keep_messages = change.keep_messages
        self.append = change.append
        self.window = change.window
        self.size = CHANGE_OVERHEAD + memory_of(self.set, self.append)
        if committed.others:
            self.size += memory_of_messages(committed.others)
        if self.replace or self.unset or self.increment:
            self.size += memory_of_texts(self.unset) + memory_of_texts(self.increment)
            self.size += sum(map(memory_of_replacement, self.replace))

    @property
    def commit(self) -> Commit:
        """The commit, which is not open."""
        return Commit(self.writer, self.number, self.floor)


@dataclass(slots=True)
class Snapshot:
    """A conversation as it was at some moment, and the changes since.

    Attributes:
        size: what it takes, in bytes of memory.
        begun, seen: when it was created, and when the primary has last shown it, in seconds by the
            monotonic clock.
        changes: as they came. Threads may have overtaken each other.
        era: of the cache, when it became as it is.
        commits: those of this process that the record has in it. In an outage they may be sent
            again, by another thread or where the answer was lost.
    """

    record: Record
    size: int
    begun: float
    seen: float
    changes: list[Applied]
    era: int
    commits: CommitLog = field(default_factory=CommitLog, repr=False)

    @property
    def version(self) -> int:
        """That of the primary then."""
        return max([self.record.version, *map(_version, self.changes)])

    @property
    def owner(self) -> str | None:
        """The owner of the conversation; None: it has none."""
        owners = (change.owner for change in reversed(self.changes))
        return next((owner for owner in owners if owner is not None), self.record.owner)

    @property
    def kept_messages(self) -> int:
        """How many of its messages are kept: at least those of the window that was loaded."""
        return max(KEPT_MESSAGES, len(self.record.messages))

    def stored(self, max_age: float | None) -> StoredConversation:
        """Return a copy of the conversation with the changes applied."""
        record = self.record
        stored = StoredConversation.of(record, record.messages)
        stored.commits = self.commits
        stored.messages.unloaded = record.message_count - len(record.messages)
        stored.messages.oldest = record.first
        applied: set[tuple[bytes, int]] = set()
        for change in sorted(self.changes, key=_order):
            identity = change.writer, change.number
            _follow(stored, change, max_age, is_applied=identity in applied)
            applied.add(identity)
        stored.messages.unload(self.kept_messages)
        return stored

    def compacted(self, max_age: float | None) -> "Snapshot":
        """Return the same with the changes applied."""
        stored = self.stored(max_age)
        record = stored.record("", self.kept_messages, max_age)
        size = memory_with(record) + len(stored.commits.packed)
        return Snapshot(record, size, self.begun, self.seen, [], self.era, stored.commits)

    def commits_in(self, record: Record) -> CommitLog:
        """Return the commits known here that are in another record, too: all, if that is of the
        same conversation and not of one that was begun anew."""
        mine = self.record
        if record.created_at != mine.created_at or record.version < mine.version:
            return CommitLog()
        commits = self.commits
        for each in self.changes:
            if each.committed.version <= record.version:
                commits = commits.adding(each.commit, each.now)
        return commits

    def note_commit(self, change: Applied) -> None:
        """Take note that a change is in the record."""
        self.commits = self.commits.adding(change.commit, change.now)


def memory_with(record: Record) -> int:
    """Return the bytes of memory of a conversation of which no more than a record is known."""
    return OVERHEAD + memory_of(record.state, record.messages, record.first)


def _version(change: Applied) -> int:
    return change.committed.version


def _order(change: Applied) -> tuple[int, bool]:
    # Threads that share a conversation may both have sent a change: its first answer goes first.
    return change.committed.version, change.committed.repeated


def _follow(
    stored: StoredConversation, change: Applied, max_age: float | None, *, is_applied: bool
) -> None:
    """Do to `stored` what the primary has done, whatever else others have done there. If the change
    `is_applied`, its values are there."""
    messages, committed = stored.messages, change.committed
    appended = () if committed.repeated else change.append
    if committed.existing:
        appended = [pair for pair in appended if pair[0] not in committed.existing]
    _adopt_others(stored, change, committed.end - len(appended))
    # What a repeated answer has is newer than what was replaced then.
    for each in () if committed.repeated else change.replace:
        messages.replace(each)  # if it is known: others may have dropped it here
    # The values of a change that was repeated may be there.
    is_new = not (is_applied or (committed.repeated and committed.version <= stored.version))
    applied = Change(
        commit=change.commit,
        owner=change.owner,
        ttl=change.ttl,
        default_ttl=change.default_ttl,
        set=change.set if is_new else {},
        unset=change.unset if is_new else (),
        increment=change.increment if is_new else {},
        append=appended,
    )
    try:
        stored.apply(applied, change.now, max_age)
    except InvalidConversationValue:  # a counter that others have changed
        stored.apply(replace(applied, increment={}), change.now, max_age)
    stored.version = committed.version
    messages.settle(committed.dropped, committed.message_count, committed.last_key)


def _adopt_others(stored: StoredConversation, change: Applied, others_end: int) -> None:
    """Make the messages those that end at `others_end` in the primary, behind which it has appended
    those of `change`. Where it is not certain that older ones are there still, they are dropped."""
    messages, committed = stored.messages, change.committed
    others = committed.others
    if committed.version == stored.version + 1 and not committed.repeated:
        if change.keep_messages is not None:
            messages.truncate(change.keep_messages)
    elif committed.version > stored.version and len(others) >= change.window:
        # Others have committed meanwhile, and may have dropped what came before these.
        messages.packed.clear()
        messages.oldest = None
    messages.adopt(others, others_end)
    if messages.packed:
        messages.last_key = max(messages.last_key, key_of(messages.packed[-1]))
