"""The views of the test project, each in a sync and an async version that do the same."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.contrib.auth import alogout, logout
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.cache import cache_control

from django_convstate import BackendUnavailable, Conversation, ConversationError, conversations


def shown(conversation: Conversation) -> JsonResponse:
    return JsonResponse(
        {
            "id": conversation.id,
            "state": dict(conversation),
            "messages": [m["content"] for m in conversation.messages.window(50)],
        }
    )


def say(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", request.GET["text"])
    request.conversation.incr("turns")
    return shown(request.conversation)


async def asay(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation.messages.append("user", request.GET["text"])
    conversation.incr("turns")
    assert await request.aconversation() is conversation
    return shown(request.conversation)


def look(request: Any) -> HttpResponse:
    return shown(request.conversation)


async def alook(request: Any) -> HttpResponse:
    return shown(await request.aconversation())


def ignore(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing to do with it")


async def aignore(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing to do with it")


def fail(request: Any) -> HttpResponse:
    request.conversation["failed"] = True
    return HttpResponse("failed", status=int(request.GET["status"]))


async def afail(request: Any) -> HttpResponse:
    (await request.aconversation())["failed"] = True
    return HttpResponse("failed", status=int(request.GET["status"]))


def crash(request: Any) -> HttpResponse:
    request.conversation["crashed"] = True
    raise RuntimeError("the view's own trouble")


async def acrash(request: Any) -> HttpResponse:
    (await request.aconversation())["crashed"] = True
    raise RuntimeError("the view's own trouble")


def delete(request: Any) -> HttpResponse:
    request.conversation["unsaved"] = True
    request.conversation.delete()
    return HttpResponse("deleted")


async def adelete(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation["unsaved"] = True
    await conversation.adelete()
    return HttpResponse("deleted")


def interrupted(request: Any) -> HttpResponse:
    request.conversation["a"] = 1
    conversations.delete(request.conversation.id)
    return HttpResponse("too late")


async def ainterrupted(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation["a"] = 1
    await conversations.adelete(conversation.id)
    return HttpResponse("too late")


def tolerant(request: Any) -> HttpResponse:
    try:
        return shown(request.conversation)
    except BackendUnavailable:
        return HttpResponse("memory is away")


async def atolerant(request: Any) -> HttpResponse:
    try:
        return shown(await request.aconversation())
    except BackendUnavailable:
        return HttpResponse("memory is away")


def another(request: Any) -> HttpResponse:
    request.conversation = conversations.create()
    request.conversation["another"] = True
    return shown(request.conversation)


async def aanother(request: Any) -> HttpResponse:
    request.conversation = conversations.create()
    (await request.aconversation())["another"] = True
    return shown(request.conversation)


@cache_control(public=True, max_age=60)
def public(request: Any) -> HttpResponse:
    return shown(request.conversation)


@cache_control(public=True, max_age=60)
async def apublic(request: Any) -> HttpResponse:
    return shown(await request.aconversation())


def log_out(request: Any) -> HttpResponse:
    request.conversation["seen"] = True
    logout(request)
    return HttpResponse("bye")


async def alog_out(request: Any) -> HttpResponse:
    (await request.aconversation())["seen"] = True
    await alogout(request)
    return HttpResponse("bye")


def cycle(request: Any) -> HttpResponse:
    request.conversation.cycle_id()
    return shown(request.conversation)


async def acycle(request: Any) -> HttpResponse:
    await (await request.aconversation()).acycle_id()
    return shown(request.conversation)


def handled(request: Any) -> HttpResponse:
    """Answers an error of its own save itself."""
    request.conversation["a"] = 1
    try:
        request.conversation.save()
    except ConversationError as error:
        return JsonResponse({"error": type(error).__name__})
    return shown(request.conversation)


async def ahandled(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation["a"] = 1
    try:
        await conversation.asave()
    except ConversationError as error:
        return JsonResponse({"error": type(error).__name__})
    return shown(conversation)


def bad_value(request: Any) -> HttpResponse:
    request.conversation["list"] = []
    request.conversation["list"].append(float("nan"))
    return HttpResponse("bad")


async def abad_value(request: Any) -> HttpResponse:
    conversation = await request.aconversation()
    conversation["list"] = []
    conversation["list"].append(float("nan"))
    return HttpResponse("bad")


def in_turn(request: Any) -> HttpResponse:
    with request.conversation.turn("reject"):
        return shown(request.conversation)


def threads(request: Any) -> HttpResponse:
    def note(number: int) -> None:
        request.conversation[f"thread {number}"] = number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(8)))
    return shown(request.conversation)


async def early_reference(request: Any) -> HttpResponse:
    conversation = request.conversation
    await request.aconversation()
    conversation["late"] = True
    return shown(conversation)


async def side_by_side(request: Any) -> HttpResponse:
    first, second = await asyncio.gather(request.aconversation(), request.aconversation())
    assert first is second
    return shown(first)


async def forgotten_await(request: Any) -> HttpResponse:
    return shown(request.conversation)


VIEWS = [
    (say, asay),
    (look, alook),
    (ignore, aignore),
    (fail, afail),
    (crash, acrash),
    (delete, adelete),
    (interrupted, ainterrupted),
    (tolerant, atolerant),
    (another, aanother),
    (public, apublic),
    (log_out, alog_out),
    (cycle, acycle),
    (handled, ahandled),
    (bad_value, abad_value),
]

urlpatterns = [
    path(f"{way}/{pair[0].__name__}", pair[way == "async"])
    for pair in VIEWS
    for way in ("sync", "async")
] + [
    path("sync/in_turn", in_turn),
    path("sync/threads", threads),
    path("health/", include("django_convstate.urls")),
    path("async/early_reference", early_reference),
    path("async/side_by_side", side_by_side),
    path("async/forgotten_await", forgotten_await),
]
