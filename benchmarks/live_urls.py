"""The views of live_project.py, and what runs them."""

from typing import Any

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from benchmarks.rivals import messages, text


def conversation(request: Any) -> JsonResponse:
    known = request.conversation
    known["lastQuery"] = text()
    known.messages.append("user", text())
    known.messages.append("assistant", text())
    return JsonResponse({"messages": known.messages.window(20)})


async def aconversation(request: Any) -> JsonResponse:
    known = await request.aconversation()
    known["lastQuery"] = text()
    known.messages.append("user", text())
    known.messages.append("assistant", text())
    return JsonResponse({"messages": known.messages.window(20)})


def session(request: HttpRequest) -> JsonResponse:
    said = request.session["messages"]
    request.session["lastQuery"] = text()
    # As many as there were: a run must not end with other messages than it began with.
    request.session["messages"] = said[2:] + messages(2)
    return JsonResponse({"messages": request.session["messages"][-20:]})


async def asession(request: HttpRequest) -> JsonResponse:
    said: Any = await request.session.aget("messages")
    await request.session.aset("lastQuery", text())
    await request.session.aset("messages", said[2:] + messages(2))
    said = await request.session.aget("messages")
    return JsonResponse({"messages": said[-20:]})


urlpatterns = [
    path("sync/conversation", conversation),
    path("async/conversation", aconversation),
    path("sync/session", session),
    path("async/session", asession),
]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
