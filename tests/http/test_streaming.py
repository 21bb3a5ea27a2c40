"""Streams: through Django's test clients, and through its handlers, driven by hand up to the point
where the client goes away. `tests/http/test_servers.py` does the same with real ones."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any, ClassVar

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory

from django_convstate import (
    Conversation,
    ConversationStore,
    ConversationTooLarge,
    InvalidConversationValue,
    conversations,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed, Create
from django_convstate.conversation.message_log import encode_message
from django_convstate.exceptions import InvalidConversationType
from django_convstate.http import streaming
from django_convstate.middleware import ConversationMiddleware
from tests.support.streams import amodel, text

pytestmark = pytest.mark.urls("tests.support.streams")

WORDS = 5


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


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged by us."""
    return lambda: [r.getMessage() for r in caplog.records if r.name == "django_convstate"]


@pytest.fixture
def slow(settings: Any) -> Iterator[None]:
    settings.CONVERSATION_STATE_BACKEND = "tests.http.test_streaming.SlowBackend"
    yield
    conversations.purge(everything=True)


class Visit:
    """One request and as much of its stream as is read; then the client closes."""

    def __init__(
        self, way: str, view: str, cookies: Any = None, read: int | None = None, **options: Any
    ) -> None:
        self.parts: list[bytes] = []
        self.error: Exception | None = None
        self.before: list[Any] = []  # what was stored before the stream began
        self.client: Any = Client() if way == "sync" else AsyncClient()
        self.response: Any = None
        self.client.cookies.update(cookies or {})
        if way == "sync":
            self.response = self.client.get(f"/sync/{view}", **options)
            self._read(read)
        else:
            asyncio.run(self._aget(f"/async/{view}", read, options))

    def _read(self, count: int | None) -> None:
        self.before = list(conversations.list())
        try:
            for part in iter(self.response) if count != 0 else ():
                self.parts.append(part)
                if len(self.parts) == count:
                    break
        except (RuntimeError, ValueError) as error:
            self.error = error
        self.response.close()

    async def _aget(self, url: str, count: int | None, options: Any) -> None:
        self.response = await self.client.get(url, **options)
        self.before = list(conversations.list())
        try:
            async with aclosing(aiter(self.response)) as parts:
                if count != 0:
                    async for part in parts:
                        self.parts.append(part)
                        if len(self.parts) == count:
                            break
        except (RuntimeError, ValueError) as error:
            self.error = error
        self.response.close()
        await asyncio.gather(*streaming._background_saves)

    @property
    def content(self) -> str:
        return b"".join(self.parts).decode()


def stored() -> Conversation:
    (summary,) = conversations.list()
    return conversations.get(summary.id)


async def until_saved(version: int = 1) -> None:
    for _ in range(500):
        if any(summary.version >= version for summary in conversations.list()):
            return
        await asyncio.sleep(0.01)


def check_kept(said: str, *, interrupted: bool) -> None:
    """What was stored is the user's message and, of the answer, what was `said`."""
    first, *answers = stored().messages.all()
    assert first["content"] == "hello"
    shown = [(m["role"], m["content"], m.get("interrupted", False)) for m in answers]
    assert shown == ([("assistant", said, interrupted)] if said else [])


def wsgi(environ: Any) -> Any:
    return WSGIHandler()(environ, lambda status, headers, error=None, /: lambda body: None)


class TestAtItsEnd:
    @pytest.mark.parametrize("view", ["answer", "sse"])
    def test_it_is_saved_then_and_not_before(self, way: str, view: str) -> None:
        visit = Visit(way, view)
        (before,) = visit.before
        assert before.message_count == 1, "so that the token of a newcomer is good"
        assert visit.error is None
        check_kept(text(WORDS), interrupted=False)
        assert stored().version == 2
        if view == "answer":
            assert visit.content == text(WORDS)
        else:
            assert stored()["events"] == WORDS
        again = Visit(way, view, visit.response.cookies)
        assert again.before[0].version == 2
        assert stored().version == 3

    def test_the_token_goes_out_before(self, way: str) -> None:
        first = Visit(way, "answer")
        assert first.response.headers["Cache-Control"] == "private"
        assert first.response.headers["Vary"] == "Cookie"
        second = Visit(way, "answer", first.response.cookies)
        assert second.response.cookies == {}
        assert len(stored().messages) == 4

    def test_one_that_was_first_used_inside_it(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        first = Visit(way, "answer")
        Visit(way, "late", first.response.cookies)
        assert stored()["late"] == 1
        assert errors() == []

    def test_a_newcomer_whose_token_is_too_late(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        visit = Visit(way, "late")
        assert stored()["late"] == 1
        assert visit.response.cookies == {}
        (line,) = errors()
        assert "Use `request.conversation` in the view" in line
        assert stored().id not in line

    def test_one_that_the_view_has_put_in_its_place(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        Visit(way, "another")
        kept = [dict(conversations.get(summary.id)) for summary in conversations.list()]
        assert sorted(kept, key=repr) == [{"first": True}, {"second": True}]
        assert len(errors()) == 1, "the client has the token of the other"

    @pytest.mark.parametrize(("status", "saved"), [(404, True), (500, False), (503, False)])
    def test_it_is_saved_below_500(self, way: str, status: int, saved: bool) -> None:
        visit = Visit(way, f"failed?status={status}")
        assert len(list(conversations.list())) == saved
        assert bool(visit.response.cookies) is saved

    def test_reading_stores_nothing(self, way: str) -> None:
        visit = Visit(way, "look")
        assert visit.content == "0"
        assert list(conversations.list()) == []

    def test_an_answer_that_was_left_half_read(self, way: str) -> None:
        Visit(way, "half")
        (message,) = stored().messages
        assert (message["content"], message["interrupted"]) == (text(1), True)

    def test_an_error_of_the_save_breaks_it_off(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        visit = Visit(way, "bad_value", Visit(way, "answer").response.cookies)
        assert isinstance(visit.error, InvalidConversationValue)
        assert visit.content == text(WORDS)
        (line,) = errors()
        assert 'state["list"][0] is nan' in line

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_one_that_django_converts(self, way: str) -> None:
        assert Visit(way, "mixed").content == text(WORDS)
        check_kept(text(WORDS), interrupted=False)

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_one_that_django_converts_and_that_fails(self, way: str) -> None:
        assert isinstance(Visit(way, "mixed?fail=3").error, RuntimeError)
        check_kept(text(3), interrupted=True)

    def test_one_that_is_compressed_on_the_way(self, way: str, settings: Any) -> None:
        settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
        visit = Visit(way, "answer", headers={"accept-encoding": "gzip"})
        assert visit.response.headers["Content-Encoding"] == "gzip"
        check_kept(text(WORDS), interrupted=False)


class TestLeftAlone:
    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_a_file(self, way: str) -> None:
        visit = Visit(way, "file")
        assert b"Views that stream" in b"".join(visit.parts)
        assert "Cache-Control" not in visit.response.headers

    def test_a_file_keeps_the_fast_way_to_the_socket(self) -> None:
        def wrapper(file: Any, size: int) -> Any:
            file.wrapped = size
            return file

        environ = RequestFactory().get("/sync/file?touch").environ | {"wsgi.file_wrapper": wrapper}
        body = wsgi(environ)
        assert body.wrapped
        assert stored()["file"] is True
        body.close()

    def test_one_that_has_nothing_to_do_with_it(self, way: str) -> None:
        visit = Visit(way, "ignore")
        assert visit.content == text(WORDS)
        assert visit.response.cookies == {}
        assert "Cache-Control" not in visit.response.headers
        assert list(conversations.list()) == []


class TestBrokenOff:
    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(WORDS + 1))
    def test_by_the_client(self, way: str, view: str, count: int) -> None:
        Visit(way, view, read=count)
        check_kept(text(count), interrupted=True)
        assert stored().version == (2 if count else 1)

    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(WORDS))
    def test_by_the_model(self, way: str, view: str, count: int) -> None:
        visit = Visit(way, f"{view}?fail={count}")
        assert str(visit.error) == "the model's own trouble"
        check_kept(text(count), interrupted=True)

    def test_an_error_of_the_save_does_not_hide_why(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        visit = Visit(way, "bad_value?fail=2", Visit(way, "answer").response.cookies)
        assert str(visit.error) == "the model's own trouble"
        assert len(errors()) == 1

    def test_a_wsgi_server_that_never_begins(self) -> None:
        environ = RequestFactory().get("/sync/answer").environ
        wsgi(environ).close()
        check_kept("", interrupted=False)

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_a_wsgi_server_that_never_begins_with_an_async_one(self) -> None:
        response = Client().get("/sync/mixed")
        response.close()
        check_kept("", interrupted=False)


class Handler(ASGIHandler):
    """Knows the file with the body, which Django does not close after each kind of trouble."""

    async def read_body(self, receive: Any) -> Any:
        self.body = await super().read_body(receive)
        return self.body


class Connection:
    """An ASGI server with one client, which goes away after `count` chunks: while the next one is
    awaited, or, if `jammed`, while the last one is still on its way."""

    def __init__(self, count: int, *, jammed: bool = False) -> None:
        self.count = count
        self.jammed = jammed
        self.sent: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.gone = asyncio.Event()
        self.asked = False

    async def get(self, url: str) -> None:
        path, _, query = url.partition("?")
        scope = AsyncRequestFactory()._base_scope(path=path, query_string=query)  # type: ignore[attr-defined]
        handler = Handler()
        try:
            await handler(scope | {"type": "http"}, self.receive, self.send)
        finally:
            handler.body.close()

    async def receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b""}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
        elif message.get("body"):
            self.sent.append(message["body"])
        if len(self.sent) == self.count:
            self.gone.set()
            if self.jammed:
                await asyncio.sleep(60)


class TestDisconnect:
    """Under ASGI, a client that has gone is a task that is cancelled."""

    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(WORDS + 1))
    async def test_while_a_chunk_is_on_its_way(self, view: str, count: int) -> None:
        connection = Connection(count, jammed=True)
        await connection.get(f"/async/{view}")
        assert len(connection.sent) == count
        assert b"Set-Cookie" in connection.headers
        check_kept(text(count), interrupted=True)
        assert stored().version == (2 if count else 1)

    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(1, WORDS))
    async def test_while_the_next_chunk_is_awaited(self, view: str, count: int) -> None:
        await Connection(count).get(f"/async/{view}?hang={count}")
        check_kept(text(count), interrupted=True)

    @pytest.mark.parametrize("count", range(WORDS + 1))
    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    async def test_with_a_sync_iterator(self, count: int) -> None:
        """Django reads that to its end first."""
        await Connection(count, jammed=True).get("/async/mixed")
        kept = stored().messages.all()
        assert [m["content"] for m in kept] == ["hello", text(WORDS)][: len(kept)]

    async def test_while_another_middleware_has_the_response(self) -> None:
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

    async def test_however_often_the_client_goes(self, slow: None) -> None:
        SlowBackend.delay, SlowBackend.begun = 0.2, asyncio.Event()
        request = AsyncRequestFactory().get("/?hang=1")

        async def view(request: Any) -> StreamingHttpResponse:
            messages = (await request.aconversation()).messages
            messages.append("user", "hello")
            return StreamingHttpResponse(messages.stream("assistant", amodel(request)))

        response: Any = await ConversationMiddleware(view)(request)  # type: ignore[misc]

        async def read() -> None:
            async for _ in response:
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        reading.cancel()
        await SlowBackend.begun.wait()
        for _ in range(3):
            reading.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await reading
        check_kept(text(1), interrupted=True)

    async def test_the_last_save_is_bounded(
        self, slow: None, monkeypatch: pytest.MonkeyPatch, errors: Callable[[], list[str]]
    ) -> None:
        SlowBackend.delay, SlowBackend.begun = 60, asyncio.Event()
        monkeypatch.setattr(streaming, "END_TIMEOUT", 0.1)
        await Connection(2, jammed=True).get("/async/answer")
        (line,) = errors()
        assert "no answer within 0.1 s" in line

    async def test_during_a_save_of_the_views_own(self, slow: None) -> None:
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

    async def test_a_chunk_that_cannot_be_sent(self) -> None:
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
async def test_no_thread_is_involved(place: str, settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis" if place == "standalone" else place
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    threads = threading.active_count()

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
    await asyncio.gather(*streaming._background_saves)
    request = AsyncRequestFactory().get("/")
    request.COOKIES["conversation"] = token
    seen: list[Any] = []

    async def look(request: Any) -> HttpResponse:
        seen.extend((await request.aconversation()).messages)
        return HttpResponse()

    await ConversationMiddleware(look)(request)  # type: ignore[misc]
    assert [m["content"] for m in seen] == ["hello", text(WORDS), "hello", text(1)]
    assert threading.active_count() == threads
    await conversations.aclose()


class Source:
    """Chunks that know whether they have been closed."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1


class AsyncSource:
    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        for chunk in self.chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


class Streamed:
    """What `messages.stream` makes of `chunks`, of which `read` are read before it is closed."""

    def __init__(
        self, way: str, chunks: list[Any], read: int | None = None, **options: Any
    ) -> None:
        extra = options.pop("extra", {})
        self.conversation = ConversationStore("locmem", **options).create()
        self.messages = self.conversation.messages
        self.passed: list[str] = []
        self.error: Exception | None = None
        self.source: Any = Source(chunks) if way == "sync" else AsyncSource(chunks)
        stream = self.messages.stream("assistant", self.source, **extra)
        try:
            asyncio.run(self._aread(stream, read)) if way == "async" else self._read(stream, read)
        except Exception as error:
            self.error = error

    def _read(self, stream: Any, count: int | None) -> None:
        for chunk in stream:
            self.passed.append(chunk)
            if len(self.passed) == count:
                break
        stream.close()

    async def _aread(self, stream: Any, count: int | None) -> None:
        async for chunk in stream:
            self.passed.append(chunk)
            if len(self.passed) == count:
                break
        await stream.aclose()


class TestAnswer:
    def test_is_one_message(self, way: str) -> None:
        streamed = Streamed(way, ["a", "", "b"], extra={"model": "m"})
        assert streamed.passed == ["a", "", "b"]
        (message,) = streamed.messages
        assert message.pop("timestamp")
        assert message == {"role": "assistant", "content": "ab", "model": "m"}
        assert streamed.source.closed == 1

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_that_is_closed(self, way: str, count: int) -> None:
        streamed = Streamed(way, ["a", "b", "c"], count)
        (message,) = streamed.messages
        assert (message["content"], message["interrupted"]) == ("abc"[:count], True)
        assert streamed.source.closed == 1

    @pytest.mark.parametrize("chunks", [[], [""], ["", ""]])
    def test_without_text_is_no_message(self, way: str, chunks: list[str]) -> None:
        streamed = Streamed(way, chunks)
        assert streamed.passed == chunks
        assert len(streamed.messages) == 0
        assert not streamed.conversation.is_modified

    @pytest.mark.parametrize("chunk", [None, b"b", 1, ["b"], {"text": "b"}])
    def test_with_a_chunk_that_is_no_text(self, way: str, chunk: object) -> None:
        streamed = Streamed(way, ["a", chunk, "c"])
        assert isinstance(streamed.error, InvalidConversationType)
        assert f"Chunk 1 of a stream is of type {type(chunk).__name__}" in str(streamed.error)
        assert streamed.passed == ["a"]
        (message,) = streamed.messages
        assert (message["content"], message["interrupted"]) == ("a", True)
        assert streamed.source.closed == 1

    def test_with_a_chunk_that_is_no_utf8(self, way: str) -> None:
        streamed = Streamed(way, ["a", "\ud83d"])
        assert isinstance(streamed.error, InvalidConversationValue)
        assert streamed.messages[0]["content"] == "a"

    @pytest.mark.parametrize("letter", ["a", '"', "ä", "\n", "😀", "\x00"])
    @pytest.mark.parametrize("size", [1, 7, 300])
    def test_that_grows_too_large(self, way: str, letter: str, size: int) -> None:
        streamed = Streamed(way, [letter * size] * (900 // size), max_message_bytes=400)
        assert isinstance(streamed.error, ConversationTooLarge)
        (message,) = streamed.messages
        kept, passed = message["content"], "".join(streamed.passed)
        assert message["interrupted"] is True
        assert passed.startswith(kept)
        assert len(streamed.passed) < 900 // size, "an endless one has an end"
        extra = {k: v for k, v in message.items() if k not in ("role", "content")}
        encoded = encode_message(message["role"], kept, **extra)
        larger = encode_message(message["role"], kept + letter, **extra)
        assert len(encoded) <= 400 < len(larger)
        assert streamed.source.closed == 1

    def test_that_just_fits(self, way: str) -> None:
        limit = len(encode_message("assistant", "a" * 100))
        assert Streamed(way, ["a"] * 100, max_message_bytes=limit).error is None
        streamed = Streamed(way, ["a"] * 101, max_message_bytes=limit)
        assert isinstance(streamed.error, ConversationTooLarge)
        assert len(streamed.passed) == 101

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda messages: messages.stream("", ["a"]), InvalidConversationType),
            (lambda messages: messages.stream("assistant", 5), InvalidConversationType),
            (lambda messages: messages.stream("assistant", None), InvalidConversationType),
            (lambda messages: messages.stream("assistant", [], at={1}), InvalidConversationType),
            (lambda messages: messages.stream("assistant", [], content="a"), TypeError),
            (lambda messages: messages.stream("a", [], b="b" * 70_000), ConversationTooLarge),
        ],
    )
    def test_is_refused_before_it_begins(self, call: Any, error: Any) -> None:
        with pytest.raises(error):
            call(conversations.create().messages)

    def test_is_refused_where_there_is_no_room_for_one_more(self) -> None:
        messages = ConversationStore("locmem", max_messages=1).create().messages
        messages.append("user", "hello")
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGES is 1"):
            messages.stream("assistant", ["a"])

    def test_two_side_by_side(self) -> None:
        messages = conversations.create().messages
        one, two = messages.stream("one", ["a", "b"]), messages.stream("two", ["c", "d"])
        for chunks in zip(one, two, strict=True):
            assert len(chunks) == 2
        assert sorted((m["role"], m["content"]) for m in messages) == [("one", "ab"), ("two", "cd")]

    def test_that_was_cancelled(self) -> None:
        messages = conversations.create().messages

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(60)

        async def read() -> None:
            async for _ in messages.stream("assistant", chunks()):
                pass

        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(read(), 0.1))
        (message,) = messages
        assert (message["content"], message["interrupted"]) == ("a", True)


class TestForgottenAwait:
    @pytest.mark.parametrize(
        "use",
        [
            lambda conversation: conversation["city"],
            lambda conversation: conversation.messages,
            lambda conversation: conversation.save(),
            lambda conversation: conversation.update(a=1),
            lambda conversation: "city" in conversation,
            lambda conversation: list(conversation),
            lambda conversation: len(conversation),
            lambda conversation: bool(conversation),
        ],
    )
    async def test_says_what_to_write(self, use: Any) -> None:
        async def view(request: Any) -> HttpResponse:
            use(request.aconversation())
            return HttpResponse()

        hint = r"Write `conversation = await request\.aconversation\(\)`"
        with pytest.raises((TypeError, AttributeError), match=hint):
            await ConversationMiddleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc]
        gc.collect()  # and no warning comes after it

    async def test_a_coroutine_in_all_other_respects(self) -> None:
        async def view(request: Any) -> HttpResponse:
            conversation = await request.aconversation()
            assert await asyncio.create_task(request.aconversation()) is conversation
            assert await asyncio.wait_for(request.aconversation(), 5) is conversation
            assert (await asyncio.gather(request.aconversation()))[0] is conversation
            pending = request.aconversation()
            assert asyncio.iscoroutine(pending)
            assert "GuardedCoroutine" in repr(pending)
            pending.close()
            return HttpResponse()

        await ConversationMiddleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc]
