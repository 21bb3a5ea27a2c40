"""A client that hangs up while a view that does not stream is running, under ASGI."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from channels.layers import channel_layers
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory
from django.urls import path
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware

from django_convstate import BackendUnavailable, Conversation, conversations
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.conversation import cancellation
from django_convstate.http import hangups
from django_convstate.http import request as http_request
from django_convstate.middleware import ConversationMiddleware
from tests.support.connections import Connection
from tests.support.consumers import Chat
from tests.support.tabs import IN_MEMORY, Browser, contents
from tests.support.turns import said, stored

pytestmark = pytest.mark.urls(__name__)

PATIENCE = 30.0  # seconds for whatever has to come
CONVERSATIONS = "django_convstate.middleware.ConversationMiddleware"
SYNC, BOTH = f"{__name__}.sync_only", f"{__name__}.sync_and_async"


class Model:
    """A model that answers when it is told to, in a thread or in a task."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()
        self.asked_in_loop = asyncio.Event()

    def answer(self) -> str:
        self.asked.set()
        assert self.answers.wait(PATIENCE)
        return "Like so."

    async def aanswer(self) -> str:
        self.asked.set()
        while not self.answers.is_set():  # noqa: ASYNC110 - another thread may set it
            await asyncio.sleep(0.01)
        return "Like so."

    async def until_asked(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.asked.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.01)


model = Model()


@pytest.fixture(autouse=True)
def _model() -> Iterator[None]:
    globals()["model"] = Model()
    yield
    model.answers.set()


def ask(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", "How?")
    request.conversation.messages.append("assistant", model.answer())
    if "fail" in request.GET:
        raise RuntimeError("the view's own trouble")
    return HttpResponse(status=int(request.GET.get("status", 200)))


async def aask(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation.messages.append("user", "How?")
    try:
        conversation.messages.append("assistant", await model.aanswer())
    except asyncio.CancelledError:
        if "fail" in request.GET:
            raise RuntimeError("the view's own trouble") from None
        if "status" not in request.GET:
            raise
    return HttpResponse(status=int(request.GET.get("status", 200)))


def ask_in_loop(request: Any) -> HttpResponse:
    """A sync view that waits for async code, which Django cancels; so this is interrupted, too."""
    request.conversation.messages.append("user", "How?")
    request.conversation.messages.append("assistant", async_to_sync(model.aanswer)())
    return HttpResponse()


async def astream_inside(request: Any) -> HttpResponse:
    """Reads a streamed answer itself, and holds on to its generator."""

    async def chunks() -> AsyncIterator[str]:
        yield "Like "
        yield await model.aanswer()

    conversation = await request.aconversation()
    conversation.messages.append("user", "How?")
    request.held = conversation.messages.stream("assistant", chunks())
    return HttpResponse([chunk async for chunk in request.held])


async def aturn(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    async with conversation.aturn():
        conversation.messages.append("user", "How?")
        conversation.messages.append("assistant", await model.aanswer())
    return HttpResponse()


def stream(request: Any) -> StreamingHttpResponse:
    request.conversation.messages.append("user", "How?")
    model.answer()
    return StreamingHttpResponse(request.conversation.messages.stream("assistant", ["Like so."]))


def mixed(request: Any) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        yield "Like so."

    request.conversation.messages.append("user", "How?")
    model.answer()
    return StreamingHttpResponse(request.conversation.messages.stream("assistant", chunks()))


urlpatterns = [
    path(view.__name__, view)
    for view in (ask, aask, ask_in_loop, astream_inside, aturn, stream, mixed)
]


@sync_only_middleware
def sync_only(get_response: Any) -> Any:
    return lambda request: get_response(request)


@sync_and_async_middleware
def sync_and_async(get_response: Any) -> Any:
    async def amiddleware(request: Any) -> Any:
        return await get_response(request)

    return amiddleware if iscoroutinefunction(get_response) else lambda r: get_response(r)


async def hang_up(url: str, conversation: Conversation | None = None) -> None:
    """Ask, go away while the model is thinking, and let it answer."""
    connection = Connection(60, cookie=conversation.token if conversation else "")
    serving = asyncio.create_task(connection.get(f"/{url}"))
    await model.until_asked()
    await connection.hang_up()
    model.answers.set()
    async with asyncio.timeout(PATIENCE):
        await serving
    assert connection.headers == {}


async def check_not_saved(url: str) -> None:
    conversation = stored(conversations)
    connection = Connection(60, cookie=conversation.token)
    serving = asyncio.create_task(connection.get(f"/{url}"))
    await model.until_asked()
    await connection.hang_up()
    model.answers.set()
    with suppress(RuntimeError):
        await serving
    assert said(conversations.get(conversation.id)) == []


MIDDLEWARE = {
    "alone": [CONVERSATIONS],
    "async around and within": [BOTH, CONVERSATIONS, BOTH],
    "sync around": [SYNC, CONVERSATIONS],
    "sync within": [CONVERSATIONS, SYNC],
    "sync around and within": [SYNC, CONVERSATIONS, SYNC],
}


@pytest.fixture(params=MIDDLEWARE)
def _middleware(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.MIDDLEWARE = MIDDLEWARE[request.param]


@pytest.mark.usefixtures("_middleware")
class TestAView:
    async def test_a_sync_view_is_saved_at_its_end(self) -> None:
        conversation = stored(conversations)
        await hang_up("ask", conversation)
        assert said(conversations.get(conversation.id)) == ["How?", "Like so."]

    async def test_an_async_view_leaves_what_it_had_said(self) -> None:
        conversation = stored(conversations)
        await hang_up("aask", conversation)
        assert said(conversations.get(conversation.id)) == ["How?"]

    async def test_a_view_in_a_turn_leaves_what_it_had_said(self) -> None:
        conversation = stored(conversations)
        await hang_up("aturn", conversation)
        again = conversations.get(conversation.id)
        assert said(again) == ["How?"]
        async with again.aturn("reject"):
            pass

    async def test_what_was_streamed_inside_is_saved_as_interrupted(self) -> None:
        conversation = stored(conversations)
        await hang_up("astream_inside", conversation)
        question, answer = conversations.get(conversation.id).messages.all()
        assert (question["content"], answer["content"]) == ("How?", "Like ")
        assert answer["interrupted"] is True

    @pytest.mark.parametrize("trouble", ["fail", "status=500"])
    async def test_an_async_view_that_fails_is_not_saved(self, trouble: str) -> None:
        await check_not_saved(f"aask?{trouble}")


class TestASyncView:
    @pytest.mark.parametrize("middleware", MIDDLEWARE)
    @pytest.mark.parametrize("trouble", ["fail", "status=500"])
    async def test_one_that_fails_is_not_saved(
        self, settings: Any, middleware: str, trouble: str
    ) -> None:
        settings.MIDDLEWARE = MIDDLEWARE[middleware]
        await check_not_saved(f"ask?{trouble}")

    async def test_a_newcomer_is_saved(self) -> None:
        await hang_up("ask")
        (summary,) = conversations.list()
        assert said(conversations.get(summary.id)) == ["How?", "Like so."]

    async def test_one_that_waits_for_async_code_goes_on(self) -> None:
        conversation = stored(conversations)
        await hang_up("ask_in_loop", conversation)
        assert said(conversations.get(conversation.id)) == ["How?", "Like so."]

    @pytest.mark.parametrize("middleware", MIDDLEWARE)
    @pytest.mark.parametrize("view", ["stream", "mixed"])
    async def test_a_stream_that_it_returns_too_late_is_ended(
        self, settings: Any, middleware: str, view: str
    ) -> None:
        settings.MIDDLEWARE = MIDDLEWARE[middleware]
        conversation = stored(conversations)
        await hang_up(view, conversation)
        assert said(conversations.get(conversation.id)) == ["How?"]

    async def test_a_second_cancellation_leaves_it_in_the_background(self) -> None:
        conversation = stored(conversations)
        connection = Connection(60, cookie=conversation.token)
        serving = asyncio.create_task(connection.get("/ask"))
        await model.until_asked()
        await connection.hang_up()
        serving.cancel()
        await asyncio.sleep(0)
        assert said(conversations.get(conversation.id)) == []
        model.answers.set()
        with suppress(asyncio.CancelledError):
            await serving
        await in_background()
        assert said(conversations.get(conversation.id)) == ["How?", "Like so."]


async def in_background() -> None:
    async with asyncio.timeout(PATIENCE):
        while cancellation._background:
            await asyncio.wait(cancellation._background)


@sync_and_async_middleware
def waiting(get_response: Any) -> Any:
    """Waits before the view is known."""

    async def amiddleware(request: Any) -> Any:
        (await request.aconversation()).messages.append("user", "How?")
        await model.aanswer()
        return await get_response(request)

    assert iscoroutinefunction(get_response)
    return amiddleware


class TestBeforeTheView:
    @pytest.fixture(autouse=True)
    def _waiting(self, settings: Any) -> None:
        settings.MIDDLEWARE = [CONVERSATIONS, f"{__name__}.waiting"]

    async def test_what_other_middleware_has_said_is_saved(self) -> None:
        conversation = stored(conversations)
        await hang_up("ask", conversation)
        assert said(conversations.get(conversation.id)) == ["How?", "How?", "Like so."]

    async def test_other_middleware_is_cancelled_in_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hangups, "CANCELLED_TIMEOUT", 0.1)
        conversation = stored(conversations)
        connection = Connection(60, cookie=conversation.token)
        serving = asyncio.create_task(connection.get("/ask"))
        await model.until_asked()
        await connection.hang_up()
        async with asyncio.timeout(PATIENCE):
            await serving  # although the model says nothing
        assert said(conversations.get(conversation.id)) == ["How?"]


class SlowBackend(LocMemBackend):
    """Commits when it is told to."""

    async def acommit(self, id: str, change: Change) -> Committed:
        if change.append:
            await model.aanswer()
        return await super().acommit(id, change)


class AwayBackend(LocMemBackend):
    """Is away when messages are to be saved."""

    async def acommit(self, id: str, change: Change) -> Committed:
        if change.append:
            raise BackendUnavailable("It is away.")
        return await super().acommit(id, change)


class TestTheSave:
    @pytest.fixture(autouse=True)
    def _purged(self) -> Iterator[None]:
        yield
        conversations.purge(everything=True)

    async def asay(self, request: Any) -> HttpResponse:
        (await request.aconversation()).messages.append("user", "How?")
        return HttpResponse()

    async def say_and_wait(self, request: Any) -> HttpResponse:
        await self.asay(request)
        await asyncio.sleep(60)
        return HttpResponse()

    async def say_and_save(self, request: Any) -> HttpResponse:
        conversation = await request.aconversation()
        conversation.messages.append("user", "How?")
        await conversation.asave()
        return HttpResponse()

    def use(self, settings: Any, backend: type) -> Conversation:
        settings.CONVERSATION_STATE_BACKEND = f"{__name__}.{backend.__name__}"
        return stored(conversations)

    def respond(self, view: Any, conversation: Conversation) -> "asyncio.Task[Any]":
        request = AsyncRequestFactory().get("/")
        request.COOKIES["conversation"] = conversation.token
        request.resolver_match = type("Match", (), {"func": staticmethod(view)})()
        return asyncio.create_task(ConversationMiddleware(view)(request))  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["asay", "say_and_save"])
    async def test_it_is_not_cancelled(self, settings: Any, name: str) -> None:
        conversation = self.use(settings, SlowBackend)
        responding = self.respond(getattr(self, name), conversation)
        await model.until_asked()
        for _ in range(3):
            responding.cancel()
            await asyncio.sleep(0)
        model.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await responding
        await in_background()
        assert said(conversations.get(conversation.id)) == ["How?"]
        assert conversations.get(conversation.id).version == 2, "once"

    async def test_it_takes_limited_time(
        self,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        errors: Callable[[], list[str]],
    ) -> None:
        monkeypatch.setattr(http_request, "CANCELLED_TIMEOUT", 0.1)
        conversation = self.use(settings, SlowBackend)
        responding = self.respond(self.say_and_wait, conversation)
        for _ in range(50):
            await asyncio.sleep(0)
        responding.cancel()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(asyncio.CancelledError):
                await responding
        (line,) = errors()
        assert "hung up" in line
        assert "no answer within 0.1 s" in line

    async def test_an_error_of_it_is_logged_and_the_cancellation_raised(
        self, settings: Any, errors: Callable[[], list[str]]
    ) -> None:
        conversation = self.use(settings, AwayBackend)
        responding = self.respond(self.say_and_wait, conversation)
        for _ in range(50):
            await asyncio.sleep(0)
        responding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await responding
        (line,) = errors()
        assert "BackendUnavailable" in line

    async def test_a_view_that_catches_the_cancellation_responds(self) -> None:
        async def view(request: Any) -> HttpResponse:
            with suppress(asyncio.CancelledError):
                await self.say_and_wait(request)
            return HttpResponse("nevertheless")

        conversation = stored(conversations)
        responding = self.respond(view, conversation)
        for _ in range(50):
            await asyncio.sleep(0)
        responding.cancel()
        assert (await responding).content == b"nevertheless"
        assert said(conversations.get(conversation.id)) == ["How?"]


@pytest.mark.django_db
@pytest.mark.parametrize("view", ["ask", "aask"])
async def test_open_websockets_are_told_of_it(
    settings: Any, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    monkeypatch.setattr(channel_layers, "backends", {})
    settings.CHANNEL_LAYERS = IN_MEMORY
    conversation = stored(conversations)
    browser = Browser(Chat)
    tab = await browser.open(conversation.token)
    await hang_up(view, conversation)
    assert contents(await tab.hear()) == ["How?", "Like so."][: 2 if view == "ask" else 1]
    await browser.leave()


async def test_context_variables_that_a_view_sets_are_seen_outside() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def view(request: Any) -> HttpResponse:
        variable.set("set by the view")
        return HttpResponse()

    await ConversationMiddleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc]
    assert variable.get() == "set by the view"
