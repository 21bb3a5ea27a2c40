"""Views that add a message and read them all, each with its async twin."""

from typing import Any

from django.http import JsonResponse
from django.urls import path


async def _asay(request: Any) -> JsonResponse:
    conversation = await request.aconversation()
    conversation.messages.append("user", request.GET["text"])
    await conversation.asave()
    return JsonResponse({"degraded": conversation.degraded})


def _say(request: Any) -> JsonResponse:
    request.conversation.messages.append("user", request.GET["text"])
    request.conversation.save()
    return JsonResponse({"degraded": request.conversation.degraded})


async def _aread(request: Any) -> JsonResponse:
    messages = await (await request.aconversation()).messages.aall()
    return JsonResponse({"texts": [message["content"] for message in messages]})


def _read(request: Any) -> JsonResponse:
    messages = request.conversation.messages.all()
    return JsonResponse({"texts": [message["content"] for message in messages]})


urlpatterns = [
    path("sync/say", _say),
    path("async/say", _asay),
    path("sync/read", _read),
    path("async/read", _aread),
]
