"""The one caller of a backend: checks ids, reports damage, sends signals, and lets observers watch.

A twin differs from its method by the await alone.
"""

import logging
from asyncio import sleep as asleep
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import sleep
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from . import conf, ids, signals
from .backends import backend_class, building, default_backend, get_backend, options_of, stand_ins
from .backends.base import ConversationStateBackend
from .backends.records import Acquired, Change, Committed, Diverged, Record
from .backends.refusals import message_too_large
from .backends.reports import ConversationSummary, Finding, Health, Progress, PurgeReport, Selection
from .backends.toolkit.packed import Pair
from .codec import decode
from .conversation.merge import MERGE_TRIES, merged, pause_after, told
from .exceptions import ConversationBusy, ConversationCorrupt, ConversationNotFound
from .observing import in_request, observed, observers
from .tracebacks import Hidden, clear_locals, clears_locals

_NOT_MERGED: Final = (
    "Others did not stop changing what this change began from. Nothing was written; try again."
)

logger = logging.getLogger("django_convstate")

P = ParamSpec("P")
T = TypeVar("T")
AsyncCall = Callable[Concatenate[str, P], Awaitable[T]]


class Repository:
    """Keeps the conversations of one store in its backend, which is made when it is first used."""

    def __init__(
        self,
        sender: object,
        backend: ConversationStateBackend | str | None,
        overrides: Mapping[str, Any],
    ) -> None:
        """Describe where conversations are kept. No I/O.

        Args:
            sender: of the signals.
            backend: a backend, its name or dotted path; None: as the settings say.
            overrides: options that count for more than CONVERSATION_STATE.
        """
        self._sender = sender
        self._named = backend
        self._overrides = dict(overrides)
        # What was made of the settings, with those settings: they may be overridden at any time.
        self._options: tuple[conf.Options, conf.Options] | None = None
        self._backend: tuple[conf.Options, ConversationStateBackend] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a conversation, in a pickle or another, finds its backend by the settings.
        return self.__dict__ | {"_options": None, "_backend": None}

    @property
    def options(self) -> conf.Options:
        """The settings in force for this store."""
        settings = conf.current()
        if self._options is None or self._options[0] is not settings:
            self._options = settings, conf.with_overrides(settings, self._overrides)
        return self._options[1]

    @property
    def backend(self) -> ConversationStateBackend:
        """Where the conversations are kept."""
        settings = conf.current()
        if self._backend is None or self._backend[0] is not settings:
            self._backend = settings, self._find_backend()
        return stand_ins[-1](self._backend[1]) if stand_ins else self._backend[1]

    @clears_locals
    def _find_backend(self) -> ConversationStateBackend:
        with building:
            if isinstance(self._named, ConversationStateBackend):
                return self._named
            name = conf.backend_name() if self._named is None else self._named
            own = self._overrides.keys() & set(options_of(backend_class(name)))
            # With a prefix of its own it shares nothing, in memory, which has no prefixes, too.
            if self._named is None and not own and "key_prefix" not in self._overrides:
                return default_backend()
            self._named = get_backend(name, **{option: self._overrides[option] for option in own})
            return self._named

    # One conversation.

    def load(self, id: str, window: int | None = None) -> Record:
        """Return a stored conversation with its newest `window` messages (None: WINDOW).

        Raises:
            ConversationNotFound: there is none.
        """
        return _found(self._call(self.backend.load, id, window or self.options.window))

    async def aload(self, id: str, window: int | None = None) -> Record:
        """See `load`."""
        return _found(await self._acall(self.backend.aload, id, window or self.options.window))

    def peek(self, id: str, window: int | None = None) -> Record:
        """Do as `load`, and slide nothing."""
        return _found(self._call(self.backend.peek, id, window or self.options.window))

    async def apeek(self, id: str, window: int | None = None) -> Record:
        """See `peek`."""
        return _found(await self._acall(self.backend.apeek, id, window or self.options.window))

    def commit(self, id: str, change: Change) -> Committed:
        """Apply a change, merged with what others have changed in the same nested values. Raises as
        the backend's `commit` does, and:

        Raises:
            MessageNotFound: a message that was to be updated is gone.
            ConversationBusy: others did not stop changing the same.
        """
        original = change
        theirs: dict[str, bytes | None] = {}
        for failures in range(MERGE_TRIES):
            try:
                committed = self._call(self.backend.commit, id, change)
            except Diverged as diverged:
                change = self._merged(change, diverged)
                theirs.update(diverged.messages)
                sleep(pause_after(failures + 1))
            else:
                is_original = change is original
                return committed if is_original else told(committed, original, change, theirs)
        raise ConversationBusy(_NOT_MERGED)

    async def acommit(self, id: str, change: Change) -> Committed:
        """See `commit`."""
        original = change
        theirs: dict[str, bytes | None] = {}
        for failures in range(MERGE_TRIES):
            try:
                committed = await self._acall(self.backend.acommit, id, change)
            except Diverged as diverged:
                change = self._merged(change, diverged)
                theirs.update(diverged.messages)
                await asleep(pause_after(failures + 1))
            else:
                is_original = change is original
                return committed if is_original else told(committed, original, change, theirs)
        raise ConversationBusy(_NOT_MERGED)

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """Return stored messages at positions `start` to `stop`."""
        return self._call(self.backend.read_messages, id, start, stop)

    async def aread_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `read_messages`."""
        return await self._acall(self.backend.aread_messages, id, start, stop)

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """Return the position of a message and its bytes; None: there is no such message."""
        return self._call(self.backend.find, id, message_id)

    async def afind(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `find`."""
        return await self._acall(self.backend.afind, id, message_id)

    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation."""
        return self._call(self.backend.exists, id)

    async def aexists(self, id: str) -> bool:
        """See `exists`."""
        return await self._acall(self.backend.aexists, id)

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Slide the expiry. False: there is no such conversation."""
        return self._call(self.backend.touch, id, ttl)

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        """See `touch`."""
        return await self._acall(self.backend.atouch, id, ttl)

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """Delete a conversation, and send the signal. False: there is none.

        Raises:
            ConversationConflict: `expected_version` is given and is not the stored one.
        """
        deleted = self._call(self.backend.delete, id, expected_version)
        if deleted:
            signals.conversation_deleted.send_robust(self._sender, id=Hidden(id))
        return deleted

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        """See `delete`."""
        deleted = await self._acall(self.backend.adelete, id, expected_version)
        if deleted:
            await signals.conversation_deleted.asend_robust(self._sender, id=Hidden(id))
        return deleted

    def check_visitor(self, id: str, visitor: str | None) -> None:
        """Make sure that a conversation has not become another owner's.

        Args:
            visitor: its owner to be; "": it must have none; None: that is not asked.

        Raises:
            ConversationNotFound: it is another owner's.
        """
        if visitor is not None:
            refuse_others(self._call(self.backend.peek, id, 1), visitor)

    async def acheck_visitor(self, id: str, visitor: str | None) -> None:
        """See `check_visitor`."""
        if visitor is not None:
            refuse_others(await self._acall(self.backend.apeek, id, 1), visitor)

    def id_beside(self, id: str) -> str:
        """Return a new id to which a conversation can be moved. No I/O."""
        return self.backend.id_beside(ids.validate_id(id))

    def rename(self, id: str, new_id: str) -> bool:
        """Move a conversation to a new id. False: there is none. No signal is sent, for the
        conversation goes on."""
        return self._call(self.backend.rename, id, new_id)

    async def arename(self, id: str, new_id: str) -> bool:
        """See `rename`."""
        return await self._acall(self.backend.arename, id, new_id)

    def restore(
        self,
        id: str,
        record: Record,
        messages: Iterator[Pair],
        *,
        unless_deleted: bool = False,
        replaces: int | None = None,
    ) -> None:
        """Make a conversation as it was: see the backend's `restore`. No signal is sent."""
        restore = self.backend.restore
        self._call(restore, id, record, messages, unless_deleted=unless_deleted, replaces=replaces)

    # Its turns.

    def acquire(self, id: str, lease: str, seconds: float) -> Acquired:
        """Queue for a turn, or keep the place in the queue."""
        return self._call(self.backend.acquire, id, lease, seconds, self.options.window)

    async def aacquire(self, id: str, lease: str, seconds: float) -> Acquired:
        """See `acquire`."""
        return await self._acall(self.backend.aacquire, id, lease, seconds, self.options.window)

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """Keep the turn. False: it was lost."""
        return self._call(self.backend.renew, id, lease, seconds)

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        return await self._acall(self.backend.arenew, id, lease, seconds)

    def release(self, id: str, lease: str) -> None:
        """Leave the queue, or give the turn back."""
        self._call(self.backend.release, id, lease)

    async def arelease(self, id: str, lease: str) -> None:
        """See `release`."""
        await self._acall(self.backend.arelease, id, lease)

    # All of them.

    def scan(
        self, owner: str | None, limit: int | None, after: str | None, keys: Sequence[str]
    ) -> Iterator[ConversationSummary]:
        """Yield what is stored (of one owner), with the values under some keys of the state."""
        for summary in self.backend.scan(owner, limit=limit, after=after, keys=keys):
            yield _decoded(summary)

    async def ascan(
        self, owner: str | None, limit: int | None, after: str | None, keys: Sequence[str]
    ) -> AsyncIterator[ConversationSummary]:
        """See `scan`."""
        async for summary in self.backend.ascan(owner, limit=limit, after=after, keys=keys):
            yield _decoded(summary)

    def purge(self, selection: Selection, **options: Any) -> PurgeReport:
        """Delete what is selected. The options are those of a backend's `purge`."""
        with observed("purge", self.backend):
            return self.backend.purge(selection, **options)

    async def apurge(self, selection: Selection, **options: Any) -> PurgeReport:
        """See `purge`."""
        with observed("purge", self.backend):
            return await self.backend.apurge(selection, **options)

    def find_damage(self, progress: Progress | None) -> Iterator[Finding]:
        """Yield what is not as it should be."""
        return self.backend.find_damage(self.options.ttl, progress=progress)

    def health(self) -> Health:
        """Make a round trip and tell how it went."""
        with observed("health", self.backend):
            return self.backend.health()

    async def ahealth(self) -> Health:
        """See `health`."""
        with observed("health", self.backend):
            return await self.backend.ahealth()

    def close(self) -> None:
        """Let go of connections."""
        self.backend.close()

    async def aclose(self) -> None:
        """See `close`."""
        await self.backend.aclose()

    def _merged(self, change: Change, diverged: Diverged) -> Change:
        change, limit = merged(change, diverged), self.options.max_message_bytes
        for each in change.replace:
            if len(each.new) > limit:
                raise message_too_large(len(each.new), limit)
        return change

    # What is told to others.

    def announce_saved(self, conversation: object, created: bool) -> None:
        """Send the signals of a commit."""
        if created:
            signals.conversation_created.send_robust(self._sender, conversation=conversation)
        signals.conversation_saved.send_robust(self._sender, conversation=conversation)

    async def aannounce_saved(self, conversation: object, created: bool) -> None:
        """See `announce_saved`."""
        if created:
            await signals.conversation_created.asend_robust(self._sender, conversation=conversation)
        await signals.conversation_saved.asend_robust(self._sender, conversation=conversation)

    # How a backend is called.

    def _call(
        self, call: Callable[Concatenate[str, P], T], id: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        ids.validate_id(id)
        if (note_use := in_request.get()) is not None:
            note_use()
        try:
            if not observers:
                return call(id, *args, **kwargs)
            with observed(call.__name__, self.backend):
                return call(id, *args, **kwargs)
        except ConversationCorrupt as error:
            error.conversation_id = Hidden(id)
            clear_locals(error)  # a receiver that fails is logged with it
            _log_quarantine(id, error)
            signals.conversation_quarantined.send_robust(self._sender, id=Hidden(id))
            raise

    async def _acall(
        self, call: AsyncCall[P, T], id: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        ids.validate_id(id)
        if (note_use := in_request.get()) is not None:
            note_use()
        try:
            if not observers:
                return await call(id, *args, **kwargs)
            with observed(call.__name__.removeprefix("a"), self.backend):
                return await call(id, *args, **kwargs)
        except ConversationCorrupt as error:
            error.conversation_id = Hidden(id)
            clear_locals(error)
            _log_quarantine(id, error)
            await signals.conversation_quarantined.asend_robust(self._sender, id=Hidden(id))
            raise


def _decoded(summary: ConversationSummary) -> ConversationSummary:
    if not summary.state:
        return summary
    return replace(summary, state={key: decode(data) for key, data in summary.state.items()})


def _found(record: Record | None) -> Record:
    if record is None:
        raise ConversationNotFound
    return record


def refuse_others(record: Record | None, visitor: str | None) -> None:
    """Do as `Repository.check_visitor` with what was loaded."""
    if record is not None and visitor is not None and record.owner not in (None, visitor):
        raise ConversationNotFound


def _log_quarantine(id: str, error: ConversationCorrupt) -> None:
    logger.error("Conversation %s is damaged and was quarantined: %s", ids.hashed_id(id), error)
