"""`scope["conversation"]`: which conversation a websocket means, for as long as it is open."""

import json
from collections.abc import Generator
from typing import Any, NoReturn

from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpResponse

from .. import ids, tokens
from ..conversation.conversation import Conversation
from ..exceptions import ConversationCorrupt, ConversationNotFound, InvalidConversationId
from ..http import identity
from ..identity import SUBPROTOCOL
from ..store import ConversationStore
from . import handshake

TOKEN_MESSAGE = "conversation.token"  # noqa: S105 - what such a message is called


class ScopeConversation:
    """The door to a conversation, and not the conversation itself: a socket may be open for days,
    and what was loaded when it was opened is history by then.

        conversation = await scope["conversation"]      # in async code
        conversation = scope["conversation"].load()     # in sync code

    Each time it is loaded afresh. Save it with `asave()` or `save()`; nobody else does, except in
    an `AsyncConversationConsumer`, which loads and saves for you.

    A new cookie can go out with the handshake only. So in a consumer of your own load once before
    `accept()`: then a client whose conversation has expired begins anew, as it does over HTTP.
    Later, and for a token that was presented by hand, it is `ConversationNotFound`.
    """

    # No more than this is kept of a conversation while a socket is idle.
    __slots__ = ("_by_hand", "_may_begin", "_refused", "_store", "_was_answered", "id", "is_open")

    def __init__(self, scope: handshake.Scope, store: ConversationStore) -> None:
        self._store = store
        self.is_open = False
        self._was_answered = False
        token = handshake.subprotocol_token(scope)
        if token is not None:
            self.present(token)
            return
        request = handshake.request_of(scope)
        id = identity.presented_id(request, store.options)
        token = identity.presented_token(request, store.options)
        self._by_hand = self._refused = False
        # Whether it may be absent because nothing was said yet.
        self._may_begin = id is None or tokens.is_unsaved(token or "")
        self.id = id or ids.new_id()

    def present(self, token: str) -> None:
        """Mean the conversation of a token that was presented by hand, whatever the cookie says."""
        id = tokens.unsign_token(token)
        self._by_hand, self._refused = True, id is None
        self._may_begin = tokens.is_unsaved(token)
        self.id = id or ids.new_id()

    @property
    def ttl(self) -> float:
        """How long a new conversation may be idle, in seconds."""
        return self._store.options.ttl

    def load(self) -> Conversation:
        """Load the conversation; a new one, if nothing was said yet.

        Raises:
            InvalidConversationId: the token presented by hand is none of ours.
            ConversationNotFound: it is gone, and the client cannot be told of another one.
            ConversationCorrupt: what was stored is damaged, and likewise.
            BackendUnavailable: the store did not answer.
        """
        self._check()
        try:
            conversation = self._store.get(self.id)
        except (ConversationNotFound, ConversationCorrupt):
            if not self._begins():
                raise
            return self._new()
        self._may_begin = False
        return conversation

    async def aload(self) -> Conversation:
        self._check()
        try:
            conversation = await self._store.aget(self.id)
        except (ConversationNotFound, ConversationCorrupt):
            if not self._begins():
                raise
            return self._new()
        self._may_begin = False
        return conversation

    def __await__(self) -> Generator[Any, None, Conversation]:
        return self.aload().__await__()

    def touch(self) -> None:
        """Start its time to live anew, if anything is stored.

        Raises:
            ConversationNotFound: it is gone.
            BackendUnavailable: the store did not answer.
        """
        if not self._may_begin and not self._store.touch(self.id):
            raise ConversationNotFound("The conversation of this socket is gone.")

    async def atouch(self) -> None:
        if not self._may_begin and not await self._store.atouch(self.id):
            raise ConversationNotFound("The conversation of this socket is gone.")

    def note_saved(self, conversation: Conversation) -> None:
        """Take note that the conversation is stored, if it is: from now on absent means gone."""
        if not conversation.is_new:
            self._may_begin = False

    def answer(self, scope: handshake.Scope, accept: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the `websocket.accept` that tells the client which conversation it is in, and
        what else to send: its token, if it offered our subprotocol and presented none.

        It is either the cookie or this message. A script that cannot read the cookie should not
        be able to ask for its token.
        """
        self.is_open = self._was_answered = True
        options = self._store.options
        knows_us = handshake.offers_subprotocol(scope)
        if knows_us and not accept.get("subprotocol"):
            accept = accept | {"subprotocol": SUBPROTOCOL}
        if self._by_hand:
            return [accept]
        token = tokens.sign_id(self.id, unsaved=self._may_begin)
        request = handshake.request_of(scope)
        if knows_us and not identity.presented_token(request, options):
            text = json.dumps({"type": TOKEN_MESSAGE, "token": token})
            return [accept, {"type": "websocket.send", "text": text}]
        response = HttpResponse()
        identity.set_token(request, response, token, options)
        headers = [*accept.get("headers", ()), *handshake.headers_of(response)]
        return [accept | {"headers": headers}] if headers else [accept]

    def _check(self) -> None:
        if self._refused:
            raise InvalidConversationId("The token that was presented is none of ours.")

    def _begins(self) -> bool:
        return self._may_begin or not (self._by_hand or self._was_answered)

    def _new(self) -> Conversation:
        if not self._may_begin:
            # It is gone. Nobody is left under its id, and the new one goes out with the handshake.
            self.id, self._may_begin = ids.new_id(), True
        return self._store.begin(self.id)

    # What is the conversation's own business.

    def _forgotten(self, *args: object) -> NoReturn:
        raise SynchronousOnlyOperation(
            'scope["conversation"] is not loaded: a websocket loads its conversation afresh for '
            'each message. Write `conversation = await scope["conversation"]`, or in sync code '
            '`conversation = scope["conversation"].load()`.'
        )

    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = _forgotten

    def __getattr__(self, name: str) -> Any:
        if hasattr(Conversation, name):
            self._forgotten()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", obj=self)

    def __repr__(self) -> str:
        return f"<ScopeConversation {ids.hashed_id(self.id)}>"
