"""The conversation of one request: which one it is, when it is loaded, when it is saved."""

import asyncio
import logging
import threading
from typing import Final

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils.asyncio import async_unsafe
from django.utils.functional import SimpleLazyObject

from .. import ids, news
from ..conversation.cancellation import CANCELLED_TIMEOUT, log_unsaved, uncancelled
from ..conversation.conversation import Conversation, working_copy_of
from ..store import ConversationStore
from ..tokens import Token
from ..tracebacks import clears_own_locals
from . import identity, streaming
from .awaitable import GuardedCoroutine
from .held import HeldTurn
from .opening import aopen_presented, candidates_of, open_presented
from .visitor import NOTE, Visitor, avisitor_of, visitor_of

logger = logging.getLogger("django_convstate")

# The attribute of a request under which others find what the middleware has attached to it.
_ATTACHED: Final = "_convstate_attached"


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
        self.is_answered = False  # the view, and the middleware within ours, are done
        self.stream: streaming.Stream | streaming.AsyncStream | None = None  # of the response
        self._turn: HeldTurn | None = None
        identity.hide_token(request, store.options)
        self._touched = False
        # Ids of which the client has a token, or gets one with this response.
        self._known: set[str] = set()
        # Whether what the request presents is no longer its conversation: after a logout, say.
        self._is_anew = False
        # What the view had assigned until then, and is saved with the response.
        self._former: list[Conversation] = []
        self._visitor: Visitor | None = None  # as of the load
        # Of which conversations, and of which session, open websockets are to be closed.
        self._logged_out: tuple[list[str], str] | None = None
        self._claimant: Visitor | None = None  # for whom `claim_conversation` was called
        # Threads, or tasks, of one request must get the same object, or the changes of one of them
        # would be lost. The locks belong to this request: other requests do not wait.
        self._loading = threading.Lock()
        self._aloading = asyncio.Lock()
        self.load_later()
        guarded = markcoroutinefunction(lambda: GuardedCoroutine(self.aload()))
        request.aconversation = guarded  # type: ignore[attr-defined]

    def begin_anew(self, owner: str | None) -> None:
        """Give the request a new conversation of this owner. What was said in the one before is
        saved with the response."""
        conversation = self.current()
        if conversation is not None and conversation is not self._loaded:
            self._former.append(conversation)
        self._is_anew = True
        self.request.conversation = self.store.create(owner)  # type: ignore[attr-defined]

    def log_out(self, session_key: str | None) -> None:
        """Give the request a new conversation without an owner, and have the open websockets of
        what it presented closed that were opened in this session."""
        if session_key is not None:
            self._logged_out = [token.id for token in self.presented()], session_key
        self.begin_anew(None)

    def replace_corrupt(self) -> None:
        """Give the request a new conversation of the visitor that it was loaded for."""
        self.begin_anew(None if self._visitor is None else self._visitor.owner)

    def visit_as(self, owner: str) -> None:
        """Have this owner be the visitor, who presents what the request presents by a login."""
        noted = [token.id for token in self.presented() if not token.is_owned]
        self._claimant = Visitor(owner, noted)

    def load_later(self) -> None:
        """Load the conversation at its next use."""
        self._loaded: Conversation | None = None
        self._lazy = LazyConversation(self.load)
        self.request.conversation = self._lazy  # type: ignore[attr-defined]

    def current(self) -> Conversation | None:
        """Return the conversation; None if the view has not used it yet."""
        assigned = self.request.conversation  # type: ignore[attr-defined]
        return self._loaded if assigned is self._lazy else assigned

    @property
    def is_touched(self) -> bool:
        """Whether the conversation was used, or another one assigned, in this request."""
        return self._touched or self.current() is not None

    def hold(self, turn: HeldTurn) -> None:
        """Let a turn last until the stream of the response is over."""
        self._turn = turn

    @property
    def view(self) -> object:
        """The view that the request is for; None: that is not known yet."""
        match = self.request.resolver_match
        return None if match is None else match.func

    def save(self, response: HttpResponseBase) -> None:
        """Save what is to be saved before the response is sent.

        Raises as `Conversation.save` does.
        """
        self.is_answered = True
        if not streaming.is_stream(response) or response.status_code >= 500:
            self._end_turn(discards=response.status_code >= 500)
        for conversation in self._to_save_now(response):
            conversation.save()

    async def asave(self, response: HttpResponseBase) -> None:
        """See `save`."""
        self.is_answered = True
        if not streaming.is_stream(response) or response.status_code >= 500:
            await self._aend_turn(discards=response.status_code >= 500)
        for conversation in self._to_save_now(response):
            await conversation.asave()

    def save_interrupted(self) -> None:
        """Save what the view had said when its client hung up. Nobody waits for a response, so an
        error is only logged."""
        try:
            self._save_rest()
        except Exception as error:
            log_unsaved(error)

    async def asave_interrupted(self) -> None:
        """See `save_interrupted`. It takes limited time, and is not cancelled."""
        try:
            await uncancelled(self._asave_rest(), CANCELLED_TIMEOUT)
        except Exception as error:
            log_unsaved(error)

    def _to_save_now(self, response: HttpResponseBase) -> list[Conversation]:
        """Return the conversations that are to be saved before the response is sent.

        That of a stream is saved at the end of the stream. But a new one is stored first, so that
        its token is valid at once: the client may use it while the stream is still being sent.
        """
        if response.status_code >= 500:
            return []
        later = self.current() if streaming.is_stream(response) else None
        return [each for each in self._to_save() if each is not later or each.is_new]

    def _to_save(self) -> list[Conversation]:
        """Return what was used, but that of which the view has answered a failed save itself."""
        return [each for each in self._used() if not working_copy_of(each).save_failed]

    def _replaced(self) -> list[Conversation]:
        """Return what was the conversation of this request before another took its place."""
        if self._loaded is None or self._loaded is self.current():
            return [*self._former]
        return [*self._former, self._loaded]

    def notify(self) -> None:
        """Tell open websockets what the view, or the middleware, has saved."""
        if self._logged_out is not None:
            news.notify_of_logout(*self._logged_out)
        for conversation in self._used():
            news.notify_of_saved(conversation)

    async def anotify(self) -> None:
        """See `notify`."""
        if self._logged_out is not None:
            await news.anotify_of_logout(*self._logged_out)
        for conversation in self._used():
            await news.anotify_of_saved(conversation)

    def _used(self) -> list[Conversation]:
        conversation = self.current()
        return self._replaced() + ([] if conversation is None else [conversation])

    def finish(self, response: HttpResponseBase) -> HttpResponseBase:
        """Have a stream save the conversation at its end, and put the conversation's token and the
        rules for caches into the response.

        The headers of a stream are sent before its conversation is saved, so they carry the token
        of one that is yet to be stored, too.
        """
        conversation, options = self.current(), self.store.options
        has_failed = conversation is not None and working_copy_of(conversation).save_failed
        will_be_saved = False
        if streaming.is_stream(response) and response.status_code < 500:
            self.stream = streaming.follow(response, self._save_late, self._asave_late)
            will_be_saved = not has_failed
        if self.is_touched:
            identity.mark_private(response, options)
        # Without a conversation the store may have been unavailable: the cookie stays.
        if conversation is not None and (will_be_saved or not conversation.is_new):
            identity.set_token(self.request, response, conversation.token, options)
            self._known.add(conversation.id)
        elif conversation is not None and response.status_code < 500:
            # One that could not be begun was deleted not long ago, and cannot be for a while.
            unsaved_id = None if has_failed else conversation.id
            identity.delete_token(self.request, response, options, unsaved_id)
        return response

    def _save_late(self) -> None:
        self._save_rest()
        self._check_known()

    async def _asave_late(self) -> None:
        """See `_save_late`."""
        await self._asave_rest()
        self._check_known()

    def _save_rest(self) -> None:
        """End what goes on, and save what has changed."""
        to_save = self._to_save()
        try:
            for conversation in to_save:
                working_copy_of(conversation).log.interrupt_streams()
        finally:
            self._end_turn(discards=False)
            for conversation in to_save:
                conversation.save()
        self.notify()

    async def _asave_rest(self) -> None:
        """See `_save_rest`."""
        to_save = self._to_save()
        try:
            for conversation in to_save:
                working_copy_of(conversation).log.interrupt_streams()
        finally:
            await self._aend_turn(discards=False)
            for conversation in to_save:
                await conversation.asave()
        await self.anotify()

    def _end_turn(self, *, discards: bool) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end(discards=discards)

    async def _aend_turn(self, *, discards: bool) -> None:
        """See `_end_turn`."""
        turn, self._turn = self._turn, None
        if turn is not None:
            await turn.aend(discards=discards)

    def _check_known(self) -> None:
        conversation = self.current()
        if conversation is None or conversation.is_new:
            return
        if conversation.id not in self._known:
            logger.warning(
                "A stream has created conversation %s, or given it a new id, after the headers "
                "were sent, so the client has no token of it and cannot come back to it. Use "
                "`request.conversation` in the view, before it returns the response; in an async "
                "view, `await request.aconversation()`.",
                ids.hashed_id(conversation.id),
            )

    def load(self) -> Conversation:
        """Return the conversation that the request presents, or a new one; the same each time."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load_now()
            return self._loaded

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
        if self._is_note_done(conversation):
            self.request.session.pop(NOTE, None)
        return conversation

    async def aload(self) -> Conversation:
        """See `load`. One that was assigned counts, too."""
        async with self._aloading:
            if (conversation := self.current()) is not None:
                return conversation
            self._touched = True
            presented, options = self.presented(), self.store.options
            visitor = self._claimant or await avisitor_of(self.request, options)
            self._visitor, candidates = visitor, candidates_of(presented, visitor)
            conversation = await aopen_presented(self.store, candidates, visitor)
            if self._is_note_done(conversation):
                await self.request.session.apop(NOTE, None)
            self._loaded = conversation
            return conversation

    def presented(self) -> list[Token]:
        """Return what the request presents."""
        if self._is_anew:
            return []
        presented = identity.presented(self.request, self.store.options)
        self._known.update(token.id for token in presented)
        return presented

    def _is_note_done(self, conversation: Conversation) -> bool:
        """Tell whether the note of the login can go. In an outage it waits for the claim."""
        is_noted = self._claimant is None and self._visitor is not None and self._visitor.noted
        return bool(is_noted) and not conversation.degraded


def attached_to(request: HttpRequest) -> RequestConversation | None:
    """Return what the middleware has attached to a request, which may be one that wraps ours, as
    that of Django REST framework does; None: there is nothing."""
    attached: RequestConversation | None = getattr(request, _ATTACHED, None)
    return attached


def is_touched(request: HttpRequest) -> bool:
    """Tell whether the conversation of a request was used or assigned."""
    attached = attached_to(request)
    return attached is not None and attached.is_touched


def hold_turn(request: HttpRequest, response: StreamingHttpResponse, turn: HeldTurn) -> None:
    """Let a turn last until the stream of `response` is over. The middleware ends it then, or as
    soon as it sees that there is no such stream."""
    if (attached := attached_to(request)) is not None:
        attached.hold(turn)
    else:
        streaming.follow(response, turn.end, turn.aend)
