"""The conversation of one request: which one it is, when it is loaded, when it is saved."""

import asyncio
import logging
import threading
from typing import Final

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.asyncio import async_unsafe
from django.utils.functional import SimpleLazyObject

from .. import ids, news, tokens
from ..conversation.conversation import Conversation, working_copy_of
from ..exceptions import ConversationCorrupt, ConversationNotFound
from ..store import ConversationStore
from ..tracebacks import clears_locals
from . import identity, streaming
from .awaitable import GuardedCoroutine

logger = logging.getLogger("django_convstate")

# The attribute of a request under which others find what the middleware has attached to it.
_ATTACHED: Final = "_convstate_attached"


class LazyConversation(SimpleLazyObject):  # type: ignore[type-arg]
    """What `request.conversation` is until it is used: Sentry is not to load it for a report."""

    __sentry_repr__ = SimpleLazyObject.__repr__


@clears_locals
class RequestConversation:
    """Attaches `conversation` and `aconversation` to one request. The conversation is the one whose
    token the request presents, else a new one, or the one that the view has assigned to
    `request.conversation`."""

    def __init__(self, request: HttpRequest, store: ConversationStore) -> None:
        self._request = request
        self._store = store
        setattr(request, _ATTACHED, self)
        identity.hide_token(request, store.options)
        self._touched = False
        # Ids of which the client has a token, or gets one with this response.
        self._known: set[str] = set()
        # Threads, or tasks, of one request must get the same object, or the changes of one of them
        # would be lost. The locks belong to this request: other requests do not wait.
        self._loading = threading.Lock()
        self._aloading = asyncio.Lock()
        self._loaded: Conversation | None = None
        self._lazy = LazyConversation(self._load)
        request.conversation = self._lazy  # type: ignore[attr-defined]
        guarded = markcoroutinefunction(lambda: GuardedCoroutine(self._aload()))
        request.aconversation = guarded  # type: ignore[attr-defined]

    def begin_anew(self) -> None:
        """Give the request a new conversation."""
        self._request.conversation = self._store.create()  # type: ignore[attr-defined]

    def current(self) -> Conversation | None:
        """Return the conversation; None if the view has not used it yet."""
        assigned = self._request.conversation  # type: ignore[attr-defined]
        return self._loaded if assigned is self._lazy else assigned

    def to_save_now(self, response: HttpResponseBase) -> Conversation | None:
        """Return the conversation if it is to be saved before the response is sent.

        That of a stream is saved at the end of the stream. But a new one is stored first, so that
        its token is valid at once: the client may use it while the stream is still being sent.
        """
        conversation = self._to_save()
        if conversation is None or response.status_code >= 500:
            return None
        is_later = streaming.is_stream(response) and not conversation.is_new
        return None if is_later else conversation

    def notify(self) -> None:
        """Tell open websockets what the view, or the middleware, has saved."""
        if (conversation := self.current()) is not None:
            news.notify_of_saved(conversation)

    async def anotify(self) -> None:
        """See `notify`."""
        if (conversation := self.current()) is not None:
            await news.anotify_of_saved(conversation)

    def finish(self, response: HttpResponseBase) -> HttpResponseBase:
        """Have a stream save the conversation at its end, and put the conversation's token and the
        rules for caches into the response.

        The headers of a stream are sent before its conversation is saved, so they carry the token
        of one that is yet to be stored, too.
        """
        will_be_saved = False
        if streaming.is_stream(response) and response.status_code < 500:
            streaming.follow(response, self._save_late, self._asave_late)
            will_be_saved = self._to_save() is not None
        conversation, options = self.current(), self._store.options
        if conversation is not None or self._touched:
            identity.mark_private(response, options)
        # Without a conversation the store may have been unavailable: the cookie stays.
        if conversation is not None and (will_be_saved or not conversation.is_new):
            identity.set_token(self._request, response, conversation.token, options)
            self._known.add(conversation.id)
        elif conversation is not None and response.status_code < 500:
            # One that could not be begun was deleted not long ago, and cannot be for a while.
            has_failed = working_copy_of(conversation).save_failed
            unsaved_id = None if has_failed else conversation.id
            identity.delete_token(self._request, response, options, unsaved_id)
        return response

    def _to_save(self) -> Conversation | None:
        """Return the conversation, unless the view has responded itself to a save that failed."""
        conversation = self.current()
        has_failed = conversation is not None and working_copy_of(conversation).save_failed
        return None if has_failed else conversation

    def _save_late(self) -> None:
        conversation = self._to_save()
        if conversation is not None:
            try:
                working_copy_of(conversation).log.interrupt_streams()
            finally:
                conversation.save()
            self.notify()
            self._check_known(conversation)

    async def _asave_late(self) -> None:
        """See `_save_late`."""
        conversation = self._to_save()
        if conversation is not None:
            try:
                working_copy_of(conversation).log.interrupt_streams()
            finally:
                await conversation.asave()
            await self.anotify()
            self._check_known(conversation)

    def _check_known(self, conversation: Conversation) -> None:
        if not conversation.is_new and conversation.id not in self._known:
            logger.warning(
                "A stream has created conversation %s, or given it a new id, after the headers "
                "were sent, so the client has no token of it and cannot come back to it. Use "
                "`request.conversation` in the view, before it returns the response; in an async "
                "view, `await request.aconversation()`.",
                ids.hashed_id(conversation.id),
            )

    def _load(self) -> Conversation:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load_now()
            return self._loaded

    @async_unsafe(
        "The conversation of this request is not loaded yet, and loading it here would block the "
        "event loop. In an async view, begin with `conversation = await request.aconversation()`."
    )
    def _load_now(self) -> Conversation:
        try:
            return self._store.get(self._presented_id())
        except (ConversationNotFound, ConversationCorrupt):
            return self._new()

    async def _aload(self) -> Conversation:
        async with self._aloading:
            if (conversation := self.current()) is not None:
                return conversation
            try:
                self._loaded = await self._store.aget(self._presented_id())
            except (ConversationNotFound, ConversationCorrupt):
                self._loaded = self._new()
            return self._loaded

    def _new(self) -> Conversation:
        """Return a new conversation: under the id that an open websocket of this client has for a
        conversation that is not stored yet, else under a new id."""
        token = identity.presented_token(self._request, self._store.options)
        if token and tokens.is_unsaved(token) and (id := tokens.unsign_token(token)):
            return self._store.begin(id)
        return self._store.create()

    def _presented_id(self) -> str:
        self._touched = True
        id = identity.presented_id(self._request, self._store.options)
        if id is None:
            raise ConversationNotFound("The request has no token of ours.")
        self._known.add(id)
        return id


def begin_anew(sender: object, request: HttpRequest, **kwargs: object) -> None:
    """Give the request a new conversation, in the store of its own. Receives `user_logged_out`, so
    that the browser's next user does not get that of the last one. `request` may be one that wraps
    ours, as that of Django REST framework does."""
    attached: RequestConversation | None = getattr(request, _ATTACHED, None)
    if attached is not None:
        attached.begin_anew()
