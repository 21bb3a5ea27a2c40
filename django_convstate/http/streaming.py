"""Saving the conversation when a streaming response is over.

A stream may be over in many ways: at its end, by an error of its own, by a client that has gone
(a generator is closed, a task is cancelled), or before it has even begun. Each leads here, once.
"""

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from contextlib import suppress
from typing import Any, Final, TypeGuard

from asgiref.sync import async_to_sync
from django.http import HttpResponseBase, StreamingHttpResponse

from ..exceptions import BackendUnavailable

logger = logging.getLogger("django_convstate")

# Seconds that an async stream waits for its content to be closed, and then for the last save. A
# sync one cannot be kept from waiting; there the timeouts of the backend are the bound.
PATIENCE: Final = 5.0

# Saves that nobody waits for. The event loop alone would not keep them from being collected.
_unattended: Final[set["asyncio.Task[None]"]] = set()


def is_stream(response: HttpResponseBase) -> TypeGuard[StreamingHttpResponse]:
    """Tell whether the view may still be at work when `response` is sent. A file does not talk."""
    return response.streaming and getattr(response, "file_to_stream", None) is None


def follow(
    response: StreamingHttpResponse,
    save: Callable[[], None],
    asave: Callable[[], Awaitable[None]],
) -> None:
    """Have `save`, or for an async iterator `asave`, called once when the stream is over."""
    # Not `response.streaming_content`: that is wrapped in something that cannot be closed, and that
    # refers to the response, so that a dropped one would wait for the garbage collector.
    content = response._iterator  # type: ignore[attr-defined]
    stream = AsyncStream(content, asave) if response.is_async else Stream(content, save)
    response.streaming_content = stream  # which also lets `response.close()` call `stream.close()`


class Stream:
    """The content of a sync response. Servers iterate the generator, if they get to it, and call
    `close` through the response, always."""

    def __init__(self, content: Iterator[Any], save: Callable[[], None]) -> None:
        self._content = content
        self._save = save
        self._is_over = False

    def __iter__(self) -> Iterator[Any]:
        try:
            for part in self._content:  # noqa: UP028, closing is our business
                yield part
        except BaseException:
            self.close()
            raise
        self._finish()

    def close(self) -> None:
        """End what has broken off, or has never begun; what the view did before is saved, too."""
        if self._is_over:
            return
        self._is_over = True
        try:
            if hasattr(self._content, "close"):
                self._content.close()
        finally:
            # What it has broken off for goes on its way. The client knows already that the answer
            # is not whole, so that an error of the save has nothing to add; it is logged.
            with suppress(Exception):
                self._finish()

    def _finish(self) -> None:
        self._is_over = True
        try:
            self._save()
        except Exception as error:
            _log(error)
            # At the end of a stream this breaks it off, lest the client takes the answer for kept.
            raise


class AsyncStream:
    """The content of an async response.

    Django closes no async iterator. If its task is cancelled while the generator waits, that gets
    to know; if it is while a chunk is being sent, `close` comes through the response; and if it is
    while another middleware has the response, the response is dropped, and this with it.
    """

    def __init__(self, content: AsyncIterator[Any], save: Callable[[], Awaitable[None]]) -> None:
        self._content = content
        self._save = save
        self._is_over = False
        self._loop = _running_loop()  # None under WSGI, where nothing is cancelled

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for part in self._content:
                yield part
        except BaseException:
            await self.aclose()
            raise
        await self._finish()

    async def aclose(self) -> None:
        """End what has broken off, or has never begun. See `Stream.close`."""
        if self._is_over:
            return
        self._is_over = True
        try:
            if hasattr(self._content, "aclose"):
                async with asyncio.timeout(PATIENCE):
                    await self._content.aclose()
        finally:
            with suppress(Exception):
                await self._finish()

    def close(self) -> None:
        """The same for sync code, such as the thread in which Django closes a response under ASGI;
        there the event loop does it."""
        if self._is_over:
            return
        loop = _running_loop()
        if loop is None:
            async_to_sync(self.aclose)()
            return
        task = loop.create_task(self.aclose())
        _unattended.add(task)
        task.add_done_callback(_unattended.discard)

    def __del__(self) -> None:
        # Python may call this at any moment in any thread, so leave it to the loop, as asyncio does
        # with its generators.
        if not self._is_over and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    async def _finish(self) -> None:
        self._is_over = True
        saving = asyncio.ensure_future(self._save_in_time())
        cancelled = None
        while not saving.done():
            # A client that goes away now, or a second time, must not cancel the save.
            try:
                await asyncio.wait([saving])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            saving.exception()  # it is logged
            raise cancelled
        saving.result()

    async def _save_in_time(self) -> None:
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._save()
            except TimeoutError:
                raise BackendUnavailable(f"There was no answer within {PATIENCE} s.") from None
        except Exception as error:
            _log(error)
            raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _log(error: Exception) -> None:
    logger.error(
        "The conversation was not saved at the end of a stream. %s: %s", type(error).__name__, error
    )
