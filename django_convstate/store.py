"""Where conversations come from: created, found, listed and deleted by their ids.

A twin differs from its method by the await alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Unpack

from . import conf, ids
from .administration import StoreAdministration
from .backends.base import ConversationStateBackend
from .backends.records import Create, Record
from .codec import JSON
from .conversation.arguments import check_ttl, check_version
from .conversation.conversation import Conversation, working_copy_of
from .conversation.working_copy import WorkingCopy
from .exceptions import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationNotFound,
    InvalidBackend,
    InvalidConversationId,
)
from .ids import Owner
from .repository import Repository
from .tracebacks import clears_locals

# Says that no owner was asked for. Not None, because that is what a view has for a visitor who is
# not logged in, and must not match every conversation.
ANYBODY: Final[Any] = object()


@clears_locals
class ConversationStore(StoreAdministration):
    """Creates, finds, lists and deletes conversations.

    `django_convstate.conversations` is the one that the settings describe. Make one of your own for
    conversations that live elsewhere or by other rules:

        support = ConversationStore("cache", cache_alias="support", ttl=86400)
    """

    def __init__(
        self,
        backend: ConversationStateBackend | str | None = None,
        **options: Unpack[conf.StoreOptions],
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

    def create(
        self, owner: Owner = None, ttl: float | None = None, id: str | None = None
    ) -> Conversation:
        """Return a new, empty conversation. It is stored when it is saved with something in it.

        Args:
            owner: of the conversation, a string or a user. None, or an anonymous user: no owner.
            ttl: idle seconds after which it goes, `math.inf`: never; None: the setting TTL.
            id: its id, which must not be taken when it is saved; None: a random one.

        Raises:
            InvalidConversationValue, InvalidConversationType, InvalidConversationId: one of these
                cannot be what it is given as.
        """
        new_id = ids.new_id() if id is None else ids.validate_id(id)
        return self._begin(new_id, ids.owner_of(owner), ttl, Create.MUST_BE_NEW)

    def begin(self, id: str, owner: Owner = None) -> Conversation:
        """Return an empty conversation under a given id, without a load. When it is saved, it is
        created, or added to what others have stored there meanwhile; but what was deleted less than
        a day ago is not begun again.

        For an id that was given out before anything was stored: see `tokens.Token.is_unsaved`.
        Arguments and errors are those of `create`.
        """
        id, owned = ids.validate_id(id), ids.owner_of(owner)
        return self._begin(id, owned, None, Create.EITHER, unless_deleted=True)

    def get(self, id: str, *, owner: Owner = ANYBODY) -> Conversation:
        """Return a stored conversation.

        Args:
            id: its id. If it comes from outside, say who has to be its owner:
            owner: a string or a user. Another owner's conversation, or one without an owner, counts
                as absent, and so does an id that cannot be one. None, or an anonymous user, matches
                none.

        Raises:
            ConversationNotFound: there is none.
            ConversationCorrupt: there was something, but no conversation; it was quarantined.
            InvalidConversationId, InvalidConversationType: there cannot be one.
        """
        options = self._repository.options
        if owner is ANYBODY:
            return self._loaded(self._repository.load(id, options.window), ANYBODY, options)
        owned = _expected_owner(id, owner)
        record = self._repository.load(id, options.window)
        return self._loaded(_checked(record, owned), owned, options)

    async def aget(self, id: str, *, owner: Owner = ANYBODY) -> Conversation:
        """See `get`."""
        options = self._repository.options
        if owner is ANYBODY:
            return self._loaded(await self._repository.aload(id, options.window), ANYBODY, options)
        owned = _expected_owner(id, owner)
        record = await self._repository.aload(id, options.window)
        return self._loaded(_checked(record, owned), owned, options)

    def peek(self, id: str, *, owner: Owner = ANYBODY) -> Conversation:
        """Return a stored conversation to read only: neither its time to live starts anew nor does
        its `last_accessed` change. Saving it raises `ConversationConflict`. Arguments and errors
        are those of `get`."""
        owned = _expected_owner(id, owner)
        options = self._repository.options
        return self._loaded(
            _checked(self._repository.peek(id), owned), owned, options, read_only=True
        )

    async def apeek(self, id: str, *, owner: Owner = ANYBODY) -> Conversation:
        """See `peek`."""
        owned = _expected_owner(id, owner)
        options = self._repository.options
        return self._loaded(
            _checked(await self._repository.apeek(id), owned), owned, options, read_only=True
        )

    def open(
        self, id: str, *, owner: Owner = ANYBODY, ttl: float | None = None, strict: bool = False
    ) -> Conversation:
        """Return the conversation with this id, new if there is none.

        For ids that no client can choose, such as a webhook's "whatsapp:+15550100"; `key` makes one
        of anything. Where a client can, say who has to be its owner.

        Args:
            id: its id.
            owner: of a new one; another owner's counts as absent, and cannot be begun either. None,
                or an anonymous user: only a conversation without an owner.
            ttl: idle seconds of a new one; None: the setting TTL.
            strict: in an outage, raise rather than go on without the history.

        Raises:
            ConversationNotFound: it is another owner's.
            BackendUnavailable: `strict`, and its history is not known.
            InvalidConversationValue, InvalidConversationType, InvalidConversationId: one of these
                cannot be what it is given as.
        """
        owned = _expected_owner(id, owner)
        check_ttl(ttl)
        options = self._repository.options
        try:
            record = self._repository.load(id, options.window)
        except (ConversationNotFound, ConversationCorrupt):
            return self._opened_anew(id, owned, ttl)
        return self._opened(record, owned, options, strict, ttl)

    async def aopen(
        self, id: str, *, owner: Owner = ANYBODY, ttl: float | None = None, strict: bool = False
    ) -> Conversation:
        """See `open`."""
        owned = _expected_owner(id, owner)
        check_ttl(ttl)
        options = self._repository.options
        try:
            record = await self._repository.aload(id, options.window)
        except (ConversationNotFound, ConversationCorrupt):
            return self._opened_anew(id, owned, ttl)
        return self._opened(record, owned, options, strict, ttl)

    def key(self, *parts: object) -> str:
        """Return a valid id for any text, number or UUID, or for several of them, the same one each
        time: `conversations.open(conversations.key("slack", team, channel))`.

        Raises:
            InvalidConversationType: a part is something else.
        """
        return ids.key_id(*parts)

    def append(
        self,
        conversation_id: str,
        /,
        role: str,
        content: JSON,
        *,
        id: str | None = None,
        owner: Owner = None,
        ttl: float | None = None,
        **extra: JSON,
    ) -> bool:
        """Add a message to the conversation with this id, new if there is none, without loading it:
        one round trip. For trusted code only, as `open`.

        Args:
            role, content, id, extra: see `Messages.append`. With an id, this may be repeated.
            owner: take the conversation for this owner; None: leave its owner alone.
            ttl: idle seconds of a new one; None: the setting TTL.

        Returns:
            False: there is a message with that id already.

        Raises:
            InvalidConversationValue, ConversationTooLarge: nothing was sent; or it was full.
            ConversationConflict: it is another owner's.
            BackendUnavailable: it may or may not be there.
        """
        conversation = self._unloaded(conversation_id, owner, ttl)
        message_id = conversation.messages.append(role, content, id=id, **extra)
        conversation.save()
        return message_id not in working_copy_of(conversation).existing

    async def aappend(
        self,
        conversation_id: str,
        /,
        role: str,
        content: JSON,
        *,
        id: str | None = None,
        owner: Owner = None,
        ttl: float | None = None,
        **extra: JSON,
    ) -> bool:
        """See `append`."""
        conversation = self._unloaded(conversation_id, owner, ttl)
        message_id = conversation.messages.append(role, content, id=id, **extra)
        await conversation.asave()
        return message_id not in working_copy_of(conversation).existing

    def extend(
        self,
        conversation_id: str,
        /,
        items: Iterable[dict[str, JSON]],
        *,
        owner: Owner = None,
        ttl: float | None = None,
    ) -> Sequence[str]:
        """Add JSON objects as they are, all or none, and return their ids. One round trip; see
        `append` and `Messages.extend`."""
        conversation = self._unloaded(conversation_id, owner, ttl)
        message_ids = conversation.messages.extend(items)
        conversation.save()
        return message_ids

    async def aextend(
        self,
        conversation_id: str,
        /,
        items: Iterable[dict[str, JSON]],
        *,
        owner: Owner = None,
        ttl: float | None = None,
    ) -> Sequence[str]:
        """See `extend`."""
        conversation = self._unloaded(conversation_id, owner, ttl)
        message_ids = conversation.messages.extend(items)
        await conversation.asave()
        return message_ids

    def exists(self, id: str) -> bool:
        """Tell whether there is such a conversation. Does not prolong its life."""
        return self._repository.exists(id)

    async def aexists(self, id: str) -> bool:
        """See `exists`."""
        return await self._repository.aexists(id)

    def delete(self, id: str, *, expected_version: int | None = None) -> bool:
        """Delete a conversation. False: there is none.

        Raises:
            ConversationConflict: `expected_version` is given and is not the stored one.
        """
        return self._repository.delete(id, check_version(expected_version))

    async def adelete(self, id: str, *, expected_version: int | None = None) -> bool:
        """See `delete`."""
        return await self._repository.adelete(id, check_version(expected_version))

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """Start a conversation's time to live anew, with a new one in seconds if given. False:
        there is none."""
        return self._repository.touch(id, check_ttl(ttl))

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        """See `touch`."""
        return await self._repository.atouch(id, check_ttl(ttl))

    def _begin(
        self,
        id: str,
        owner: str | None,
        ttl: float | None,
        create: Create,
        *,
        visitor: str | None = None,
        unless_deleted: bool = False,
    ) -> Conversation:
        copy = WorkingCopy(self._repository.options)
        copy.begin(
            id, owner=owner, ttl=check_ttl(ttl), create=create, unless_deleted=unless_deleted
        )
        copy.visitor = visitor
        return Conversation(self._repository, copy)

    def _unloaded(self, id: str, owner: Owner, ttl: float | None) -> Conversation:
        """Return a conversation that is to be added to without a load, and without an answer that
        has what others have added."""
        owned = ids.owner_of(owner)
        visitor = None if owner is None else owned or ""
        conversation = self._begin(ids.validate_id(id), owned, ttl, Create.EITHER, visitor=visitor)
        working_copy_of(conversation).window = 0
        return conversation

    def _loaded(
        self, record: Record, owner: Any, options: conf.Options, *, read_only: bool = False
    ) -> Conversation:
        copy = WorkingCopy(options)
        copy.load(record)
        copy.is_read_only = read_only
        if owner is not ANYBODY:
            copy.visitor = owner or ""
        return Conversation(self._repository, copy)

    def _opened(
        self, record: Record, owner: Any, options: conf.Options, strict: bool, ttl: float | None
    ) -> Conversation:
        is_theirs = owner is ANYBODY or (owner == record.owner and not record.is_unknown)
        if (record.degraded and not is_theirs) or (record.is_unknown and strict):
            raise BackendUnavailable(
                "The store is unavailable, and nothing is known here of this conversation."
            )
        if not is_theirs:
            raise ConversationNotFound
        if ttl is not None and record.is_unknown:  # it may be a new one
            record.ttl = ttl
        return self._loaded(record, owner, options)

    def _opened_anew(self, id: str, owner: Any, ttl: float | None) -> Conversation:
        owned = None if owner is ANYBODY else owner
        visitor = None if owner is ANYBODY else owner or ""
        return self._begin(id, owned, ttl, Create.EITHER, visitor=visitor)


def _expected_owner(id: str, owner: Owner) -> Any:
    """Return who has to be the owner of a conversation; `ANYBODY`, if that does not matter.

    Raises:
        ConversationNotFound: an owner is asked for, so the id is from outside, and cannot be one.
    """
    if owner is ANYBODY:
        return ANYBODY
    owned = ids.owner_of(owner)
    try:
        ids.validate_id(id)
    except InvalidConversationId:
        raise ConversationNotFound from None
    return owned


def _checked(record: Record, owner: Any) -> Record:
    if owner is not ANYBODY and (owner is None or owner != record.owner):
        if record.degraded and owner is not None:  # another's looks like one that is not known here
            raise BackendUnavailable("Cannot verify the owner while the store is unavailable.")
        raise ConversationNotFound
    return record


conversations = ConversationStore()
