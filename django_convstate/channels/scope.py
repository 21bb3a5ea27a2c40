"""`scope["conversation"]`: which conversation a websocket means, for as long as it is open."""

import json
from collections.abc import Generator
from typing import Any, NoReturn

from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpResponse

from .. import ids, tokens
from ..conversation.conversation import Conversation, working_copy_of
from ..exceptions import ConversationError, ConversationNotFound, InvalidConversationId
from ..http import identity
from ..http.opening import ABSENT_ERRORS, NotTheirs, aopen_for, begin_for, open_for, presentable
from ..http.visitor import Visitor
from ..identity import SUBPROTOCOL
from ..store import ConversationStore
from ..tokens import Token
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
        "_may_be_stored",
        "_others",
        "_refusal",
        "_responded",
        "_store",
        "_token",
        "_token_given",
        "_visitor",
        "is_open",
        "is_used",
    )

    def __init__(
        self, scope: handshake.Scope, store: ConversationStore, visitor: Visitor | None
    ) -> None:
        self._store = store
        self._visitor = visitor
        self._refusal: ConversationError | None = None
        self._others: tuple[Token, ...] = ()  # what the client presents besides, as cookies
        self.is_open = False
        self.is_used = True  # False: the socket has another conversation, chosen by its URL, say
        self._responded = False  # the handshake has its response
        token = handshake.subprotocol_token(scope)
        if token is not None:
            self.present(token)
            return
        self._token_given = False
        presented = identity.presented(handshake.request_of(scope), store.options)
        candidates = presentable(presented, visitor)
        if candidates:
            self._use(candidates[0])
            self._others = tuple(candidates[1:])
        else:
            self._begin_anew()

    def present(self, token: str) -> None:
        """Switch to the conversation of a token that the client presents itself, as a subprotocol
        or in a message. It takes precedence over the cookie."""
        read = tokens.read_token(token)
        self._token_given, self._others, self._refusal = True, (), None
        if read is None:
            self._refusal = InvalidConversationId("The token that was presented is none of ours.")
        elif presentable([read], self._visitor):
            self._use(read)
            return
        else:
            self._refusal = ConversationNotFound("The conversation of this socket is gone.")
        self._use(Token(ids.new_id(), "", is_unsaved=False))

    @property
    def id(self) -> str:
        """The id of the conversation."""
        return self._token.id

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
        while True:
            self._check_token()
            try:
                conversation = self._store.get(self.id)
                conversation = open_for(self._visitor, self._token, conversation)
            except ABSENT_ERRORS as error:
                if (begun := self._begun_instead_of(error)) is not None:
                    return begun
            else:
                return self._remember(conversation)

    async def aload(self) -> Conversation:
        """See `load`."""
        while True:
            self._check_token()
            try:
                conversation = await self._store.aget(self.id)
                conversation = await aopen_for(self._visitor, self._token, conversation)
            except ABSENT_ERRORS as error:
                if (begun := self._begun_instead_of(error)) is not None:
                    return begun
            else:
                return self._remember(conversation)

    def __await__(self) -> Generator[Any, None, Conversation]:
        return self.aload().__await__()

    def touch(self) -> None:
        """Restart its time to live, if it is stored. It may have become another's, so this is a
        load.

        Raises as `load` does.
        """
        if not self._is_unsaved:
            self.load()

    async def atouch(self) -> None:
        """See `touch`."""
        if not self._is_unsaved:
            await self.aload()

    def note_saved(self, conversation: Conversation) -> None:
        """Note that the conversation is stored, if it is: from now on absent means gone, unless it
        is stored here only, because of an outage."""
        if not conversation.is_new:
            self._remember(conversation)

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
        token = self._token.signed(unsaved=self._is_unsaved)
        request = handshake.request_of(scope)
        if offers_ours and not identity.presented_tokens(request, options):
            text = json.dumps({"type": TOKEN_MESSAGE, "token": token})
            return [message, {"type": "websocket.send", "text": text}]
        response = HttpResponse()
        identity.set_token(request, response, token, options)
        headers = [*message.get("headers", ()), *handshake.headers_of(response)]
        return [message | {"headers": headers}] if headers else [message]

    def _check_token(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _use(self, token: Token) -> None:
        visitor = self._visitor
        owner = None if visitor is None else visitor.owner
        self._token = token if owner is None or not token.is_owned else token.renewed(owner)
        # Nothing is stored under the id yet, as far as is known, so absent does not mean gone.
        self._is_unsaved = token.is_unsaved and (visitor is None or visitor.may_begin(token))
        self._may_be_stored = not self._is_unsaved

    def _begin_anew(self) -> None:
        owner = None if self._visitor is None else self._visitor.owner
        self._token = tokens.new_token(ids.new_id(), owner)
        self._is_unsaved, self._may_be_stored = True, False

    def _remember(self, conversation: Conversation) -> Conversation:
        self._token = tokens.new_token(conversation.id, conversation.owner)
        # What is begun or goes on in an outage may not be stored before the end of it.
        self._is_unsaved, self._may_be_stored = working_copy_of(conversation).unconfirmed, True
        return conversation

    def _begun_instead_of(self, error: Exception) -> Conversation | None:
        """Return a new conversation in place of one that is absent; None: try the next token."""
        if isinstance(error, NotTheirs):
            self._is_unsaved = False
        if not self._is_unsaved:
            if self._token_given or self._responded:
                raise error
            if self._others:
                self._use(self._others[0])
                self._others = self._others[1:]
                return None
            # The stored one is gone, and its id with it. The handshake's response carries the new.
            self._begin_anew()
        return begin_for(self._visitor, self._store, self.id)

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
