"""Opening the conversation that a visitor presents by a token.

What is another owner's is as absent as what does not exist, and so is a conversation without an
owner to a visitor who is logged in, unless their own login noted it: it is claimed then.
"""

from collections.abc import Sequence

from ..conversation.conversation import Conversation, working_copy_of
from ..exceptions import (
    BackendUnavailable,
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationNotFound,
)
from ..store import ConversationStore
from ..tokens import Token
from .visitor import Visitor

ABSENT = (ConversationNotFound, ConversationCorrupt)
_NOT_CLAIMED = (ConversationConflict, ConversationInterrupted)  # others were faster


def presentable(tokens: Sequence[Token], visitor: Visitor | None) -> list[Token]:
    """Return those of the tokens that may be of a visitor's conversation, the owned ones first."""
    if visitor is None:
        return list(tokens)
    return sorted(filter(visitor.may_present, tokens), key=lambda token: not token.is_owned)


def candidates_of(presented: Sequence[Token], visitor: Visitor | None) -> list[Token]:
    """Return what is presented, and what the visitor presented when they logged in: the response
    to the login may have deleted that cookie."""
    noted = () if visitor is None else visitor.noted
    known = {token.id for token in presented}
    return [*presented, *(Token(id, "", is_unsaved=False) for id in noted if id not in known)]


def open_presented(
    store: ConversationStore, tokens: Sequence[Token], visitor: Visitor | None
) -> Conversation | None:
    """Return the first conversation among those of the tokens that the visitor may open; None:
    there is none.

    Raises:
        BackendUnavailable: the store is unavailable, and it is not known here whether they may.
    """
    for token in presentable(tokens, visitor):
        try:
            return open_for(visitor, token, store.get(token.id))
        except ABSENT:
            continue
    return None


async def aopen_presented(
    store: ConversationStore, tokens: Sequence[Token], visitor: Visitor | None
) -> Conversation | None:
    """See `open_presented`."""
    for token in presentable(tokens, visitor):
        try:
            return await aopen_for(visitor, token, await store.aget(token.id))
        except ABSENT:
            continue
    return None


def open_for(visitor: Visitor | None, token: Token, conversation: Conversation) -> Conversation:
    """Return the conversation of a presentable token, claimed if the visitor's login noted it.

    Raises:
        ConversationNotFound: it is not for this visitor.
        BackendUnavailable: as `open_presented` has it.
    """
    if (owner := _owner_to_be(visitor, token, conversation)) is not None:
        try:
            conversation.claim(owner)
        except _NOT_CLAIMED:
            raise _absent() from None
    return conversation


async def aopen_for(
    visitor: Visitor | None, token: Token, conversation: Conversation
) -> Conversation:
    """See `open_for`."""
    if (owner := _owner_to_be(visitor, token, conversation)) is not None:
        try:
            await conversation.aclaim(owner)
        except _NOT_CLAIMED:
            raise _absent() from None
    return conversation


def begin_presented(
    store: ConversationStore, tokens: Sequence[Token], visitor: Visitor | None
) -> Conversation:
    """Return a new conversation of the visitor: under the id that an open websocket of this client
    has for one that is not stored yet, else under a new id."""
    for token in presentable(tokens, visitor):
        if token.is_unsaved and (visitor is None or visitor.may_begin(token)):
            return begin_for(visitor, store, token.id)
    return store.create(None if visitor is None else visitor.owner)


def begin_for(visitor: Visitor | None, store: ConversationStore, id: str) -> Conversation:
    """Return a new conversation under an id that was given out before anything was stored."""
    if visitor is None:
        return store.begin(id)
    conversation = store.begin(id, visitor.owner)
    working_copy_of(conversation).visitor = visitor.owner or ""
    return conversation


def _owner_to_be(visitor: Visitor | None, token: Token, conversation: Conversation) -> str | None:
    """Return the owner that has to claim the conversation; None: it need not be claimed."""
    if visitor is None:
        return None
    copy, owner = working_copy_of(conversation), visitor.owner
    copy.visitor = owner or ""
    if copy.is_unknown:
        if not visitor.may_begin(token):
            raise BackendUnavailable("Cannot verify the owner while the store is unavailable.")
        if token.is_owned:
            copy.owner = owner
        return None
    if copy.owner == owner:
        return None
    if copy.owner is not None or owner is None or token.id not in visitor.noted:
        raise _absent()
    copy.is_noted = True
    return None if copy.degraded else owner  # a claim waits until the store is available


def _absent() -> ConversationNotFound:
    return ConversationNotFound("There is no such conversation.")
