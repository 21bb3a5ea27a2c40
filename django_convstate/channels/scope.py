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
from ..tracebacks import clears_locals
from . import handshake

TOKEN_MESSAGE = "conversation.token"  # noqa: S105 - the type of a message that carries a token


@clears_locals
class ScopeConversation:
    """A handle of a conversation, not the conversation itself: a socket may be open for days, and
    what was loaded when it was opened is out of date by then.

        conversation = await scope["conversation"]      # in async code
        conversation = scope["conversation"].load()     # in sync code

    Each time it is loaded afresh. Save it with `asave()` or `save()`; nothing else saves it, except
    an `AsyncConversationConsumer`, which loads and saves for you.

    A new cookie can be sent only with the handshake. So in a consumer of your own load once before
    `accept()`: then a client whose conversation has expired gets a new one, as it does over HTTP.
    Later, and for a token that the client presented itself, it is `ConversationNotFound`.
    """

    # An idle socket keeps this, and nothing of the conversation.
    __slots__ = (
        "_is_unsaved",
        "_refused",
        "_responded",
        "_store",
        "_token_given",
        "id",
        "is_open",
        "is_used",
    )

    def __init__(self, scope: handshake.Scope, store: ConversationStore) -> None:
        self._store = store
        self.is_open = False
        self.is_used = True  # False: the socket has another conversation, chosen by its URL, say
        self._responded = False  # the handshake has its response
        token = handshake.subprotocol_token(scope)
        if token is not None:
            self.present(token)
            return
        request = handshake.request_of(scope)
        id = identity.presented_id(request, store.options)
        token = identity.presented_token(request, store.options)
        self._token_given = self._refused = False
        # Nothing is stored under the id yet, as far as is known, so absent does not mean gone.
        self._is_unsaved = id is None or tokens.is_unsaved(token or "")
        self.id = id or ids.new_id()

    def present(self, token: str) -> None:
        """Switch to the conversation of a token that the client presents itself, as a subprotocol
        or in a message. It takes precedence over the cookie."""
        id = tokens.unsign_token(token)
        self._token_given, self._refused = True, id is None
        self._is_unsaved = tokens.is_unsaved(token)
        self.id = id or ids.new_id()

    @property
    def ttl(self) -> float:
        """How long a new conversation may be idle, in seconds."""
        return self._store.options.ttl

    def load(self) -> Conversation:
        """Load the conversation; a new one, if nothing is stored yet.

        Raises:
            InvalidConversationId: we did not sign the token that the client presented.
            ConversationNotFound: it is gone, and the client cannot be told of another one.
            ConversationCorrupt: what was stored is damaged, and likewise.
            BackendUnavailable: the store did not answer.
        """
        self._check_token()
        try:
            conversation = self._store.get(self.id)
        except (ConversationNotFound, ConversationCorrupt) as error:
            return self._new_instead_of(error)
        self._is_unsaved = False
        return conversation

    async def aload(self) -> Conversation:
        """See `load`."""
        self._check_token()
        try:
            conversation = await self._store.aget(self.id)
        except (ConversationNotFound, ConversationCorrupt) as error:
            return self._new_instead_of(error)
        self._is_unsaved = False
        return conversation

    def __await__(self) -> Generator[Any, None, Conversation]:
        return self.aload().__await__()

    def touch(self) -> None:
        """Restart its time to live, if it is stored.

        Raises:
            ConversationNotFound: it is gone.
            BackendUnavailable: the store did not answer.
        """
        if not self._is_unsaved and not self._store.touch(self.id):
            raise ConversationNotFound("The conversation of this socket is gone.")

    async def atouch(self) -> None:
        """See `touch`."""
        if not self._is_unsaved and not await self._store.atouch(self.id):
            raise ConversationNotFound("The conversation of this socket is gone.")

    def note_saved(self, conversation: Conversation) -> None:
        """Note that the conversation is stored, if it is: from now on absent means gone."""
        if not conversation.is_new:
            self._is_unsaved = False

    def accept(self, scope: handshake.Scope, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the `websocket.accept` that tells the client which conversation this is, and the
        message to send after it: the token, if the client offers our subprotocol and has none.

        It is either the cookie or this message, so that a script that cannot read the cookie cannot
        ask for the token in it.
        """
        self.is_open = self._responded = True
        options = self._store.options
        offers_ours = SUBPROTOCOL in scope.get("subprotocols", ())
        if offers_ours and not message.get("subprotocol"):
            message = message | {"subprotocol": SUBPROTOCOL}
        if self._token_given or not self.is_used:
            return [message]
        token = tokens.sign_id(self.id, unsaved=self._is_unsaved)
        request = handshake.request_of(scope)
        if offers_ours and not identity.presented_token(request, options):
            text = json.dumps({"type": TOKEN_MESSAGE, "token": token})
            return [message, {"type": "websocket.send", "text": text}]
        response = HttpResponse()
        identity.set_token(request, response, token, options)
        headers = [*message.get("headers", ()), *handshake.headers_of(response)]
        return [message | {"headers": headers}] if headers else [message]

    def _check_token(self) -> None:
        if self._refused:
            raise InvalidConversationId("The token that was presented is none of ours.")

    def _new_instead_of(self, error: Exception) -> Conversation:
        if not self._is_unsaved:
            if self._token_given or self._responded:
                raise error
            # The stored one is gone, and its id with it. The handshake's response carries the new.
            self.id, self._is_unsaved = ids.new_id(), True
        return self._store.begin(self.id)

    # What only a loaded conversation has.

    def _raise_not_loaded(self, *args: object) -> NoReturn:
        raise SynchronousOnlyOperation(
            'scope["conversation"] is not loaded: a websocket loads its conversation afresh for '
            'each message. Write `conversation = await scope["conversation"]`, or in sync code '
            '`conversation = scope["conversation"].load()`.'
        )

    __getitem__ = __setitem__ = __delitem__ = _raise_not_loaded
    __contains__ = __iter__ = __len__ = _raise_not_loaded

    def __getattr__(self, name: str) -> Any:
        if hasattr(Conversation, name):
            self._raise_not_loaded()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", obj=self)

    def __repr__(self) -> str:
        return f"<ScopeConversation {ids.hashed_id(self.id)}>"
