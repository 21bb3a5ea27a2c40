"""What goes between the repository and a backend: a `Record` is loaded, a `Change` is committed.

A backend sees ids and encoded bytes: no request, no Conversation, no JSON. What every backend
promises about these is described here; whether one keeps the promises is what
`django_convstate.testing.BackendContract` finds out.
"""

import enum
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from ..exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    InvalidConversationType,
    InvalidConversationValue,
)

DEFAULT_TTL: Final = 3600.0
REMEMBERED_COMMITS: Final = 64
QUARANTINE_SECONDS: Final = 7 * 24 * 3600  # how long the quarantine keeps something
COUNTER_MIN: Final = -(2**63)
COUNTER_MAX: Final = 2**63 - 1

TURN_LOST: Final = (
    "This turn was lost: its lease was not renewed in time, so that the next turn could begin. "
    "Nothing was saved; reload() and decide again."
)

# Told how many conversations are done and how many there are (None: not known).
Progress = Callable[[int, int | None], None]


class Create(enum.Enum):
    """Whether the conversation that a Change is for may, must or must not exist already."""

    MUST_BE_NEW = "new"
    MUST_EXIST = "exists"
    EITHER = "either"


# Ids and contents stay out of every repr: from there they get into logs and tracebacks.


@dataclass(slots=True, kw_only=True)
class Record:
    """A conversation as loaded. Times are seconds since the epoch, by the backend's clock.

    `messages` is the newest window of the `message_count` stored ones, oldest first. `ttl` is the
    idle time in seconds that each load and commit grants anew. `degraded` says that the store is
    unavailable, and this is what was last known of it here; nothing at all, if the version is 0.
    """

    id: str = field(repr=False)
    version: int
    owner: str | None = field(repr=False)
    created_at: float
    last_accessed: float
    expires_at: float
    ttl: float
    state: dict[str, bytes] = field(repr=False)
    messages: list[bytes] = field(repr=False)
    message_count: int
    degraded: bool = False


@dataclass(slots=True, kw_only=True)
class Change:
    """What one commit does, applied wholly or not at all, in the order of the fields.

    Attributes:
        create: whether the conversation must be new, must exist, or either.
        expected_version: refuse unless this is the stored version.
        owner: take ownership; refused where it is another owner's. None leaves it alone.
        ttl: idle seconds from now on; None keeps what there is.
        default_ttl: idle seconds of a new one where `ttl` is None.
        set: state key to its JSON.
        unset: state keys to drop. One that is not there is no error.
        increment: state key to what is added to it; a key that is not there counts as 0.
        keep_messages: keep only the first so many stored messages; None keeps all.
        append: messages added at the end, as JSON.
        commit_id: random, the same in every retry. A backend remembers the last
            `REMEMBERED_COMMITS` of a conversation, and answers one that it has applied already as
            it did the first time.
        lease: refuse unless this token holds the turn (see `acquire`). None: a turn that
            is held is no hindrance.
        release: give up the lease together with the change, and not if it is refused.
    """

    create: Create = Create.EITHER
    expected_version: int | None = None
    owner: str | None = field(repr=False, default=None)
    ttl: float | None = None
    default_ttl: float = DEFAULT_TTL
    set: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    unset: Sequence[str] = ()
    increment: Mapping[str, int] = field(repr=False, default_factory=dict)
    keep_messages: int | None = None
    append: Sequence[bytes] = field(repr=False, default=())
    commit_id: str = field(default_factory=partial(secrets.token_hex, 16))
    lease: str | None = field(repr=False, default=None)
    release: bool = False

    def refuse_unless_fits(self, version: int | None, owner: str | None) -> None:
        """Check this change against the stored version (None: there is none) and owner.

        Raises:
            ConversationInterrupted: it must exist, and does not.
            ConversationConflict: it must be new and is not, has another version or another owner.
        """
        if version is None:
            if self.create is Create.MUST_EXIST:
                raise ConversationInterrupted(
                    "The conversation was deleted or expired before this change was saved."
                )
            if self.expected_version:
                raise ConversationConflict(
                    f"Expected version {self.expected_version}, but nothing is stored."
                )
            return
        if self.create is Create.MUST_BE_NEW:
            raise ConversationConflict("The id of this new conversation is taken.")
        if self.expected_version is not None and self.expected_version != version:
            raise ConversationConflict(
                f"Expected version {self.expected_version}, but version {version} is stored."
            )
        if self.owner is not None and owner not in (None, self.owner):
            raise ConversationConflict("The conversation belongs to another owner.")


def add_to_counter(stored: bytes | None, delta: int, key: str) -> bytes:
    """Return the JSON of the counter in `stored` plus `delta`.

    Raises:
        InvalidConversationType: what is stored is no integer.
        InvalidConversationValue: what is stored, or is added, or the sum is beyond a signed 64-bit
            integer.
    """
    try:
        value = int(stored or b"0")
    except ValueError:
        raise not_a_number(key) from None
    if not all(COUNTER_MIN <= each <= COUNTER_MAX for each in (value, delta, value + delta)):
        raise beyond_64_bits(key)
    return b"%d" % (value + delta)


def not_a_number(key: str) -> InvalidConversationType:
    """Return the error for a value that is not a counter."""
    return InvalidConversationType(
        f"state[{key!r}] is not an integer, so nothing can be added to it."
    )


def beyond_64_bits(key: str) -> InvalidConversationValue:
    """Return the error for a counter that would overflow."""
    return InvalidConversationValue(f"state[{key!r}] would leave the signed 64-bit range.")


@dataclass(frozen=True, slots=True)
class Committed:
    """The answer to a commit: what the conversation is at after it. `degraded` says that the store
    is unavailable, and the change is to be replayed."""

    version: int
    message_count: int
    expires_at: float
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Acquired:
    """The answer to a lease that asks for a turn: how many are ahead of it; and, if there are none,
    the conversation as it is now (None: nothing is stored)."""

    position: int
    record: Record | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSummary:
    """What a listing tells about a conversation: nothing of its contents. Times are aware, in UTC;
    `size` is in bytes of JSON."""

    id: str = field(repr=False)
    owner: str | None = field(repr=False)
    version: int
    created_at: datetime
    last_accessed: datetime
    expires_at: datetime
    message_count: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which conversations a purge deletes: those that are idle for `idle_for` seconds, belong to
    `owner`, or both; or everything. Without any of these, those that have expired."""

    idle_for: float | None = None
    owner: str | None = field(repr=False, default=None)
    everything: bool = False

    @property
    def only_expired(self) -> bool:
        """Whether it selects only what has expired."""
        return self.idle_for is None and self.owner is None and not self.everything


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """How many conversations were looked at, and how many deleted (or, in a dry run, would be)."""

    examined: int = 0
    deleted: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """How a backend is.

    Attributes:
        backend: its name.
        connected: whether it answers.
        latency_ms: one round trip in milliseconds; None without an answer.
        using_fallback: whether conversations go on in memory, because it does not.
        pending_replay: how many changes of this process are yet to be replayed to it.
        detail: a sentence: what is wrong, or else what there is to know.
        since: when the outage began, in seconds since the epoch; None: there is none.
        is_full: whether no more changes can be noted for later, so that they are refused.
    """

    backend: str
    connected: bool
    latency_ms: float | None = None
    using_fallback: bool = False
    pending_replay: int = 0
    detail: str = ""
    since: float | None = None
    is_full: bool = False


def moment(seconds: float) -> datetime:
    """Return seconds since the epoch as an aware datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
