"""Where conversations come from: created, found, listed and deleted by their ids.

A twin differs from its method by the await alone.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Unpack

from . import conf, ids
from .backends.base import ConversationStateBackend
from .backends.records import (
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
from .conversation.templating import alters_data
from .conversation.working_copy import WorkingCopy
from .exceptions import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationNotFound,
    InvalidBackend,
    InvalidConversationValue,
)
from .repository import Repository
from .typing import StoreOptions

# Says that no owner was asked for. Not None, because that is what a view has for a visitor who is
# not logged in, and must not match every conversation.
_ANYBODY: Final[Any] = object()


class ConversationStore:
    """Creates, finds, lists and deletes conversations.

    `django_convstate.conversations` is the one that the settings describe. Make one of your own for
    conversations that live elsewhere or by other rules:

        support = ConversationStore("cache", cache_alias="support", ttl=86400)
    """

    def __init__(
        self,
        backend: ConversationStateBackend | str | None = None,
        **options: Unpack[StoreOptions],
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
        self._repository = Repository(self, backend, options)

    @property
    def backend(self) -> ConversationStateBackend:
        """Where the conversations are kept."""
        return self._repository.backend

    @property
    def options(self) -> conf.Options:
        """The settings in force for this store."""
        return self._repository.options

    def create(self, owner: str | None = None, ttl: float | None = None) -> Conversation:
        """Return a new, empty conversation. It is stored when it is saved with something in it.

        Args:
            owner: of the conversation; for a user, str(user.pk). None: it has no owner.
            ttl: idle seconds after which it goes; None: the setting TTL.
        """
        _check_ttl(ttl)
        if owner is not None:
            ids.validate_owner(owner)
        return self._begin(ids.new_id(), owner, ttl, Create.MUST_BE_NEW)

    def begin(self, id: str) -> Conversation:
        """Return an empty conversation under a given id, without a load. When it is saved, it is
        created, or added to what others have stored there meanwhile.

        For an id that was given out before anything was stored: see `tokens.is_unsaved`.

        Raises:
            InvalidConversationId: the id cannot be the id of a conversation.
        """
        return self._begin(ids.validate_id(id), None, None, Create.EITHER)

    def get(self, id: str, *, owner: str | None = _ANYBODY) -> Conversation:
        """Return a stored conversation.

        Args:
            id: its id. If it comes from outside, say who has to be its owner:
            owner: another owner's conversation, or one without an owner, counts as absent. None, as
                for a visitor who is not logged in, matches none.

        Raises:
            ConversationNotFound: there is none.
            ConversationCorrupt: there was something, but no conversation; it was quarantined.
            InvalidConversationId, InvalidConversationType: there cannot be one.
        """
        if owner is not _ANYBODY and owner is not None:
            ids.validate_owner(owner)
        options = self._repository.options
        return self._loaded(self._repository.load(id, options.window), owner, options)

    async def aget(self, id: str, *, owner: str | None = _ANYBODY) -> Conversation:
        """See `get`."""
        if owner is not _ANYBODY and owner is not None:
            ids.validate_owner(owner)
        options = self._repository.options
        return self._loaded(await self._repository.aload(id, options.window), owner, options)

    def open(self, id: str) -> Conversation:
        """Return the conversation with this id, new if there is none.

        For trusted code only, with ids that no client can choose: a webhook's "whatsapp:+15550100".
        """
        try:
            return self.get(id)
        except (ConversationNotFound, ConversationCorrupt):
            return self.begin(id)

    async def aopen(self, id: str) -> Conversation:
        """See `open`."""
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
        """See `append`."""
        conversation = self.begin(id)
        conversation.messages.append(role, content, **extra)
        await conversation.asave()

    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation. Does not prolong its life."""
        return self._repository.exists(id)

    async def aexists(self, id: str) -> bool:
        """See `exists`."""
        return await self._repository.aexists(id)

    def delete(self, id: str) -> bool:
        """Delete a conversation. False: there is none."""
        return self._repository.delete(id)

    async def adelete(self, id: str) -> bool:
        """See `delete`."""
        return await self._repository.adelete(id)

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Start a conversation's time to live anew, with a new one in seconds if given. False:
        there is none."""
        _check_ttl(ttl)
        return self._repository.touch(id, ttl)

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        """See `touch`."""
        _check_ttl(ttl)
        return await self._repository.atouch(id, ttl)

    def list(self, owner: str | None = None) -> Iterator[ConversationSummary]:
        """Yield what is stored (of one owner), newest activity first where the backend can.

        Raises:
            InvalidBackend: the backend cannot list.
        """
        return self._repository.scan(owner)

    @alters_data
    def alist(self, owner: str | None = None) -> AsyncIterator[ConversationSummary]:
        """See `list`."""
        return self._repository.ascan(owner)

    @alters_data
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
        return self._repository.purge(
            selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    @alters_data
    async def apurge(
        self,
        idle_for: float | None = None,
        owner: str | None = None,
        everything: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
        batch_size: int = 500,
    ) -> PurgeReport:
        """See `purge`."""
        selection = _selection(idle_for, owner, everything)
        _check_batch_size(batch_size)
        return await self._repository.apurge(
            selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    def health(self) -> Health:
        """Make a round trip to the backend and tell how it is. An outage is no error here."""
        return self._repository.health()

    @alters_data
    async def ahealth(self) -> Health:
        """See `health`."""
        return await self._repository.ahealth()

    @alters_data
    def close(self) -> None:
        """Let go of connections; the next use makes new ones."""
        self._repository.close()

    @alters_data
    async def aclose(self) -> None:
        """See `close`."""
        await self._repository.aclose()

    def _begin(self, id: str, owner: str | None, ttl: float | None, create: Create) -> Conversation:
        copy = WorkingCopy(self._repository.options)
        copy.begin(id, owner=owner, ttl=ttl, create=create)
        return Conversation(self._repository, copy)

    def _loaded(self, record: Record, owner: str | None, options: conf.Options) -> Conversation:
        if owner is not _ANYBODY:
            _check_owner(record, owner)
        copy = WorkingCopy(options)
        copy.load(record)
        return Conversation(self._repository, copy)


def _check_owner(record: Record, owner: str | None) -> None:
    if record.degraded and not record.version:
        raise BackendUnavailable("Cannot verify the owner while the store is unavailable.")
    if owner is None or owner != record.owner:
        raise ConversationNotFound("There is no such conversation.")


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
