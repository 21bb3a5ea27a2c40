"""Views that stream, each in a sync and an async version; and middleware for their sake."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

from django_convstate import conversations
from django_convstate.decorators import conversation_turn


def word(number: int) -> str:
    return f"wörd{number} "


def text(count: int) -> str:
    return "".join(map(word, range(count)))


def model(request: Any) -> Iterator[str]:
    """Say `words` words with `pause` seconds before each, unless it stumbles at `fail`."""
    wanted = request.GET
    for number in range(int(wanted.get("words", 5))):
        if str(number) == wanted.get("fail"):
            raise RuntimeError("the model's own trouble")
        time.sleep(float(wanted.get("pause", 0)))
        yield word(number)


async def amodel(request: Any) -> AsyncIterator[str]:
    """The same, and it may fall silent at `hang`."""
    wanted = request.GET
    for number in range(int(wanted.get("words", 5))):
        if str(number) == wanted.get("fail"):
            raise RuntimeError("the model's own trouble")
        hangs = str(number) == wanted.get("hang")
        await asyncio.sleep(60 if hangs else float(wanted.get("pause", 0)))
        yield word(number)


def answer(request: Any) -> StreamingHttpResponse:
    messages = request.conversation.messages
    messages.append("user", "hello")
    return StreamingHttpResponse(messages.stream("assistant", model(request)))


async def aanswer(request: Any) -> StreamingHttpResponse:
    messages = (await request.aconversation()).messages
    messages.append("user", "hello")
    return StreamingHttpResponse(messages.stream("assistant", amodel(request)))


def ask(request: Any) -> HttpResponse:
    """Does not stream. Creates the file `asked` before it thinks about its answer."""
    request.conversation.messages.append("user", "hello")
    Path(request.GET["asked"]).touch()
    time.sleep(float(request.GET["pause"]))
    request.conversation.messages.append("assistant", text(1))
    return HttpResponse(status=int(request.GET.get("status", 200)))


async def aask(request: Any) -> HttpResponse:
    (await request.aconversation()).messages.append("user", "hello")
    Path(request.GET["asked"]).touch()  # noqa: ASYNC240
    await asyncio.sleep(float(request.GET["pause"]))
    (await request.aconversation()).messages.append("assistant", text(1))
    return HttpResponse(status=int(request.GET.get("status", 200)))


@conversation_turn
def turn(request: Any) -> StreamingHttpResponse:
    return answer(request)


@conversation_turn
async def aturn(request: Any) -> StreamingHttpResponse:
    return await aanswer(request)


def turn_inside(request: Any) -> StreamingHttpResponse:
    conversation = request.conversation
    assert not conversation.is_new

    def content() -> Iterator[str]:
        with conversation.turn():
            conversation.messages.append("user", "hello")
            yield from conversation.messages.stream("assistant", model(request))

    return StreamingHttpResponse(content())


async def aturn_inside(request: Any) -> StreamingHttpResponse:
    conversation = await request.aconversation()

    async def content() -> AsyncIterator[str]:
        async with conversation.aturn():
            conversation.messages.append("user", "hello")
            async for word in conversation.messages.stream("assistant", amodel(request)):
                yield word

    return StreamingHttpResponse(content())


def sse(request: Any) -> StreamingHttpResponse:
    """Server-sent events, by a generator around the one that keeps the answer."""
    conversation = request.conversation
    conversation.messages.append("user", "hello")

    def events() -> Iterator[str]:
        chunks = conversation.messages.stream("assistant", model(request))
        for chunk in chunks:
            conversation.incr("events")
            yield f"data: {chunk}\n\n"
        yield "event: done\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def asse(request: Any) -> StreamingHttpResponse:
    conversation = await request.aconversation()
    conversation.messages.append("user", "hello")

    async def events() -> AsyncIterator[str]:
        chunks = conversation.messages.stream("assistant", amodel(request))
        async for chunk in chunks:
            conversation.incr("events")
            yield f"data: {chunk}\n\n"
        yield "event: done\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


def mixed(request: Any) -> StreamingHttpResponse:
    """What the server has to convert: an async iterator under WSGI."""
    messages = request.conversation.messages
    messages.append("user", "hello")
    return StreamingHttpResponse(messages.stream("assistant", amodel(request)))


async def amixed(request: Any) -> StreamingHttpResponse:
    """And a sync one under ASGI."""
    messages = (await request.aconversation()).messages
    messages.append("user", "hello")
    return StreamingHttpResponse(messages.stream("assistant", model(request)))


def late(request: Any) -> StreamingHttpResponse:
    """Has nothing to do with the conversation before the stream runs."""

    def content() -> Iterator[str]:
        yield "late: "
        request.conversation.incr("late")
        yield request.conversation.id

    return StreamingHttpResponse(content())


async def alate(request: Any) -> StreamingHttpResponse:
    async def content() -> AsyncIterator[str]:
        yield "late: "
        conversation = await request.aconversation()
        conversation.incr("late")
        yield conversation.id

    return StreamingHttpResponse(content())


def another(request: Any) -> StreamingHttpResponse:
    request.conversation["first"] = True

    def content() -> Iterator[str]:
        request.conversation = conversations.create()
        request.conversation["second"] = True
        yield request.conversation.id

    return StreamingHttpResponse(content())


async def aanother(request: Any) -> StreamingHttpResponse:
    (await request.aconversation())["first"] = True

    async def content() -> AsyncIterator[str]:
        request.conversation = conversations.create()
        request.conversation["second"] = True
        yield request.conversation.id

    return StreamingHttpResponse(content())


def bad_value(request: Any) -> StreamingHttpResponse:
    """Cannot be saved; with `fail`, breaks off before that is found out."""
    request.conversation["list"] = []
    request.conversation["list"].append(float("nan"))
    return StreamingHttpResponse(model(request))


async def abad_value(request: Any) -> StreamingHttpResponse:
    conversation = await request.aconversation()
    conversation["list"] = []
    conversation["list"].append(float("nan"))
    return StreamingHttpResponse(amodel(request))


def failed(request: Any) -> StreamingHttpResponse:
    request.conversation["failed"] = True
    return StreamingHttpResponse(model(request), status=int(request.GET["status"]))


async def afailed(request: Any) -> StreamingHttpResponse:
    (await request.aconversation())["failed"] = True
    return StreamingHttpResponse(amodel(request), status=int(request.GET["status"]))


def half(request: Any) -> StreamingHttpResponse:
    """Stops reading in the middle of the answer, and holds on to its generator."""
    conversation = request.conversation

    def content() -> Iterator[str]:
        conversation["chunks"] = "kept"
        request.held = conversation.messages.stream("assistant", model(request))
        yield next(request.held)

    return StreamingHttpResponse(content())


async def ahalf(request: Any) -> StreamingHttpResponse:
    conversation = await request.aconversation()

    async def content() -> AsyncIterator[str]:
        conversation["chunks"] = "kept"
        request.held = conversation.messages.stream("assistant", amodel(request))
        yield await anext(request.held)

    return StreamingHttpResponse(content())


def look(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse([str(len(request.conversation.messages))])


async def alook(request: Any) -> StreamingHttpResponse:
    count = len((await request.aconversation()).messages)

    async def content() -> AsyncIterator[str]:
        yield str(count)

    return StreamingHttpResponse(content())


def ignore(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(model(request))


async def aignore(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(amodel(request))


def file(request: Any) -> FileResponse:
    if "touch" in request.GET:
        request.conversation["file"] = True
    return FileResponse(Path(__file__).open("rb"))


async def afile(request: Any) -> FileResponse:
    if "touch" in request.GET:
        (await request.aconversation())["file"] = True
    return FileResponse(Path(__file__).open("rb"))  # noqa: ASYNC230, a file is what this is about


@sync_and_async_middleware
def dawdling(get_response: Any) -> Any:
    """Creates the file `returned` when the view has done so. With `dawdle`, an async one takes its
    time then, so that its client can be gone before the stream has begun."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        if "returned" in request.GET:
            Path(request.GET["returned"]).touch()
        return response

    async def amiddleware(request: Any) -> Any:
        response = await get_response(request)
        if "returned" in request.GET:
            Path(request.GET["returned"]).touch()  # noqa: ASYNC240
            await asyncio.sleep(60 if "dawdle" in request.GET else 0)
        return response

    return amiddleware if iscoroutinefunction(get_response) else middleware


VIEWS: list[tuple[Any, Any]] = [
    (answer, aanswer),
    (ask, aask),
    (turn, aturn),
    (turn_inside, aturn_inside),
    (sse, asse),
    (mixed, amixed),
    (late, alate),
    (another, aanother),
    (bad_value, abad_value),
    (failed, afailed),
    (half, ahalf),
    (look, alook),
    (ignore, aignore),
    (file, afile),
]

urlpatterns = [
    path(f"{way}/{twins[0].__name__}", twin)
    for twins in VIEWS
    for way, twin in zip(("sync", "async"), twins, strict=True)
]
