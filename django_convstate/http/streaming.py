"""Saving the conversation when a streaming response has ended.

A stream may end in many ways: by exhaustion, by an error of its own, by a client that disconnects
(a generator is closed, a task is cancelled), or before its first chunk. Each leads here, once.
"""

import _thread
import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeGuard

from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpResponseBase, StreamingHttpResponse

from ..backends.toolkit.isolation import run_isolated
from ..conversation.cancellation import CANCELLED_TIMEOUT, in_background, uncancelled
from .responses import explanation

logger = logging.getLogger("django_convstate")


def is_stream(response: HttpResponseBase) -> TypeGuard[StreamingHttpResponse]:
    """Tell whether the view's own code may still run while `response` is sent: not for a file."""
    return response.streaming and getattr(response, "file_to_stream", None) is None


def follow(
    response: StreamingHttpResponse,
    save: Callable[[], None],
    asave: Callable[[], Coroutine[Any, Any, None]],
) -> "Stream | AsyncStream":
    """Have `save`, or for an async iterator `asave`, called once when the stream has ended. Return
    what the content is now."""
    # Not `response.streaming_content`: its wrapper cannot be closed, and refers to the response, so
    # that a dropped response would wait for the garbage collector.
    content = response._iterator  # type: ignore[attr-defined]
    stream = AsyncStream(content, asave) if response.is_async else Stream(content, save)
    response.streaming_content = stream  # which also lets `response.close()` call `stream.close()`
    return stream


async def end(stream: "Stream | AsyncStream") -> None:
    """End the stream of a response that will not be sent."""
    if isinstance(stream, AsyncStream):
        await stream.aclose()
    else:
        await sync_to_async(stream.close)()


class Stream:
    """The content of a sync response. Servers may or may not iterate it; they always call `close`,
    through the response. Another middleware may drop the response, which calls `__del__`."""

    def __init__(self, content: Iterator[Any], save: Callable[[], None]) -> None:
        self._content = content
        self._save = save
        self._is_over = False

    def __iter__(self) -> Iterator[Any]:
        try:
            for part in self._content:  # noqa: UP028 - `yield from` would close the content itself
                yield part
        except BaseException:
            part = None  # which is not for an error report
            self.close()
            raise
        self._finish()

    def close(self) -> None:
        """End a stream that was interrupted, or never started. What the view did is saved, too."""
        if self._is_over:
            return
        self._is_over = True
        try:
            if hasattr(self._content, "close"):
                self._content.close()
        finally:
            # The error that interrupted the stream propagates. The client knows already that the
            # response is incomplete, so an error of the save is only logged.
            with suppress(Exception):
                self._finish()

    def __del__(self) -> None:
        # Python may call this at any moment in any thread, whatever locks that holds. Not by
        # `threading`, which would wait for the new thread.
        if not self._is_over:
            with suppress(RuntimeError):  # the interpreter is about to exit
                _thread.start_new_thread(run_isolated, (self.close,))

    def _finish(self) -> None:
        self._is_over = True
        try:
            self._save()
        except Exception as error:
            _log(error)
            raise  # aborts the response, so that the client does not take it for saved


class AsyncStream:
    """The content of an async response. To close it, and then to save, takes limited time; with a
    sync stream that is for the timeouts of the backend.

    Django closes no async iterator. If its task is cancelled while the content is awaited,
    `__aiter__` gets the error; while a chunk is being sent, Django closes the response, which calls
    `close`; while another middleware has the response, that is dropped, which calls `__del__`.
    """

    def __init__(
        self, content: AsyncIterator[Any], save: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._content = content
        self._save = save
        self._is_over = False
        self._loop = _running_loop()  # None under WSGI, where nothing is cancelled

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for part in self._content:
                yield part
        except BaseException:
            part = None
            await self.aclose()
            raise
        await self._finish()

    async def aclose(self) -> None:
        """See `Stream.close`."""
        if self._is_over:
            return
        self._is_over = True
        try:
            if hasattr(self._content, "aclose"):
                async with asyncio.timeout(CANCELLED_TIMEOUT):
                    await self._content.aclose()
        finally:
            with suppress(Exception):
                await self._finish()

    def close(self) -> None:
        """Run `aclose` from sync code. In a thread with a running event loop that is a background
        task; in others, as that in which Django closes a response under ASGI, wait for it."""
        if self._is_over:
            return
        if _running_loop() is None:
            async_to_sync(self.aclose)()
        else:
            in_background(self.aclose())

    def __del__(self) -> None:
        # Python may call this at any moment in any thread, so let the loop do it, as asyncio does
        # with its generators.
        if not self._is_over and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    async def _finish(self) -> None:
        self._is_over = True
        try:
            await uncancelled(self._save(), CANCELLED_TIMEOUT)
        except Exception as error:
            _log(error)
            raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _log(error: BaseException) -> None:
    logger.error(
        "A conversation was not saved at the end of a stream: what changed after its last save is "
        "lost, unless only the reply of the store was lost or late. %s: %s",
        type(error).__name__,
        explanation(error),
    )
