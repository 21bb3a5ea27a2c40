"""What goes between the repository and a backend: a `Record` is loaded, a `Change` is committed.

A backend sees ids and encoded bytes: no request, no Conversation, no JSON. What every backend
promises about these is described here; whether one keeps the promises is what
`django_convstate.testing.BackendContract` finds out.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..exceptions import ConversationConflict, ConversationInterrupted
from .refusals import id_is_taken, owned_by_another, state_too_large, too_many_messages
from .toolkit.packed import NO_KEY, PackedMessages, Pair, data_of, id_of, packed_of
from .toolkit.writer import Commit, lone_commit

DEFAULT_TTL: Final = 3600.0
QUARANTINE_SECONDS: Final = 7 * 24 * 3600  # how long the quarantine keeps something
PARTIAL_SECONDS: Final = 3600  # and how long what an evicting server has left of a conversation
TOMBSTONE_SECONDS: Final = 24 * 3600  # how long it is known that a conversation was deleted


class Create(enum.Enum):
    """Whether the conversation that a Change is for may, must or must not exist already."""

    MUST_BE_NEW = "new"
    MUST_EXIST = "exists"
    EITHER = "either"


# Ids and contents stay out of every repr: from there they get into logs and tracebacks.


@dataclass(slots=True, kw_only=True)
class Record:
    """A conversation as loaded. Times are seconds since the epoch, by the backend's clock.

    Attributes:
        modified_at: when the last commit was applied.
        last_accessed: when it was last loaded, touched or committed to.
        expires_at: `math.inf`: it does not.
        ttl: the idle time in seconds that each load and commit grants anew; `math.inf`: for ever.
        messages: the newest window of the `message_count` stored ones, oldest first.
        dropped: how many older ones were dropped because it was full. Positions count them: the
            first message that is there is at position `dropped`.
        first: the first message that is there, where the window does not reach it.
        last_key: the highest sort key of a message so far.
        degraded: the store is unavailable, and this is what was last known of it here. If the
            version is 0, nothing is known of what is stored: it is only what was said here since.
        unconfirmed: in an outage, the store may not have it, or not for much longer.
        etag: two records of one id with the same are equal but for last_accessed, expires_at and
            ttl; b"": there is none.
    """

    id: str = field(repr=False)
    version: int
    owner: str | None = field(repr=False)
    created_at: float
    modified_at: float
    last_accessed: float
    expires_at: float
    ttl: float
    state: dict[str, bytes] = field(repr=False)
    messages: Sequence[Pair] = field(repr=False)
    message_count: int
    dropped: int = 0
    first: Pair | None = field(repr=False, default=None)
    last_key: bytes = field(repr=False, default=NO_KEY)
    degraded: bool = False
    unconfirmed: bool = False
    etag: bytes = field(repr=False, compare=False, default=b"")

    @property
    def end(self) -> int:
        """The position after the last message."""
        return self.dropped + self.message_count

    def again(self, window: int, last_accessed: float, expires_at: float, ttl: float) -> "Record":
        """Return the same with its newest `window` messages, if it has that many, and these times.
        It has nothing in common with this one that could be changed."""
        messages, count = self.messages, self.message_count
        packed = messages.packed if type(messages) is PackedMessages else packed_of(messages)
        newest = packed[-window:] if window else []
        first = self.first
        if len(newest) == count:
            first = None
        elif first is None and len(packed) == count:
            first = id_of(packed[0], self.dropped), data_of(packed[0])
        return Record(
            id=self.id,
            version=self.version,
            owner=self.owner,
            created_at=self.created_at,
            modified_at=self.modified_at,
            last_accessed=last_accessed,
            expires_at=expires_at,
            ttl=ttl,
            state=self.state.copy(),
            messages=PackedMessages(newest, self.dropped + count - len(newest)),
            message_count=count,
            dropped=self.dropped,
            first=first,
            last_key=self.last_key,
            etag=self.etag,
        )

    @property
    def is_unknown(self) -> bool:
        """Whether, in an outage, nothing is known here of what is stored."""
        return self.degraded and not self.version


@dataclass(slots=True, kw_only=True)
class Replacement:
    """New bytes for the message with an id. `old` is what they were made from: if the message has
    other bytes by now, the change is refused as `Diverged`. None: whatever it has."""

    id: str = field(repr=False)
    old: bytes | None = field(repr=False)
    new: bytes = field(repr=False)


@dataclass(slots=True, kw_only=True)
class Change:
    """What one commit does, applied wholly or not at all, in the order of the fields.

    Attributes:
        create: whether the conversation must be new, must exist, or either.
        unless_deleted: refuse to begin a conversation that was deleted less than a day ago.
        expected_version: refuse unless this is the stored version.
        visitor: refuse if it is another owner's than this one's; "": if it has an owner.
        owner: take ownership; refused where it is another owner's. None leaves it alone.
        owner_is_attested: a token, or a login, says that it may be this owner's. So it is accepted
            where in an outage nothing is known of the conversation, and checked when replayed.
        ttl: idle seconds from now on; None keeps what there is.
        default_ttl: idle seconds of a new one where `ttl` is None.
        expected: state key to the bytes that a nested change of it began from (None: there were
            none). If there are others by now, the change is refused as `Diverged`.
        set: state key to its bytes.
        unset: state keys to drop. One that is not there is no error.
        increment: state key to what is added to it; a key that is not there counts as 0.
        max_state_bytes: refuse if keys and values of the state would grow beyond that.
        replace: messages that get new bytes.
        keep_messages: keep only the messages before this position; None keeps all.
        append: messages added at the end, each its id and its bytes.
        once: the ids in `append` that may be there already; those messages are not added again.
        max_messages: refuse if `append` makes more than that.
        drop_oldest: rather drop the oldest of them.
        commit: the same in every retry. One that was applied already is not applied again.
        lease: refuse unless this token holds the turn (see `acquire`). None: a turn that
            is held is no hindrance.
        release: give up the lease together with the change, and not if it is refused.
        seen: where the caller's copy of the messages ends: the position after its last one, and
            the last sort key that it knows. The answer has what others have appended since.
        window: how many of these it has at most; 0: none.
    """

    create: Create = Create.EITHER
    unless_deleted: bool = False
    expected_version: int | None = None
    visitor: str | None = field(repr=False, default=None)
    owner: str | None = field(repr=False, default=None)
    owner_is_attested: bool = False
    ttl: float | None = None
    default_ttl: float = DEFAULT_TTL
    expected: Mapping[str, bytes | None] = field(repr=False, default_factory=dict)
    set: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    unset: Sequence[str] = field(repr=False, default=())
    increment: Mapping[str, int] = field(repr=False, default_factory=dict)
    max_state_bytes: int | None = None
    replace: Sequence[Replacement] = ()
    keep_messages: int | None = None
    append: Sequence[Pair] = field(repr=False, default=())
    once: Collection[str] = field(repr=False, default=())
    max_messages: int | None = None
    drop_oldest: bool = False
    commit: Commit = field(default_factory=lone_commit)
    lease: str | None = field(repr=False, default=None)
    release: bool = False
    seen: tuple[int, bytes] = field(repr=False, default=(0, NO_KEY))
    window: int = 0

    def refuse_unless_fits(
        self, version: int | None, owner: str | None, *, is_deleted: bool = False
    ) -> None:
        """Check this change against the stored version (None: there is none) and owner.

        Raises:
            ConversationInterrupted: it must exist, and does not; or `unless_deleted`, and it was.
            ConversationConflict: it must be new and is not, has another version or another owner.
        """
        if version is None:
            if self.create is Create.MUST_EXIST or (is_deleted and self.unless_deleted):
                raise ConversationInterrupted(
                    "The conversation was deleted or expired before this change was saved."
                )
            if self.expected_version:
                raise ConversationConflict(
                    f"Expected version {self.expected_version}, but nothing is stored."
                )
            return
        if self.create is Create.MUST_BE_NEW:
            raise id_is_taken()
        if self.expected_version is not None and self.expected_version != version:
            raise ConversationConflict(
                f"Expected version {self.expected_version}, but version {version} is stored."
            )
        if owner is not None and (
            self.owner not in (None, owner) or self.visitor not in (None, owner)
        ):
            raise owned_by_another()

    def refuse_unless_expected(
        self, values: Mapping[str, bytes], found: Sequence[tuple[Replacement, bytes | None]]
    ) -> None:
        """Compare what this change began from with what is stored.

        Args:
            values: the stored state.
            found: each replacement, with the bytes that the message has; None: there is none.

        Raises:
            Diverged: something of it has changed since.
        """
        if not self.expected and not found:
            return
        state = {
            key: values.get(key) for key, old in self.expected.items() if values.get(key) != old
        }
        messages = {
            each.id: data for each, data in found if data is None or each.old not in (None, data)
        }
        if state or messages:
            raise Diverged(state, messages)

    def surplus(self, message_count: int) -> int:
        """Return how many of the oldest messages are to be dropped when it is applied."""
        if not self.drop_oldest or self.max_messages is None or not self.append:
            return 0
        return max(0, message_count - self.max_messages)

    def refuse_if_too_large(self, size_before: int, size: int, message_count: int) -> None:
        """Check the sizes that this change would lead to: of the state in bytes, and the messages.

        Raises:
            ConversationTooLarge: one of them is over its limit.
        """
        limit = self.max_state_bytes
        if limit is not None and size > limit and size > size_before:
            raise state_too_large(size, limit)
        limit = self.max_messages
        if limit is not None and self.append and message_count > limit and not self.drop_oldest:
            raise too_many_messages(message_count, limit)


class Diverged(Exception):
    """Others have changed what a change began from. Nothing was applied; the repository, or the
    replay, merges what both have made of it, and commits that.

    `state` has the keys, and `messages` the ids, with the bytes that are stored by now; None:
    nothing is.
    """

    def __init__(
        self, state: Mapping[str, bytes | None], messages: Mapping[str, bytes | None]
    ) -> None:
        super().__init__("What this change began from has changed.")
        self.state = state
        self.messages = messages


def entry_size(key: str, data: bytes) -> int:
    """Return the bytes of a key and its value, as `max_state_bytes` counts them."""
    return len(key.encode()) + len(data)


@dataclass(slots=True)
class Committed:
    """The answer to a commit: what the conversation is at after it.

    Attributes:
        message_count, dropped, last_key: see `Record`.
        repeated: it was applied already; the answer says how things are now.
        existing: those ids of `Change.once` that were there already.
        others: the messages that others have appended since `Change.seen`, as many of the newest as
            the window holds; those that were appended before are missing here. They end where the
            caller's own begin. If it was `repeated`, or messages that the caller had seen are
            gone, they are the newest of all, own ones included.
        others_end: the position after the last of them.
        merged: the keys whose nested changes were merged with others', by the repository.
        replaced: what it has made of messages that others have changed, too, by their ids.
        degraded: the store is unavailable, and the change is to be replayed.
        unconfirmed: see `Record`.
        modified_at: when it was applied, if there is an etag.
        etag, follows: the etag (see `Record`) that the conversation has with this change, and the
            one that it had right before; b"": there was none.
    """

    version: int
    message_count: int
    expires_at: float
    dropped: int = 0
    last_key: bytes = field(repr=False, default=NO_KEY)
    repeated: bool = False
    existing: Sequence[str] = field(repr=False, default=())
    others: Sequence[Pair] = field(repr=False, default=())
    others_end: int = 0
    merged: Sequence[str] = field(repr=False, default=())
    replaced: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    degraded: bool = False
    unconfirmed: bool = False
    modified_at: float = field(compare=False, default=0.0)
    etag: bytes = field(repr=False, compare=False, default=b"")
    follows: bytes = field(repr=False, compare=False, default=b"")

    @property
    def end(self) -> int:
        """The position after the last message."""
        return self.dropped + self.message_count


@dataclass(frozen=True, slots=True)
class Acquired:
    """The answer to a lease that asks for a turn: how many are ahead of it; and, if there are none,
    the conversation as it is now (None: nothing is stored)."""

    position: int
    record: Record | None
