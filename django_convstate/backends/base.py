"""The contract between the store and a place where conversations are kept.

A backend sees ids and encoded bytes: no request, no Conversation, no JSON. It loads a `Record` and
commits a `Change`; both are described here, with what every backend promises about them. Whether a
backend keeps those promises is what `django_convstate.testing.BackendContract` finds out.
"""

import enum
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage

from ..exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    InvalidBackend,
    InvalidConversationType,
    InvalidConversationValue,
)
from .toolkit.isolation import apart

DEFAULT_TTL: Final = 3600.0
REMEMBERED_COMMITS: Final = 64
QUARANTINE_SECONDS: Final = 7 * 24 * 3600  # how long what was set aside is kept
COUNTER_MIN: Final = -(2**63)
COUNTER_MAX: Final = 2**63 - 1

TURN_LOST: Final = (
    "This turn was lost: for some seconds nobody said that it goes on, so that the next one could "
    "begin. Nothing was saved; reload() and decide again."
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
    away and this is what was known of it; nothing at all, if the version is 0.
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


def _commit_id() -> str:
    return secrets.token_hex(16)


@dataclass(slots=True, kw_only=True)
class Change:
    """What one commit does, applied wholly or not at all, in the order of the fields.

    Attributes:
        create: whether the conversation must be new, must exist, or either.
        expected_version: refuse unless this is the stored version.
        owner: take ownership; refused where somebody else has it. None leaves it alone.
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
        lease: refuse unless this token holds the turn (see `acquire`). None: whoever holds it is
            no hindrance.
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
    commit_id: str = field(default_factory=_commit_id)
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
    return InvalidConversationType(
        f"state[{key!r}] is not an integer, so nothing can be added to it."
    )


def beyond_64_bits(key: str) -> InvalidConversationValue:
    return InvalidConversationValue(f"state[{key!r}] would leave the signed 64-bit range.")


@dataclass(frozen=True, slots=True)
class Committed:
    """The answer to a commit: what the conversation is at after it. `degraded` says that the store
    is away, and will be told."""

    version: int
    message_count: int
    expires_at: float
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Acquired:
    """The answer to who wants a turn: how many are before them, and for the first the conversation
    as it is now (None: nothing is stored)."""

    position: int
    record: Record | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One line of a listing: no contents, `size` in bytes of JSON, times as in `Record`."""

    id: str = field(repr=False)
    version: int
    owner: str | None = field(repr=False)
    created_at: float
    last_accessed: float
    expires_at: float
    message_count: int
    size: int


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
        pending_replay: how many changes it has yet to be told.
        detail: what is wrong, or else what there is to tell, in words.
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


class ConversationStateBackend(ABC):
    """A place where conversations are kept. Write one by filling in the abstract methods.

    Each method has a twin for asyncio whose name begins with `a`. Here the twins run the method in
    a thread; a backend that can do better does.

    Every method that reaches a server may raise `BackendUnavailable`. None answers "there is none"
    unless the server said so. What is stored but is no conversation is set aside, and
    `ConversationCorrupt` raised.
    """

    # What to call it, in health and in sentences.
    name: ClassVar[str]
    # The keys of CONVERSATION_STATE, in lower case, that the constructor takes.
    uses: ClassVar[tuple[str, ...]] = ("max_age",)
    # It can list conversations, and so purge them by owner or idle time.
    can_scan: ClassVar[bool] = True
    # The server drops what has expired by itself.
    expires_natively: ClassVar[bool] = False
    # Another process sees the same conversations.
    is_shared: ClassVar[bool] = True
    # It may be away, and then FALLBACK says what goes on in its place.
    can_fall_back: ClassVar[bool] = False

    def __init__(self, *, max_age: float | None = None) -> None:
        """Remember the absolute lifetime of a conversation, in seconds. No I/O here."""
        self.max_age = max_age

    @abstractmethod
    def load(self, id: str, window: int) -> Record | None:
        """Return the conversation with its newest `window` messages, or None. Slides its expiry."""

    @abstractmethod
    def commit(self, id: str, change: Change) -> Committed:
        """Apply `change` atomically and exactly once, and slide the expiry.

        Raises:
            ConversationInterrupted, ConversationConflict: see `Change.refuse_unless_fits`.
            ConversationConflict: the change has a lease that is not held (any more). Whether it was
                applied already is looked up before.
            InvalidConversationValue: see `add_to_counter`.
            ConversationBusy: others kept it busy for too long.
        """

    @abstractmethod
    def read_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        """Return stored messages `start` to `stop`, as a slice with bounds >= 0 does. Slides
        nothing; [] where there is no such conversation."""

    @abstractmethod
    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation, without sliding its expiry."""

    @abstractmethod
    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Slide the expiry, with a new idle time in seconds if given. False: there is none."""

    @abstractmethod
    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """Delete the conversation. False: there is none.

        Raises:
            ConversationConflict: `expected_version` is given and is not the stored one.
        """

    @abstractmethod
    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        """Stand in line for a turn of the conversation, which need not be stored yet.

        Position 0: the turn is ours for `seconds` from now, and the record is what `load` would
        give. Any other: so many are before us, and our place is kept for `seconds`. Calling again
        keeps the place, and renews it. All by the backend's clock.

        Args:
            lease: a random token of ours.
        """

    @abstractmethod
    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """Keep the turn for `seconds` from now. False: it is not (any more) held by `lease`."""

    @abstractmethod
    def release(self, id: str, lease: str) -> None:
        """Leave the line, from whichever place. No error where there is nothing to leave."""

    @abstractmethod
    def health(self) -> Health:
        """Make a round trip and tell how it went. Never raises `BackendUnavailable`."""

    def peek(self, id: str, window: int) -> Record | None:
        """Load where nothing may be written: the expiry is not slid, if that can be helped."""
        return self.load(id, window)

    def part_of(self, id: str) -> str:
        """Name the part of the server, if there are several that fail by themselves, where a
        conversation is. No I/O."""
        return ""

    def scan(self, owner: str | None = None) -> Iterator[Summary]:
        """Yield what is stored (of one owner), newest activity first where that is possible.

        Raises:
            InvalidBackend: this backend cannot (`can_scan` is False).
        """
        raise InvalidBackend(f"The {self.name} backend cannot list conversations.")

    def purge(
        self,
        *,
        idle_for: float | None = None,
        owner: str | None = None,
        everything: bool = False,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        """Delete what has expired; or what has been idle for so many seconds, belongs to `owner`,
        or both; or everything.

        Raises:
            InvalidBackend: this backend cannot find them (`can_scan` is False).
        """
        only_expired = idle_for is None and owner is None and not everything
        if only_expired and self.expires_natively:
            return PurgeReport(dry_run=dry_run)
        raise InvalidBackend(f"The {self.name} backend cannot find conversations to purge.")

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections. The backend may be used again; it connects anew."""

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """Return system check messages for a backend built with `options`. No I/O."""
        return []

    @classmethod
    def check_deployment(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """Return those for `check --deploy`, for which the server may be asked."""
        return []

    async def aload(self, id: str, window: int) -> Record | None:
        return await sync_to_async(self.load)(id, window)

    async def apeek(self, id: str, window: int) -> Record | None:
        return await self.aload(id, window)

    async def acommit(self, id: str, change: Change) -> Committed:
        return await sync_to_async(self.commit)(id, change)

    async def aread_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        return await sync_to_async(self.read_messages)(id, start, stop)

    async def aexists(self, id: str) -> bool:
        return await sync_to_async(self.exists)(id)

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        return await sync_to_async(self.touch)(id, ttl)

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        return await sync_to_async(self.delete)(id, expected_version)

    async def aacquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        return await sync_to_async(self.acquire)(id, lease, seconds, window)

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        # Not in the thread that the other twins share: that may be busy for longer than a lease.
        return await sync_to_async(apart, thread_sensitive=False)(self.renew, id, lease, seconds)

    async def arelease(self, id: str, lease: str) -> None:
        await sync_to_async(self.release)(id, lease)

    async def ahealth(self) -> Health:
        return await sync_to_async(self.health)()

    async def ascan(self, owner: str | None = None) -> AsyncIterator[Summary]:
        for summary in await sync_to_async(lambda: list(self.scan(owner)))():
            yield summary

    async def apurge(self, **selection: Any) -> PurgeReport:
        return await sync_to_async(self.purge)(**selection)

    async def aclose(self) -> None:
        await sync_to_async(self.close)()
