"""A client that goes away in the midst of a stream, under ASGI."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any, ClassVar

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory

from django_convstate import (
    conversations,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed, Create
from django_convstate.conversation import cancellation
from django_convstate.http import streaming
from django_convstate.middleware import ConversationMiddleware
from tests.support.connections import Connection
from tests.support.streams import amodel, text
from tests.support.visits import WORDS, check_kept, stored, until_saved

pytestmark = pytest.mark.urls("tests.support.streams")


class SlowBackend(LocMemBackend):
    """Takes `delay` seconds for an async commit, and says when it has begun with one; but for that
    of a newcomer's question, which is stored before the stream begins."""

    delay: ClassVar = 0.0
    begun: ClassVar[asyncio.Event]

    async def acommit(self, id: str, change: Change) -> Committed:
        if not (change.create is Create.MUST_BE_NEW and change.append):
            type(self).begun.set()
            await asyncio.sleep(self.delay)
        return await super().acommit(id, change)


@pytest.fixture
def slow(settings: Any) -> Iterator[None]:
    settings.CONVERSATION_STATE_BACKEND = "tests.http.test_disconnect.SlowBackend"
    yield
    conversations.purge(everything=True)


class TestDisconnect:
    """Under ASGI, a client that has gone is a task that is cancelled."""

    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(WORDS + 1))
    async def test_a_client_that_goes_during_a_chunk_leaves_what_was_sent(
        self, view: str, count: int
    ) -> None:
        connection = Connection(count, jammed=True)
        await connection.get(f"/async/{view}")
        assert len(connection.sent) == count
        assert b"Set-Cookie" in connection.headers
        check_kept(text(count), interrupted=True)
        assert stored().version == (2 if count else 1)

    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(1, WORDS))
    async def test_a_client_that_goes_between_chunks_leaves_what_was_sent(
        self, view: str, count: int
    ) -> None:
        await Connection(count).get(f"/async/{view}?hang={count}")
        check_kept(text(count), interrupted=True)

    @pytest.mark.parametrize("count", range(WORDS + 1))
    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    async def test_a_sync_iterator_is_read_to_its_end_or_not_at_all(self, count: int) -> None:
        """Django reads that to its end first."""
        await Connection(count, jammed=True).get("/async/mixed")
        kept = stored().messages.all()
        assert [m["content"] for m in kept] == ["hello", text(WORDS)][: len(kept)]

    async def test_a_response_dropped_before_its_stream_begins_is_saved(self) -> None:
        async def view(request: Any) -> StreamingHttpResponse:
            (await request.aconversation())["said"] = True
            return StreamingHttpResponse(amodel(request))

        await ConversationMiddleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc]
        await until_saved()
        assert stored()["said"] is True

    async def test_the_last_save_is_not_cancelled(self, slow: None) -> None:
        SlowBackend.delay, SlowBackend.begun = 0.2, asyncio.Event()
        serving = asyncio.create_task(Connection(WORDS + 1).get("/async/answer"))
        await SlowBackend.begun.wait()
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        await until_saved(version=2)
        check_kept(text(WORDS), interrupted=False)

    async def test_repeated_cancellation_does_not_cancel_the_save(self, slow: None) -> None:
        SlowBackend.delay, SlowBackend.begun = 0.2, asyncio.Event()
        request = AsyncRequestFactory().get("/?hang=1")

        async def view(request: Any) -> StreamingHttpResponse:
            messages = (await request.aconversation()).messages
            messages.append("user", "hello")
            return StreamingHttpResponse(messages.stream("assistant", amodel(request)))

        response: Any = await ConversationMiddleware(view)(request)  # type: ignore[misc]

        has_read = asyncio.Event()

        async def read() -> None:
            async for _ in response:
                has_read.set()

        reading = asyncio.create_task(read())
        await has_read.wait()
        await asyncio.sleep(0)  # and now it waits for what will not come
        reading.cancel()
        await SlowBackend.begun.wait()
        for _ in range(3):
            reading.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await reading
        check_kept(text(1), interrupted=True)

    async def test_a_save_after_a_disconnect_is_bounded_in_time(
        self, slow: None, monkeypatch: pytest.MonkeyPatch, errors: Callable[[], list[str]]
    ) -> None:
        SlowBackend.delay, SlowBackend.begun = 60, asyncio.Event()
        monkeypatch.setattr(streaming, "CANCELLED_TIMEOUT", 0.1)
        await Connection(2, jammed=True).get("/async/answer")
        (line,) = errors()
        assert "no answer within 0.1 s" in line

    async def test_a_save_inside_the_stream_is_finished(self, slow: None) -> None:
        SlowBackend.delay, SlowBackend.begun = 0.05, asyncio.Event()

        async def view(request: Any) -> StreamingHttpResponse:
            conversation = await request.aconversation()

            async def content() -> AsyncIterator[str]:
                conversation["said"] = True
                await conversation.asave()
                yield "never"

            return StreamingHttpResponse(content())

        request = AsyncRequestFactory().get("/")
        response: Any = await ConversationMiddleware(view)(request)  # type: ignore[misc]
        reading = asyncio.create_task(anext(aiter(response)))
        await SlowBackend.begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert stored()["said"] is True

    async def test_a_chunk_that_cannot_be_sent_leaves_what_was_sent(self) -> None:
        """Django does not close the response then. The generator goes, and that is enough."""

        class Broken(Connection):
            async def send(self, message: Any) -> None:
                await super().send(message)
                if len(self.sent) == 2:
                    raise OSError("The wire is cut.")

        with suppress(OSError):  # pytest.raises would hold the traceback, and so the generator
            await Broken(60).get("/async/answer")
        gc.collect()
        await until_saved(version=2)
        check_kept(text(2), interrupted=True)


@pytest.mark.parametrize("place", ["locmem", "standalone"], indirect=True)
async def test_an_async_stream_uses_no_thread(place: str, settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis" if place == "standalone" else place
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    threads = {*threading.enumerate()}

    async def view(request: Any) -> StreamingHttpResponse:
        messages = (await request.aconversation()).messages
        messages.append("user", "hello")
        return StreamingHttpResponse(messages.stream("assistant", amodel(request)))

    middleware: Any = ConversationMiddleware(view)
    response = await middleware(AsyncRequestFactory().get("/"))
    assert [part async for part in response]
    token = response.cookies["conversation"].value
    request = AsyncRequestFactory().get("/")
    request.COOKIES["conversation"] = token
    response = await middleware(request)
    async with aclosing(aiter(response)) as parts:
        await anext(parts)
        response.close()
    await asyncio.gather(*cancellation._background)
    request = AsyncRequestFactory().get("/")
    request.COOKIES["conversation"] = token
    seen: list[Any] = []

    async def look(request: Any) -> HttpResponse:
        seen.extend((await request.aconversation()).messages)
        return HttpResponse()

    await ConversationMiddleware(look)(request)  # type: ignore[misc]
    assert [m["content"] for m in seen] == ["hello", text(WORDS), "hello", text(1)]
    # Those of earlier tests may have ended meanwhile.
    assert {*threading.enumerate()} - threads == set()
    await conversations.aclose()
