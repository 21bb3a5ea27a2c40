"""`ConversationMiddleware`: `request.conversation` and `await request.aconversation()`, loaded on
first use; saved before the response is sent or, where that is a stream, at the end of the stream.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from .exceptions import ConversationCorrupt
from .http.caching import keep_out_of_caches
from .http.hangups import responding, responding_in_thread
from .http.request import RequestConversation, attached_to
from .http.responses import response_for
from .http.saving import RequestSaving
from .http.wrapped import forward_assignments
from .observing import in_request
from .store import ConversationStore, conversations

logger = logging.getLogger("django_convstate")

GetResponse = Callable[[HttpRequest], HttpResponseBase]
AsyncGetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class ConversationMiddleware:
    """Attaches the conversation without any I/O, and saves it if something changed and the status
    is below 500: before the response is sent, or after a stream. Then open websockets are told of
    it, if a channel layer is configured.

    Native in both worlds: no thread is involved where the view and the other middleware are async.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse | AsyncGetResponse) -> None:
        if not apps.is_installed("django_convstate"):
            # Without the app there are no system checks that could say so.
            raise ImproperlyConfigured(
                "ConversationMiddleware needs its app: put 'django_convstate' into INSTALLED_APPS."
            )
        keep_out_of_caches()
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle one request."""
        if self.is_async:
            return self.__acall__(request)
        saving = RequestSaving(RequestConversation(request, self.get_store(request)))
        return responding_in_thread(partial(self._respond, request, saving), saving)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """See `__call__`."""
        saving = RequestSaving(RequestConversation(request, self.get_store(request)))
        return await responding(self._arespond(request, saving), saving)

    def _respond(self, request: HttpRequest, saving: RequestSaving) -> HttpResponseBase:
        noting = in_request.set(saving.note_use)
        try:
            response = cast("GetResponse", self.get_response)(request)
        except asyncio.CancelledError:  # of an async view that sync middleware waits for
            saving.save_interrupted()
            raise
        finally:
            in_request.reset(noting)
        try:
            saving.save(response)
        except Exception as error:
            response = _response_to_failed_save(request, error)
        saving.notify()
        return saving.finish(response)

    async def _arespond(self, request: HttpRequest, saving: RequestSaving) -> HttpResponseBase:
        """See `_respond`."""
        noting = in_request.set(saving.note_use)
        try:
            response = await cast("AsyncGetResponse", self.get_response)(request)
        except asyncio.CancelledError:
            await saving.asave_interrupted()
            raise
        finally:
            in_request.reset(noting)
        try:
            await saving.asave(response)
        except Exception as error:
            response = await _aresponse_to_failed_save(request, error)
        await saving.anotify()
        return saving.finish(response)

    def get_store(self, request: HttpRequest) -> ConversationStore:
        """Return where the conversation of a request is kept. Override it for a store of each
        tenant, say. Called for each request, in async code, too: make the stores once, and do no
        I/O here."""
        return conversations

    @property
    def process_view(self) -> Callable[..., object]:
        """What prepares for a view of Django REST framework. In async code a coroutine function, or
        Django would call it in a thread."""
        return self._aprepare if self.is_async else self._prepare

    def _prepare(self, *args: object) -> None:
        forward_assignments()

    async def _aprepare(self, *args: object) -> None:
        """See `_prepare`."""
        forward_assignments()

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Respond for a view, or its template, that let one of our errors through. After a damaged
        conversation give the client a new one, or its next request would fail, too."""
        attached = attached_to(request)
        if isinstance(exception, ConversationCorrupt) and attached is not None:
            attached.replace_corrupt(exception)
        return response_for(exception)


def _response_to_failed_save(request: HttpRequest, error: Exception) -> HttpResponseBase:
    return response_for(error, at_save=True) or response_for_exception(request, error)


async def _aresponse_to_failed_save(request: HttpRequest, error: Exception) -> HttpResponseBase:
    """See `_response_to_failed_save`."""
    in_thread = sync_to_async(_response_to_failed_save, thread_sensitive=False)
    return await in_thread(request, error)
