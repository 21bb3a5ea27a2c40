"""The conversation of one request: which one it is, and when it is loaded. When it is saved is in
saving.py."""

import asyncio
import logging
import threading
from typing import Final

from asgiref.sync import markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.asyncio import async_unsafe
from django.utils.functional import SimpleLazyObject

from ..backends.records import Create
from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.working_copy import WorkingCopy
from ..exceptions import ConversationCorrupt
from ..ids import owner_of
from ..store import ConversationStore
from ..tokens import Token, ids_without_owner, new_token
from ..tracebacks import clears_own_locals
from . import identity
from .awaitable import GuardedCoroutine
from .held import HeldTurn
from .opening import aopen_presented, candidates_of, create_for, open_presented
from .visitor import NOTE, Visitor, avisitor_of, is_unloaded, visitor_of

logger = logging.getLogger("django_convstate")

# The attribute of a request under which others find what the middleware has attached to it.
_ATTACHED: Final = "_convstate_attached"


_OWNER_ASKS: Final = (
    "What CONVERSATION_STATE['OWNER'] names uses the conversation of the request. It is called to "
    "tell whose that is, and cannot wait for it."
)


class LazyConversation(SimpleLazyObject):  # type: ignore[type-arg]
    """What `request.conversation` is until it is used: Sentry is not to load it for a report."""

    __sentry_repr__ = SimpleLazyObject.__repr__


@clears_own_locals
class RequestConversation:
    """Attaches `conversation` and `aconversation` to one request. The conversation is the one whose
    token the request presents, if it is the visitor's; else a new one; or the one that the view has
    assigned to `request.conversation`."""

    def __init__(self, request: HttpRequest, store: ConversationStore) -> None:
        self.request = request
        self.store = store
        setattr(request, _ATTACHED, self)
        identity.hide_token(request, store.options)
        self._touched = False
        # Ids of which the client has a token, or gets one with this response.
        self.known: set[str] = set()
        # Lasts until the stream of the response is over.
        self.turn: HeldTurn | None = None
        self._presented: list[Token] | None = None  # None: not known yet
        # What the view had assigned until then, and is saved with the response.
        self._former: list[Conversation] = []
        self._visitor: Visitor | None = None  # as of the load
        self._user: object = None  # as of the load
        # The key of the session that was logged out of: its open websockets are to be closed.
        self._logged_out: str | None = None
        self._claimant: Visitor | None = None  # for whom `claim_conversation` was called
        # Threads, or tasks, of one request must get the same object, or the changes of one of them
        # would be lost. The locks belong to this request: other requests do not wait.
        self._loading = threading.Lock()
        self._aloading = asyncio.Lock()
        self._loader: object = None  # the thread or task that is loading
        self._logins = 0  # how often it has become another visitor's since
        # What was new and empty at a login. The view may hold it, and go on with it.
        self._unused: Conversation | None = None
        self.load_later()
        request.aconversation = self._aload_guarded  # type: ignore[attr-defined]

    def begin_anew(self, owner: str | None) -> None:
        """Give the request a new conversation of this owner. What was said in the one before is
        saved with the response."""
        for used in self.used():
            working_copy_of(used).before_save = None  # the user may be another from now on
        conversation = self.current()
        if conversation is not None and conversation is not self._loaded:
            self._former.append(conversation)
        self._presented = []  # no longer what the request is about
        self._logins += 1
        visitor = None if self.store.options.owner is None else Visitor(owner)
        self.request.conversation = create_for(visitor, self.store)  # type: ignore[attr-defined]

    def log_out(self, session_key: str | None) -> None:
        """Give the request a new conversation without an owner, and have the websockets closed
        that were opened in this session."""
        self._logged_out = session_key or self._logged_out
        self.begin_anew(None)

    def take_logged_out(self) -> str | None:
        """Return, once, the key of the session that was logged out of; None: there is none."""
        session_key, self._logged_out = self._logged_out, None
        return session_key

    def replace_corrupt(self, error: ConversationCorrupt) -> None:
        """Give the request a new conversation of the same visitor, unless another is damaged."""
        if error.conversation_id in {None, *(each.id for each in self.used())}:
            logger.error("A stored conversation is damaged; its client gets a new one. %s", error)
            self.begin_anew(None if self._visitor is None else self._visitor.owner)

    def visit_as(self, owner: str) -> None:
        """Have this owner be the visitor, who presents what the request presents by a login."""
        self._claimant = Visitor(owner, ids_without_owner(self.presented()))
        self._logins += 1

    def load_later(self) -> None:
        """Load the conversation at its next use."""
        self._loaded: Conversation | None = None
        self._lazy = LazyConversation(self.load)
        self.request.conversation = self._lazy  # type: ignore[attr-defined]

    def note_login(self, owner: str) -> None:
        """Note that the visitor is this owner now. Load the conversation anew if what was loaded is
        still new and empty, unless the view goes on with that."""
        self._logins += 1
        if self._unused is not None and working_copy_of(self._unused).visitor != owner:
            self._former.append(self._unused)
            self._unused = None
        if self._loaded is not None and self._loaded is self.current() and not self._loaded:
            self._unused = self._loaded
            self.load_later()

    def current(self) -> Conversation | None:
        """Return the conversation; None if the view has not used it yet."""
        assigned = self.request.conversation  # type: ignore[attr-defined]
        return self._kept() if assigned is self._lazy else assigned

    def _kept(self) -> Conversation | None:
        if self._loaded is None and self._unused:
            self._loaded, self._unused = self._unused, None
        return self._loaded

    def adopt_assigned(self) -> None:
        """Give the visitor what the view has made itself, by `conversations.create()`."""
        if (copy := self._assigned_new()) is not None:
            visitor = visitor_of(self.request, self.store.options)
            copy.owner = None if visitor is None else visitor.owner

    async def aadopt_assigned(self) -> None:
        """See `adopt_assigned`."""
        if (copy := self._assigned_new()) is not None:
            visitor = await avisitor_of(self.request, self.store.options)
            copy.owner = None if visitor is None else visitor.owner

    def _assigned_new(self) -> WorkingCopy | None:
        conversation = self.current()
        if conversation is None or conversation is self._loaded:
            return None
        copy = working_copy_of(conversation)
        # One that was opened by its id may be there, and be for others, too.
        is_new = copy.create is Create.MUST_BE_NEW and copy.owner is None and copy.visitor is None
        return copy if is_new else None

    def note_use(self) -> None:
        """Note that what is served is made from a conversation, this one or another."""
        self._touched = True

    @property
    def is_touched(self) -> bool:
        """Whether a conversation was used in this request, or one assigned."""
        return self._touched or self.current() is not None

    def used(self) -> list[Conversation]:
        """Return what was the conversation of this request, one after the other."""
        conversation = self.current()
        used = [*self._former, self._unused, self._loaded]
        others = [each for each in used if each is not None and each is not conversation]
        return others if conversation is None else [*others, conversation]

    def load(self) -> Conversation:
        """Return the conversation that the request presents, or a new one; the same each time.

        Raises:
            ImproperlyConfigured: OWNER asks for it, in order to tell its owner.
        """
        if self._loader is threading.current_thread():
            raise ImproperlyConfigured(_OWNER_ASKS)
        with self._loading:
            self._loader = threading.current_thread()
            try:
                while (kept := self._kept()) is None:
                    logins, conversation = self._logins, self._load_now()
                    self._keep(conversation, logins)
            finally:
                self._loader = None
            return kept

    @async_unsafe(
        "The conversation of this request is not loaded yet, and loading it here would block the "
        "event loop. In an async view, begin with `conversation = await request.aconversation()`."
    )
    def _load_now(self) -> Conversation:
        self._touched = True
        presented, options = self.presented(), self.store.options
        visitor = self._claimant or visitor_of(self.request, options)
        self._visitor, candidates = visitor, candidates_of(presented, visitor)
        conversation = open_presented(self.store, candidates, visitor)
        self._follow_user(conversation)
        if self._is_note_done(conversation):
            self.request.session.pop(NOTE, None)
        return conversation

    async def aload(self) -> Conversation:
        """See `load`. One that was assigned counts, too."""
        if self._loader is asyncio.current_task():
            raise ImproperlyConfigured(_OWNER_ASKS)
        async with self._aloading:
            self._loader = asyncio.current_task()
            try:
                while (current := self.current()) is None:
                    logins, conversation = self._logins, await self._aload_now()
                    self._keep(conversation, logins)
            finally:
                self._loader = None
            return current

    @markcoroutinefunction
    def _aload_guarded(self) -> GuardedCoroutine:
        return GuardedCoroutine(self.aload())

    async def _aload_now(self) -> Conversation:
        """See `_load_now`."""
        self._touched = True
        presented, options = self.presented(), self.store.options
        visitor = self._claimant or await avisitor_of(self.request, options)
        self._visitor, candidates = visitor, candidates_of(presented, visitor)
        conversation = await aopen_presented(self.store, candidates, visitor)
        self._follow_user(conversation)
        if self._is_note_done(conversation):
            await self.request.session.apop(NOTE, None)
        return conversation

    def _keep(self, conversation: Conversation, logins: int) -> None:
        """Keep what was loaded, unless another thread or task of this request has loaded it
        meanwhile, or has logged a user in."""
        if self._loaded is None and logins == self._logins:
            self._loaded = conversation

    def presented(self) -> list[Token]:
        """Return what the request presents."""
        if self._presented is None:
            self._presented = identity.presented(self.request, self.store.options)
            self.known.update(token.id for token in self._presented)
        return self._presented

    def token_of(self, conversation: Conversation) -> str:
        """Return the token that a client is to hold for a conversation. That which it has presented
        is not signed again."""
        copy = working_copy_of(conversation)
        token = new_token(copy.id, copy.owner)
        if not copy.unconfirmed:
            for presented in self._presented or ():
                if presented.text and presented == token:
                    return str(presented.text)  # plain: WSGI servers take no subclass in a header
        return token.signed(unsaved=copy.unconfirmed)

    def _follow_user(self, conversation: Conversation) -> None:
        if self.store.options.owner == "user" and self._claimant is None:
            self._user = getattr(self.request, "user", None)
            working_copy_of(conversation).before_save = self._check_user

    def _check_user(self, copy: WorkingCopy) -> None:
        """Have a new conversation be that of the user who was authenticated since the load, by
        Django REST framework, say. For others the load has decided which owner they have.

        Raises:
            ImproperlyConfigured: what is to be saved was loaded for another visitor.
        """
        user = getattr(self.request, "user", None)
        if user is self._user or self._claimant is not None or is_unloaded(user):
            return
        owner = owner_of(user)
        if owner == copy.owner or (owner or "") == copy.visitor or not copy.is_modified:
            return
        has_theirs = owner is not None and any(token.is_of(owner) for token in self.presented())
        if copy.create is not Create.MUST_BE_NEW or has_theirs:
            raise ImproperlyConfigured(
                "request.user was assigned after the conversation of this request was loaded, for "
                "another visitor, so it is not saved. Authenticate before the conversation is "
                "used: put @conversation_turn inside of @api_view, and do not use "
                "request.conversation in middleware where the view authenticates."
            )
        copy.owner = copy.visitor = owner

    def _is_note_done(self, conversation: Conversation) -> bool:
        """Tell whether the note of the login can go. In an outage it waits for the claim."""
        visitor = self._visitor if self._claimant is None else None
        return visitor is not None and bool(visitor.claimable) and not conversation.degraded

    @property
    def is_turned_away(self) -> bool:
        """Whether the client has the token of a conversation whose owner the visitor is not. Its
        session may have ended, or be out of reach, and it is of use again after a login."""
        visitor = self._visitor
        return visitor is not None and not all(map(visitor.may_present, self.presented()))


def attached_to(request: HttpRequest) -> RequestConversation | None:
    """Return what the middleware has attached to a request, which may be one that wraps ours, as
    that of Django REST framework does; None: there is nothing."""
    attached: RequestConversation | None = getattr(request, _ATTACHED, None)
    return attached


def is_touched(request: HttpRequest) -> bool:
    """Tell whether the conversation of a request was used or assigned."""
    attached = attached_to(request)
    return attached is not None and attached.is_touched
