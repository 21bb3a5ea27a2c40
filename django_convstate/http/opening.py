"""Opening the conversation that a visitor presents by a token.

What is another owner's is as absent as what does not exist, and so is a conversation without an
owner to a visitor who is logged in. But one that they presented with their own login is claimed.
"""

from collections.abc import Sequence
from typing import Final

from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.working_copy import WorkingCopy
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


class NotTheirs(ConversationNotFound):
    """It is there, and not for this visitor. Outside of this package that is no difference."""


# So that one request cannot make us look for more conversations than that.
MAX_LOOKUPS: Final = 5


ABSENT_ERRORS = (ConversationNotFound, ConversationCorrupt)
_NOT_CLAIMED = (ConversationConflict, ConversationInterrupted)  # others were faster


def presentable(tokens: Sequence[Token], visitor: Visitor | None) -> list[Token]:
    """Return those of the tokens that may be of a visitor's conversation, the owned ones first."""
    if visitor is None:
        return list(tokens[:MAX_LOOKUPS])
    found = sorted(filter(visitor.may_present, tokens), key=lambda token: not token.is_owned)
    return found[:MAX_LOOKUPS]


def candidates_of(presented: Sequence[Token], visitor: Visitor | None) -> list[Token]:
    """Return what is presented, and what the visitor presented when they logged in: the response
    to the login may have deleted that cookie."""
    claimable = () if visitor is None else visitor.claimable
    known = {token.id for token in presented}
    return [*presented, *(Token(id, "", is_unsaved=False) for id in claimable if id not in known)]


def open_presented(
    store: ConversationStore, tokens: Sequence[Token], visitor: Visitor | None
) -> Conversation:
    """Return the first conversation among those of the tokens that the visitor may open, or a new
    one of theirs: under the id that an open websocket has for one that is not stored yet, if there
    is one, else under a new id.

    Raises:
        BackendUnavailable: the store is unavailable, and it is not known here whether they may.
    """
    absent: list[Token] = []
    for token in presentable(tokens, visitor):
        try:
            return open_for(visitor, token, store.get(token.id))
        except NotTheirs:
            continue
        except ABSENT_ERRORS:
            absent.append(token)
    return _begin(store, absent, visitor)


async def aopen_presented(
    store: ConversationStore, tokens: Sequence[Token], visitor: Visitor | None
) -> Conversation:
    """See `open_presented`."""
    absent: list[Token] = []
    for token in presentable(tokens, visitor):
        try:
            return await aopen_for(visitor, token, await store.aget(token.id))
        except NotTheirs:
            continue
        except ABSENT_ERRORS:
            absent.append(token)
    return _begin(store, absent, visitor)


def _begin(
    store: ConversationStore, absent: Sequence[Token], visitor: Visitor | None
) -> Conversation:
    for token in absent:
        if token.is_unsaved and (visitor is None or visitor.may_begin(token)):
            return begin_for(visitor, store, token.id)
    return create_for(visitor, store)


def create_for(visitor: Visitor | None, store: ConversationStore) -> Conversation:
    """Return a new conversation of the visitor."""
    return _presented_new(visitor, store.create(None if visitor is None else visitor.owner))


def open_for(visitor: Visitor | None, token: Token, conversation: Conversation) -> Conversation:
    """Return the conversation of a presentable token, claimed if it was presented with the login
    of the visitor.

    Raises:
        NotTheirs: it is not for this visitor.
        BackendUnavailable: as `open_presented` has it.
    """
    if (owner := _presented(visitor, token, conversation)) is not None:
        try:
            conversation.claim(owner)
        except _NOT_CLAIMED:
            raise NotTheirs from None
    return conversation


async def aopen_for(
    visitor: Visitor | None, token: Token, conversation: Conversation
) -> Conversation:
    """See `open_for`."""
    if (owner := _presented(visitor, token, conversation)) is not None:
        try:
            await conversation.aclaim(owner)
        except _NOT_CLAIMED:
            raise NotTheirs from None
    return conversation


def begin_for(visitor: Visitor | None, store: ConversationStore, id: str) -> Conversation:
    """Return a new conversation under an id that was given out before anything was stored."""
    return _presented_new(visitor, store.begin(id, None if visitor is None else visitor.owner))


def _presented_new(visitor: Visitor | None, conversation: Conversation) -> Conversation:
    if visitor is not None:
        working_copy_of(conversation).present_to(visitor.owner)
    return conversation


def _presented(visitor: Visitor | None, token: Token, conversation: Conversation) -> str | None:
    """Present a conversation to a visitor. Return the owner that has to claim it; None: it need not
    be claimed.

    Raises as `open_for` does.
    """
    if visitor is None:
        return None
    copy = working_copy_of(conversation)
    has_to_claim = _has_to_claim(visitor, token, copy)
    copy.present_to(visitor.owner, is_attested=has_to_claim or copy.is_unknown)
    return visitor.owner if has_to_claim else None


def _has_to_claim(visitor: Visitor, token: Token, copy: WorkingCopy) -> bool:
    is_claimable = copy.owner is None and token.id in visitor.claimable
    if copy.is_unknown and copy.owner is None and not (len(copy.state) or len(copy.log)):
        may_open = visitor.may_begin(token)  # the token, or their login, attests that
    else:
        may_open = is_claimable or copy.owner == visitor.owner
    if not may_open and copy.degraded and visitor.owner is not None:
        # What is known here may be from before they claimed it, or said since by another.
        raise BackendUnavailable("Cannot verify the owner while the store is unavailable.")
    if not may_open:
        raise NotTheirs
    return is_claimable and not copy.is_unknown  # which is claimed with what is saved next
