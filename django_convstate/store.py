"""Where Conversations come from: ids are checked here, records become Conversations, and what the
backend cannot make sense of is reported. A twin differs from its method by the await alone.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from . import conf, ids, signals
from .backends import backend_class, building, default_backend, get_backend, options_of
from .backends.base import ConversationStateBackend
from .backends.records import (
    Acquired,
    Change,
    Committed,
    ConversationSummary,
    Create,
    Health,
    Progress,
    PurgeReport,
    Record,
    Selection,
)
from .codec import JSON
from .conversation.conversation import Conversation
from .exceptions import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationNotFound,
    InvalidBackend,
    InvalidConversationValue,
)

logger = logging.getLogger("django_convstate")

# Says that no owner was asked for. Not None, because that is what a view has for its visitor when
# nobody is logged in, and must not open every door.
_ANYBODY: Final[Any] = object()

_Encoded = list[bytes]  # `list` is a method in the class below


class ConversationStore:
    """Creates, finds, lists and deletes conversations.

    `django_convstate.conversations` is the one that the settings describe. Make one of your own for
    conversations that live elsewhere or by other rules:

        support = ConversationStore("cache", cache_alias="support", ttl=86400)
    """

    def __init__(
        self, backend: ConversationStateBackend | str | None = None, **options: Any
    ) -> None:
        """Describe a store; nothing is connected or built before it is used.

        Args:
            backend: a backend, its name or dotted path; None: as the settings say.
            options: keys of CONVERSATION_STATE in lower case, over what is set there.

        Raises:
            InvalidBackend: the options are for building a backend, and this one is built already.
        """
        if isinstance(backend, ConversationStateBackend) and (
            surplus := options.keys() & set(backend.option_names)
        ):
            raise InvalidBackend(
                f"{', '.join(sorted(surplus))}: give that to the backend when you make it."
            )
        self._backend = backend
        self._overrides = options
        self._resolved: tuple[conf.Options, conf.Options] | None = None

    @property
    def backend(self) -> ConversationStateBackend:
        """Where the conversations are kept."""
        backend = self._backend
        if isinstance(backend, ConversationStateBackend):
            return backend
        name = conf.backend_name() if backend is None else backend
        own = self._overrides.keys() & set(options_of(backend_class(name)))
        if backend is None and not own:
            return default_backend()
        with building:
            if not isinstance(self._backend, ConversationStateBackend):
                options = {option: self._overrides[option] for option in own}
                self._backend = get_backend(name, **options)
            return self._backend

    @property
    def options(self) -> conf.Options:
        """The settings in force for this store."""
        base = conf.current()
        if not self._overrides:
            return base
        if self._resolved is None or self._resolved[0] is not base:
            self._resolved = base, conf.with_overrides(base, self._overrides)
        return self._resolved[1]

    def create(self, owner: str | None = None, ttl: float | None = None) -> Conversation:
        """Return a new, empty conversation. It is stored when it is saved with something in it.

        Args:
            owner: whose it is.
            ttl: idle seconds after which it goes; None: the setting TTL.
        """
        _check_ttl(ttl)
        if owner is not None:
            ids.validate_owner(owner)
        return Conversation(self, ids.new_id(), owner=owner, ttl=ttl)

    def begin(self, id: str) -> Conversation:
        """Return an empty conversation under a given id, without a load. When it is saved, it is
        created, or added to what others have stored there meanwhile.

        For an id that was given out before anything was stored: see `tokens.is_unsaved`.

        Raises:
            InvalidConversationId: the id cannot be the id of a conversation.
        """
        return Conversation(self, ids.validate_id(id), create=Create.EITHER)

    def get(self, id: str, *, owner: str | None = _ANYBODY) -> Conversation:
        """Return a stored conversation.

        Args:
            id: its id. If it comes from outside, say whose it has to be:
            owner: everybody else's conversation, and nobody's, counts as absent. None, as for a
                visitor who is not logged in, matches none.

        Raises:
            ConversationNotFound: there is none.
            ConversationCorrupt: there was something, but no conversation; it was set aside.
            InvalidConversationId, InvalidConversationType: there cannot be one.
        """
        _check_wanted(owner)
        return Conversation(self, id, _owned(self.load(id), owner))

    async def aget(self, id: str, *, owner: str | None = _ANYBODY) -> Conversation:
        _check_wanted(owner)
        return Conversation(self, id, _owned(await self.aload(id), owner))

    def open(self, id: str) -> Conversation:
        """Return the conversation with this id, new if there is none.

        For trusted code only, with ids that nobody can choose: a webhook's "whatsapp:+15550100".
        """
        try:
            return self.get(id)
        except (ConversationNotFound, ConversationCorrupt):
            return self.begin(id)

    async def aopen(self, id: str) -> Conversation:
        try:
            return await self.aget(id)
        except (ConversationNotFound, ConversationCorrupt):
            return self.begin(id)

    def append(self, id: str, role: str, content: JSON, **extra: JSON) -> None:
        """Add a message to the conversation with this id, new if there is none, without loading it:
        one round trip. For trusted code only, as `open`. How many messages there are already is not
        known then, so that MAX_MESSAGES does not count.

        Args:
            role, content, extra: see `Messages.append`.

        Raises:
            InvalidConversationValue, ConversationTooLarge: nothing was sent.
            BackendUnavailable: it may or may not be there. Called again, it would be another one.
        """
        conversation = self.begin(id)
        conversation.messages.append(role, content, **extra)
        conversation.save()

    async def aappend(self, id: str, role: str, content: JSON, **extra: JSON) -> None:
        conversation = self.begin(id)
        conversation.messages.append(role, content, **extra)
        await conversation.asave()

    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation. Does not prolong its life."""
        with _Reporting(self, id):
            return self.backend.exists(id)

    async def aexists(self, id: str) -> bool:
        async with _Reporting(self, id):
            return await self.backend.aexists(id)

    def delete(self, id: str) -> bool:
        """Delete a conversation. False: there is none."""
        with _Reporting(self, id):
            deleted = self.backend.delete(id)
        if deleted:
            signals.conversation_deleted.send_robust(self, id=id)
        return deleted

    async def adelete(self, id: str) -> bool:
        async with _Reporting(self, id):
            deleted = await self.backend.adelete(id)
        if deleted:
            await signals.conversation_deleted.asend_robust(self, id=id)
        return deleted

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Start a conversation's time to live anew, with a new one in seconds if given. False:
        there is none."""
        _check_ttl(ttl)
        with _Reporting(self, id):
            return self.backend.touch(id, ttl)

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        _check_ttl(ttl)
        async with _Reporting(self, id):
            return await self.backend.atouch(id, ttl)

    def list(self, owner: str | None = None) -> Iterator[ConversationSummary]:
        """Yield what is stored (of one owner), newest activity first where the backend can.

        Raises:
            InvalidBackend: the backend cannot list.
        """
        return self.backend.scan(owner)

    async def alist(self, owner: str | None = None) -> AsyncIterator[ConversationSummary]:
        async for summary in self.backend.ascan(owner):
            yield summary

    def purge(
        self,
        idle_for: float | None = None,
        owner: str | None = None,
        everything: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
        batch_size: int = 500,
    ) -> PurgeReport:
        """Delete what has expired; or what was idle for `idle_for` seconds, belongs to `owner`, or
        both; or everything. In a dry run, only count it.

        Raises:
            InvalidConversationValue: a selection that makes no sense.
            InvalidBackend: the backend cannot find them.
        """
        selection = _selection(idle_for, owner, everything)
        _check_batch_size(batch_size)
        return self.backend.purge(
            selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    async def apurge(
        self,
        idle_for: float | None = None,
        owner: str | None = None,
        everything: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
        batch_size: int = 500,
    ) -> PurgeReport:
        selection = _selection(idle_for, owner, everything)
        _check_batch_size(batch_size)
        return await self.backend.apurge(
            selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    def health(self) -> Health:
        """Make a round trip to the backend and tell how it is. An outage is no error here."""
        return self.backend.health()

    async def ahealth(self) -> Health:
        return await self.backend.ahealth()

    def close(self) -> None:
        """Let go of connections; the next use makes new ones."""
        self.backend.close()

    async def aclose(self) -> None:
        await self.backend.aclose()

    # What a Conversation asks of its store.

    def load(self, id: str, window: int | None = None) -> Record:
        with _Reporting(self, id):
            return _found(self.backend.load(id, window or self.options.window))

    async def aload(self, id: str, window: int | None = None) -> Record:
        async with _Reporting(self, id):
            return _found(await self.backend.aload(id, window or self.options.window))

    def commit(self, id: str, change: Change) -> Committed:
        with _Reporting(self, id):
            return self.backend.commit(id, change)

    async def acommit(self, id: str, change: Change) -> Committed:
        async with _Reporting(self, id):
            return await self.backend.acommit(id, change)

    def read_messages(self, id: str, start: int, stop: int) -> _Encoded:
        with _Reporting(self, id):
            return self.backend.read_messages(id, start, stop)

    async def aread_messages(self, id: str, start: int, stop: int) -> _Encoded:
        async with _Reporting(self, id):
            return await self.backend.aread_messages(id, start, stop)

    def acquire(self, id: str, lease: str, seconds: float) -> Acquired:
        with _Reporting(self, id):
            return self.backend.acquire(id, lease, seconds, self.options.window)

    async def aacquire(self, id: str, lease: str, seconds: float) -> Acquired:
        async with _Reporting(self, id):
            return await self.backend.aacquire(id, lease, seconds, self.options.window)

    def announce_saved(self, conversation: Conversation, created: bool) -> None:
        if created:
            signals.conversation_created.send_robust(self, conversation=conversation)
        signals.conversation_saved.send_robust(self, conversation=conversation)

    async def aannounce_saved(self, conversation: Conversation, created: bool) -> None:
        if created:
            await signals.conversation_created.asend_robust(self, conversation=conversation)
        await signals.conversation_saved.asend_robust(self, conversation=conversation)


class _Reporting:
    """Tells, once, that the backend has set something aside. For `with` and for `async with`."""

    __slots__ = ("_id", "_store")

    def __init__(self, store: ConversationStore, id: str) -> None:
        self._store = store
        self._id = ids.validate_id(id)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ConversationCorrupt):
            self._log(error)
            signals.conversation_quarantined.send_robust(self._store, id=self._id)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ConversationCorrupt):
            self._log(error)
            await signals.conversation_quarantined.asend_robust(self._store, id=self._id)

    def _log(self, error: ConversationCorrupt) -> None:
        logger.error(
            "Conversation %s is damaged, and not served: %s", ids.hashed_id(self._id), error
        )


def _found(record: Record | None) -> Record:
    if record is None:
        raise ConversationNotFound("There is no such conversation.")
    return record


def _check_wanted(owner: str | None) -> None:
    if owner is not _ANYBODY and owner is not None:
        ids.validate_owner(owner)


def _owned(record: Record, owner: str | None) -> Record:
    if owner is _ANYBODY:
        return record
    if record.degraded and not record.version:
        raise BackendUnavailable("Whose conversation this is, only the store knows that is away.")
    return _found(record if owner is not None and owner == record.owner else None)


def _check_ttl(ttl: float | None) -> None:
    if ttl is not None and (problem := conf.seconds(ttl)):
        raise InvalidConversationValue(f"ttl {problem}.")


def _selection(idle_for: float | None, owner: str | None, everything: bool) -> Selection:
    if idle_for is not None and (problem := conf.seconds(idle_for)):
        raise InvalidConversationValue(f"idle_for {problem}.")
    if owner is not None:
        ids.validate_owner(owner)
    if everything and not (idle_for is None and owner is None):
        raise InvalidConversationValue("everything does not go with idle_for or owner.")
    return Selection(idle_for=idle_for, owner=owner, everything=bool(everything))


def _check_batch_size(batch_size: int) -> None:
    if type(batch_size) is not int or batch_size < 1:
        raise InvalidConversationValue("batch_size must be a whole number of at least 1.")


conversations = ConversationStore()
