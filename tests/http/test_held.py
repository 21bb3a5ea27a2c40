"""A turn around a streamed response: `conversation_turn`, up to the end of the stream."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path

from django_convstate import BackendUnavailable, Conversation, ConversationBusy, conversations
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.conversation import cancellation
from django_convstate.decorators import conversation_turn
from django_convstate.middleware import ConversationMiddleware
from tests.support.connections import Connection
from tests.support.servers import wait_until
from tests.support.turns import in_order, said, stored

pytestmark = [
    pytest.mark.urls(__name__),
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning"),
]


def words(request: Any) -> Iterator[str]:
    """An answer in two parts: "a", and the name of the question."""
    yield "a"
    if "fail" in request.GET:
        raise RuntimeError("the model's own trouble")
    assert is_busy() or "any" in request.GET, "the turn lasts as long as the stream"
    yield request.GET.get("name", "")


async def awords(request: Any) -> AsyncIterator[str]:
    for word in words(request):
        yield word
        await asyncio.sleep(60 if "hang" in request.GET else 0)


def is_busy() -> bool:
    def look() -> bool:
        (summary,) = conversations.list()
        try:
            with conversations.get(summary.id).turn("reject"):
                return False
        except ConversationBusy:
            return True

    with ThreadPoolExecutor(1) as pool:  # for there may be an event loop here
        return pool.submit(look).result()


def discard(status: int) -> Any:
    """Have another response sent than that of the view."""

    def decorate(view: Any) -> Any:
        @wraps(view)
        def inner(request: Any) -> HttpResponse:
            view(request)
            return HttpResponse(status=status)

        return inner

    return decorate


def spoken(request: Any, model: Any) -> StreamingHttpResponse:
    request.conversation.messages.append("user", "u" + request.GET.get("name", ""))
    return StreamingHttpResponse(request.conversation.messages.stream("assistant", model(request)))


@conversation_turn
def view(request: Any) -> StreamingHttpResponse:
    return spoken(request, words)


@conversation_turn
async def aview(request: Any) -> StreamingHttpResponse:
    request.conversation = await request.aconversation()
    return spoken(request, awords)


@conversation_turn
def mixed(request: Any) -> StreamingHttpResponse:
    return spoken(request, awords)


@conversation_turn
async def amixed(request: Any) -> StreamingHttpResponse:
    request.conversation = await request.aconversation()
    return spoken(request, words)


@conversation_turn
def half(request: Any) -> StreamingHttpResponse:
    """Stops reading in the middle of the answer, and holds on to its generator."""
    request.conversation.messages.append("user", "u")
    request.held = request.conversation.messages.stream("assistant", words(request))

    def content() -> Iterator[str]:
        yield next(request.held)

    return StreamingHttpResponse(content())


urlpatterns = [path(view.__name__, view) for view in (view, aview, mixed, amixed, half)] + [
    path("replaced", discard(200)(view)),
    path("failed", discard(500)(view)),
]
VIEWS = ["view", "mixed", "aview", "amixed"]


@pytest.fixture
def conversation() -> Conversation:
    return stored(conversations)


def check(conversation: Conversation, *expected: str, interrupted: bool = False) -> None:
    """One commit has saved what was said, and the turn is over."""
    conversation = conversations.get(conversation.id)
    assert said(conversation) == [*expected]
    assert conversation.messages[-1].get("interrupted", False) is interrupted
    assert conversation.version == 2
    assert not is_busy()


def client_of(conversation: Conversation, kind: type) -> Any:
    client = kind()
    client.cookies["conversation"] = conversation.token
    return client


class TestUnderWSGI:
    @pytest.fixture
    def client(self, conversation: Conversation) -> Any:
        return client_of(conversation, Client)

    @pytest.mark.parametrize("name", ["view", "mixed"])
    def test_it_is_over_at_the_end_of_the_stream(
        self, client: Any, conversation: Conversation, name: str
    ) -> None:
        response = client.get(f"/{name}")
        assert is_busy()
        assert b"".join(response) == b"a"
        response.close()
        check(conversation, "u", "a")

    def test_a_client_that_goes_leaves_what_was_sent(
        self, client: Any, conversation: Conversation
    ) -> None:
        response = client.get("/view")
        next(iter(response))
        response.close()
        check(conversation, "u", "a", interrupted=True)

    @pytest.mark.parametrize("name", ["aview?any", "amixed?any"])
    def test_that_of_an_async_view_is_over_with_its_event_loop(
        self, client: Any, conversation: Conversation, name: str
    ) -> None:
        response = client.get(f"/{name}")
        assert not is_busy()
        assert b"".join(response) == b"a"
        response.close()
        assert said(conversations.get(conversation.id)) == ["u", "a"]
        assert not is_busy()

    @pytest.mark.parametrize("name", VIEWS)
    def test_a_stream_that_never_begins_leaves_the_question(
        self, client: Any, conversation: Conversation, name: str
    ) -> None:
        client.get(f"/{name}").close()
        check(conversation, "u")

    def test_a_stream_that_fails_leaves_what_was_sent(
        self, client: Any, conversation: Conversation
    ) -> None:
        response = client.get("/view?fail")
        with pytest.raises(RuntimeError, match="own trouble"):
            list(response)
        check(conversation, "u", "a", interrupted=True)

    def test_what_is_still_streamed_is_saved_in_the_turn(
        self, client: Any, conversation: Conversation
    ) -> None:
        response = client.get("/half")
        assert b"".join(response) == b"a"
        response.close()
        check(conversation, "u", "a", interrupted=True)

    def test_a_response_that_is_dropped_ends_it(self, conversation: Conversation) -> None:
        request: Any = RequestFactory().get("/")
        request.COOKIES["conversation"] = conversation.token
        response = ConversationMiddleware(view)(request)
        assert is_busy()
        del response, request
        gc.collect()
        wait_until(lambda: not is_busy())
        check(conversation, "u")

    def test_another_response_ends_it(self, client: Any, conversation: Conversation) -> None:
        client.get("/replaced")
        check(conversation, "u")

    def test_an_error_instead_discards_it(self, client: Any, conversation: Conversation) -> None:
        client.get("/failed")
        assert said(conversations.get(conversation.id)) == []
        assert not is_busy()

    def test_it_works_without_the_middleware(self, conversation: Conversation) -> None:
        request: Any = RequestFactory().get("/")
        request.conversation = conversation
        response = view(request)
        assert is_busy()
        assert b"".join(response) == b"a"
        check(conversation, "u", "a")

    def test_turns_that_stream_follow_each_other(self, conversation: Conversation) -> None:
        def post(number: int) -> None:
            response = client_of(conversation, Client).get(f"/view?name={number}")
            assert b"".join(response).decode() == f"a{number}"
            response.close()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(post, range(3)))
        in_order(conversations.get(conversation.id), 3)

    def test_a_newcomers_question_is_stored_before_the_stream(self, client: Client) -> None:
        response = Client().get("/view")
        assert response.cookies["conversation"].value
        (new,) = [each for each in conversations.list() if each.message_count]
        assert new.version == 1
        response.close()
        assert conversations.get(new.id).version in (1, 2)


class TestUnderASGI:
    @pytest.fixture
    def client(self, conversation: Conversation) -> Any:
        return client_of(conversation, AsyncClient)

    @pytest.mark.parametrize("name", VIEWS)
    async def test_it_is_over_at_the_end_of_the_stream(
        self, client: Any, conversation: Conversation, name: str
    ) -> None:
        response = await client.get(f"/{name}")
        assert is_busy()
        assert b"".join([part async for part in response]) == b"a"
        response.close()
        check(conversation, "u", "a")

    @pytest.mark.parametrize("name", ["aview", "mixed"])
    @pytest.mark.parametrize("hang", ["", "&hang"])
    async def test_a_client_that_goes_leaves_what_was_sent(
        self, conversation: Conversation, name: str, hang: str
    ) -> None:
        connection = Connection(1, jammed=not hang, cookie=conversation.token)
        await connection.get(f"/{name}?name=0{hang}")
        check(conversation, "u0", "a", interrupted=True)

    @pytest.mark.parametrize("name", ["aview", "mixed"])
    async def test_a_stream_that_never_begins_leaves_the_question(
        self, client: Any, conversation: Conversation, name: str
    ) -> None:
        (await client.get(f"/{name}")).close()
        await asyncio.gather(*cancellation._background)
        check(conversation, "u")

    @pytest.mark.parametrize("name", ["aview", "mixed"])
    async def test_a_stream_that_fails_leaves_what_was_sent(
        self, client: Any, conversation: Conversation, name: str
    ) -> None:
        response = await client.get(f"/{name}?fail")
        with pytest.raises(RuntimeError, match="own trouble"):
            assert [part async for part in response]
        check(conversation, "u", "a", interrupted=True)

    @pytest.mark.parametrize("answer", [aview, amixed])
    async def test_a_response_that_is_dropped_ends_it(
        self, conversation: Conversation, answer: Any
    ) -> None:
        request: Any = AsyncRequestFactory().get("/")
        request.COOKIES["conversation"] = conversation.token
        response = await ConversationMiddleware(answer)(request)  # type: ignore[misc]
        assert is_busy()
        del response, request
        gc.collect()
        async with asyncio.timeout(30):
            while is_busy():  # noqa: ASYNC110 - it ends in the background
                await asyncio.sleep(0.01)
        check(conversation, "u")

    @pytest.mark.parametrize("name", VIEWS)
    async def test_turns_that_stream_follow_each_other(
        self, conversation: Conversation, name: str
    ) -> None:
        async def post(number: int) -> None:
            # Each request has a thread for its sync code then, as on a server.
            connection = Connection(60, cookie=conversation.token)
            await connection.get(f"/{name}?name={number}")
            assert b"".join(connection.sent).decode() == f"a{number}"

        await asyncio.gather(*map(post, range(3)))
        in_order(conversations.get(conversation.id), 3)


class AwayBackend(LocMemBackend):
    """Is away when messages are to be saved."""

    def commit(self, id: str, change: Change) -> Committed:
        if change.append:
            raise BackendUnavailable("It is away.")
        return super().commit(id, change)


def test_an_error_at_the_end_of_it_breaks_off_the_stream(
    settings: Any, errors: Callable[[], list[str]]
) -> None:
    settings.CONVERSATION_STATE_BACKEND = f"{__name__}.AwayBackend"
    response: Any = client_of(stored(conversations), Client).get("/view")
    with pytest.raises(BackendUnavailable):
        list(response)
    response.close()
    (line,) = errors()
    assert "not saved at the end of a stream" in line
    conversations.purge(everything=True)
