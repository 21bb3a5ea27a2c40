"""The contract of a place where conversations are kept: fill in the abstract methods of
`ConversationStateBackend`. records.py describes what goes in and comes out; what authors of
backends need of it can be imported from here."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage

from ..exceptions import InvalidBackend
from ..ids import new_id
from .records import Acquired as Acquired
from .records import Change as Change
from .records import Committed as Committed
from .records import Create as Create
from .records import Diverged as Diverged
from .records import Record as Record
from .records import Replacement as Replacement
from .refusals import TURN_LOST as TURN_LOST
from .refusals import add_to_counter as add_to_counter
from .reports import ConversationSummary as ConversationSummary
from .reports import Finding as Finding
from .reports import Health as Health
from .reports import Progress as Progress
from .reports import PurgeReport as PurgeReport
from .reports import Selection as Selection
from .toolkit.isolation import run_isolated
from .toolkit.packed import Pair as Pair
from .toolkit.rebuilding import rebuilt

P = ParamSpec("P")
T = TypeVar("T")


class ConversationStateBackend(ABC):
    """A place where conversations are kept. Write one by filling in the abstract methods.

    Each method has a twin for asyncio; its name begins with `a`. Here the twins run the method in
    a thread; a backend that can do better does.

    Every method that reaches a server may raise `BackendUnavailable`. None answers "there is none"
    unless the server said so. What is stored but is no conversation is quarantined, and
    `ConversationCorrupt` raised.
    """

    # How it is called in settings, health and messages.
    name: ClassVar[str]
    # The keys of CONVERSATION_STATE, in lower case, that the constructor takes.
    option_names: ClassVar[tuple[str, ...]] = ("max_age",)
    # It can list conversations, and so purge them by owner or idle time.
    can_scan: ClassVar[bool] = True
    # The server drops what has expired by itself.
    expires_natively: ClassVar[bool] = False
    # Another process sees the same conversations.
    is_shared: ClassVar[bool] = True
    # It may be unavailable, and FALLBACK says whether memory serves in its place then.
    can_fall_back: ClassVar[bool] = False

    def __init__(self, *, max_age: float | None = None) -> None:
        """Remember the absolute lifetime of a conversation, in seconds. No I/O here."""
        self.max_age = max_age

    @abstractmethod
    def load(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """Return the conversation with its newest `window` messages, or None. Slides its expiry.

        Args:
            known: a record with an etag of this backend's, of all that is asked for. If it still
                is what is stored, that need not be read: return what `known.again` makes of it.
        """

    @abstractmethod
    def commit(self, id: str, change: Change) -> Committed:
        """Apply `change` atomically and exactly once, and slide the expiry.

        Values and messages are opaque bytes, but for integers that `increment` adds to.

        Raises:
            ConversationInterrupted, ConversationConflict: see `Change.refuse_unless_fits`.
            ConversationConflict: the change has a lease that is not held (any more). Whether it was
                applied already is looked up before. Or it cannot be told any more whether it was.
            Diverged: see `Change.expected` and `Change.replace`.
            InvalidConversationValue: see `add_to_counter`.
            ConversationTooLarge: see `Change.max_state_bytes` and `Change.max_messages`.
            ConversationBusy: others kept it busy for too long.
        """

    @abstractmethod
    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """Return the stored messages at positions `start` to `stop`, without those that were
        dropped (see `Record.dropped`). Slides nothing; [] where there is no such conversation."""

    @abstractmethod
    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """Return the position of a message and its bytes; None: there is no such message. Slides
        nothing."""

    @abstractmethod
    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation, without sliding its expiry."""

    @abstractmethod
    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Slide the expiry, with a new idle time in seconds if given. False: there is none."""

    @abstractmethod
    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """Delete the conversation. False: there is none. For a day it is known that it was deleted
        (see `Change.unless_deleted`).

        Raises:
            ConversationConflict: `expected_version` is given and is not the stored one.
        """

    @abstractmethod
    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """Move the conversation to another id, in constant time where that is possible, and at
        once. False: there is none. The old id counts as deleted.

        Where it was moved to `new_id` already, that is no error: the reply may have been lost.

        Args:
            new_id: what `id_beside(id)` has returned.

        Raises:
            ConversationConflict: `new_id` is taken; or `expected_version` is given and is not the
                stored one.
        """

    @abstractmethod
    def restore(
        self,
        id: str,
        record: Record,
        messages: Iterable[Pair],
        *,
        unless_deleted: bool = False,
        replaces: int | None = None,
    ) -> None:
        """Make a conversation exactly as it was, version and times included, and visible at once.

        Args:
            record: the conversation, but for its messages.
            messages: all that follow those that were dropped.
            unless_deleted: refuse if it was deleted less than a day ago.
            replaces: the version of the conversation that it takes the place of, at once; leases
                stay. None: there must be none.

        Raises:
            ConversationConflict: there is a conversation under that id; or, with `replaces`, none,
                or one of another version.
            ConversationInterrupted: it was deleted, and that is to stay so.
        """

    @abstractmethod
    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """Queue for a turn of the conversation, which need not be stored yet.

        Position 0: `lease` holds the turn for `seconds` from now, and the record is what `load`
        would return. Any other: so many leases are ahead, and the place in the queue is kept for
        `seconds`. Calling again keeps the place, and renews it. All by the backend's clock.

        Args:
            lease: a random token of the caller's.
            known: see `load`.
        """

    @abstractmethod
    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """Keep the turn for `seconds` from now. False: it is not (any more) held by `lease`."""

    @abstractmethod
    def release(self, id: str, lease: str) -> None:
        """Leave the queue, from any place. No error where there is nothing to leave."""

    @abstractmethod
    def health(self) -> Health:
        """Make a round trip and tell how it went. Never raises `BackendUnavailable`."""

    @property
    def misconfigured(self) -> str:
        """Why the store cannot be meant to be as it is, in a sentence: it has not answered this
        process once, or refuses its login. "" where it may be in an outage, or is well. No I/O."""
        return ""

    def peek(self, id: str, window: int) -> Record | None:
        """Load where nothing may be written: the expiry is not slid, if that can be helped."""
        return self.load(id, window)

    def id_beside(self, id: str) -> str:
        """Return a new id to which `rename` can move the conversation. No I/O."""
        return new_id()

    def shard_of(self, id: str) -> str | None:
        """Return the name of the shard (a node of a cluster) that holds the conversation; "" as
        long as that is not known; None: there are no shards. No I/O."""
        return None

    def scan(
        self,
        owner: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> Iterator[ConversationSummary]:
        """Yield what is stored (of one owner), newest saved first where that is possible; always,
        if it is an owner's, or `limit` or `after` is given. Slides nothing.

        Among conversations that were saved within `reports.LISTING_LAG` (a minute) pages may have
        another order than that of their last saves. Whatever is saved while pages are read, each
        conversation that is not is in one of them, and none is in two.

        Args:
            limit: how many at most; fewer only if there are no more.
            after: begin after the conversation with this cursor, which need not be there any more.
            keys: of the state; `state` of the summaries contains their bytes.

        Raises:
            InvalidBackend: this backend cannot (`can_scan` is False).
        """
        raise InvalidBackend(f"The {self.name} backend cannot list conversations.")

    def purge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        """Delete what is selected; in a dry run, only count it.

        Raises:
            InvalidBackend: this backend cannot find them (`can_scan` is False).
        """
        if selection.only_expired and self.expires_natively:
            return PurgeReport(dry_run=dry_run)
        raise InvalidBackend(f"The {self.name} backend cannot find conversations to purge.")

    def find_damage(self, ttl: float, *, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is not as it should be in the store, and change nothing. For commands, so it
        has no twin.

        Args:
            ttl: idle seconds of most conversations: what is left of one that has just expired is
                no damage.

        Raises:
            InvalidBackend: this backend cannot.
        """
        raise InvalidBackend(f"The {self.name} backend cannot look for damage.")

    # For the tests of projects: see `django_convstate.testing`.

    def isolated(self, name: str) -> "ConversationStateBackend":
        """Return a backend like this one that has no conversation in common with it, nor with one
        of another name. No I/O. The inherited method builds another one, with `name` in its prefix.

        Raises:
            InvalidBackend: that is not enough, and there is no method of its own.
        """
        return rebuilt(self, name)

    def erase(self) -> None:
        """Drop all that an isolated backend keeps, when its test is over. The inherited method only
        closes it, as the inherited `isolated` has built it: for what is kept in memory."""
        self.close()

    def age(self, seconds: float) -> None:  # noqa: B027 - most go by `clock`
        """Let what an isolated backend keeps come nearer to its expiry, where that is not by
        `django_convstate.clock` but by the clock of a server. Below 0: farther from it."""

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

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method for its twin: in a thread, unless a backend knows that it does not block."""
        return await sync_to_async(method)(*args, **kwargs)

    async def aload(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """See `load`."""
        if known is None:  # which a backend that gives no etags need not take
            return await self._call(self.load, id, window)
        return await self._call(self.load, id, window, known)

    async def apeek(self, id: str, window: int) -> Record | None:
        """See `peek`."""
        return await self._call(self.peek, id, window)

    async def acommit(self, id: str, change: Change) -> Committed:
        """See `commit`."""
        return await self._call(self.commit, id, change)

    async def aread_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `read_messages`."""
        return await self._call(self.read_messages, id, start, stop)

    async def afind(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `find`."""
        return await self._call(self.find, id, message_id)

    async def aexists(self, id: str) -> bool:
        """See `exists`."""
        return await self._call(self.exists, id)

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        """See `touch`."""
        return await self._call(self.touch, id, ttl)

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        """See `delete`."""
        return await self._call(self.delete, id, expected_version)

    async def arename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `rename`."""
        return await self._call(self.rename, id, new_id, expected_version)

    async def arestore(
        self,
        id: str,
        record: Record,
        messages: Iterable[Pair],
        *,
        unless_deleted: bool = False,
        replaces: int | None = None,
    ) -> None:
        """See `restore`."""
        options: dict[str, Any] = {"unless_deleted": unless_deleted, "replaces": replaces}
        await self._call(partial(self.restore, id, record, messages, **options))

    async def aacquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `acquire`."""
        if known is None:
            return await self._call(self.acquire, id, lease, seconds, window)
        return await self._call(self.acquire, id, lease, seconds, window, known)

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        # Not in the thread that the other twins share: that may be busy for longer than a lease.
        in_thread = sync_to_async(run_isolated, thread_sensitive=False)
        return await in_thread(self.renew, id, lease, seconds)

    async def arelease(self, id: str, lease: str) -> None:
        """See `release`."""
        await self._call(self.release, id, lease)

    async def ahealth(self) -> Health:
        """See `health`."""
        return await self._call(self.health)

    async def ascan(
        self,
        owner: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> AsyncIterator[ConversationSummary]:
        """See `scan`."""

        def scan() -> list[ConversationSummary]:
            return list(self.scan(owner, limit=limit, after=after, keys=keys))

        for summary in await self._call(scan):
            yield summary

    async def apurge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        """See `purge`."""
        return await self._call(
            self.purge, selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    async def aclose(self) -> None:
        """See `close`."""
        await self._call(self.close)
