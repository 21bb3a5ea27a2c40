"""`request.conversation` and `await request.aconversation()`: there when first used, saved when the
response is done; where that is a stream, when the stream is.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.asyncio import async_unsafe
from django.utils.functional import SimpleLazyObject

from . import ids, tokens
from .conversation.conversation import Conversation, working_copy_of
from .exceptions import ConversationCorrupt, ConversationNotFound
from .http import identity, streaming
from .http.awaitable import Unawaited
from .http.responses import answer_to
from .store import ConversationStore, conversations

logger = logging.getLogger("django_convstate")

GetResponse = Callable[[HttpRequest], HttpResponseBase]
AsyncGetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class ConversationMiddleware:
    """Attaches the conversation without any I/O, and saves it if something changed and the status
    is below 500: before the response is sent, or after a stream.

    Native in both worlds: no thread is involved where the view and the other middleware are async.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse | AsyncGetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self.__acall__(request)
        door = RequestConversation(request, conversations)
        response = cast("GetResponse", self.get_response)(request)
        conversation = door.to_save_now(response)
        if conversation is not None:
            try:
                conversation.save()
            except Exception as error:
                response = response_to(request, error)
        return door.follow(response) if streaming.is_stream(response) else door.finish(response)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        door = RequestConversation(request, conversations)
        response = await cast("AsyncGetResponse", self.get_response)(request)
        conversation = door.to_save_now(response)
        if conversation is not None:
            try:
                await conversation.asave()
            except Exception as error:
                in_thread = sync_to_async(response_to, thread_sensitive=False)
                response = await in_thread(request, error)
        return door.follow(response) if streaming.is_stream(response) else door.finish(response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a view that found the conversation busy, or its store away. Begin anew after
        one that has come upon something damaged, or it would come upon it in the next request,
        too."""
        if isinstance(exception, ConversationCorrupt):
            logger.error("A stored conversation is damaged; its client begins anew. %s", exception)
            begin_anew(None, request)
        return answer_to(exception)


def response_to(request: HttpRequest, error: Exception) -> HttpResponseBase:
    """Return what answers a request whose conversation could not be saved."""
    return answer_to(error) or response_for_exception(request, error)


class RequestConversation:
    """The conversation of one request: the one whose token it presented, else a new one, or
    whichever the view has put in its place as `request.conversation`."""

    def __init__(self, request: HttpRequest, store: ConversationStore) -> None:
        self._request = request
        self._store = store
        self._touched = False
        # The conversations that the client has a token of, or gets one with this response.
        self._known: set[str] = set()
        # Two threads, or two awaits, side by side must get the same object: one's changes would be
        # lost otherwise. Of this request alone, so nobody else waits.
        self._loading = threading.Lock()
        self._aloading: asyncio.Lock | None = None
        self._loaded: Conversation | None = None
        self._lazy = SimpleLazyObject(self._load)
        request.conversation = self._lazy  # type: ignore[attr-defined]
        request.aconversation = self._unawaited  # type: ignore[attr-defined]

    def current(self) -> Conversation | None:
        """Return the conversation if the request has got as far as having one."""
        chosen = self._request.conversation  # type: ignore[attr-defined]
        return self._loaded if chosen is self._lazy else chosen

    def to_save(self, response: HttpResponseBase) -> Conversation | None:
        """Return the conversation, if this response is one after which it is saved.

        Not if the view has saved it, got an error, and answered that itself.
        """
        conversation = self.current()
        if conversation is None or response.status_code >= 500:
            return None
        if working_copy_of(conversation).save_failed:
            return None
        return conversation

    def to_save_now(self, response: HttpResponseBase) -> Conversation | None:
        """Return the conversation, if it is saved before the response is sent.

        That of a stream is saved when that is over. But a new one is stored first, so that its
        token is good at once: the client may come back while it is still being answered.
        """
        conversation = self.to_save(response)
        if conversation is None or (streaming.is_stream(response) and not conversation.is_new):
            return None
        return conversation

    def follow(self, response: StreamingHttpResponse) -> HttpResponseBase:
        """Save when the stream is over. The headers go out before, and with them the token of a
        conversation that is stored only then."""
        if response.status_code < 500:
            streaming.follow(response, self._save_late, self._asave_late)
        return self.finish(response, self.to_save(response) is not None)

    def finish(self, response: HttpResponseBase, will_be_saved: bool = False) -> HttpResponseBase:
        """Tell the client, and the caches on the way to it, about the conversation."""
        conversation, options = self.current(), self._store.options
        if conversation is not None or self._touched:
            identity.mark_private(response, options)
        # No conversation here may mean that the store could not be reached. The cookie stays.
        if conversation is not None and (will_be_saved or not conversation.is_new):
            identity.hand_out(self._request, response, conversation, options)
            self._known.add(conversation.id)
        elif conversation is not None and response.status_code < 500:
            identity.take_back(self._request, response, options)
        return response

    def _save_late(self) -> None:
        conversation = self.current()
        if conversation is not None and not working_copy_of(conversation).save_failed:
            try:
                working_copy_of(conversation).log.interrupt_streams()
            finally:
                conversation.save()
            self._check_known(conversation)

    async def _asave_late(self) -> None:
        conversation = self.current()
        if conversation is not None and not working_copy_of(conversation).save_failed:
            try:
                working_copy_of(conversation).log.interrupt_streams()
            finally:
                await conversation.asave()
            self._check_known(conversation)

    def _check_known(self, conversation: Conversation) -> None:
        if not conversation.is_new and conversation.id not in self._known:
            logger.warning(
                "A stream has begun conversation %s, or given it its id, after the headers were "
                "sent, so that the client has no token to come back with. Touch "
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

    @markcoroutinefunction
    def _unawaited(self) -> Unawaited:
        return Unawaited(self._aload())

    async def _aload(self) -> Conversation:
        self._aloading = self._aloading or asyncio.Lock()
        async with self._aloading:
            if (conversation := self.current()) is not None:
                return conversation
            try:
                self._loaded = await self._store.aget(self._presented_id())
            except (ConversationNotFound, ConversationCorrupt):
                self._loaded = self._new()
            return self._loaded

    def _new(self) -> Conversation:
        """Return a new conversation: under the id that an open websocket has already, if that has
        yet to say its first word, and else under a new one."""
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
    """After a logout, give the browser's next user a conversation of their own."""
    if hasattr(request, "conversation"):
        request.conversation = conversations.create()
