"""Views that do what a client asks for with a value that cannot be kept, each in a sync and an
async version; and through Django REST framework."""

import json
from collections.abc import AsyncIterator
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView

from django_convstate import Conversation, exceptions
from django_convstate.decorators import conversation_turn

CANARY = "kept to oneself"
BROKEN: dict[str, Any] = {
    "large": CANARY + "x" * 70_000,
    "half": f"{CANARY} \ud83d",
    "nan": {"score": float("nan")},
}


class Lazy:
    """Says something in the conversation when a template shows it."""

    def __init__(self, conversation: Conversation, value: Any) -> None:
        self.conversation = conversation
        self.value = value

    def __str__(self) -> str:
        self.conversation.messages.append("user", self.value)
        return "said"


def value_of(request: Any) -> Any:
    """Return the value as a client sends it, in JSON that Python reads and others do not."""
    return json.loads(json.dumps(BROKEN[request.GET["value"]]))


def put_inside(conversation: Conversation, value: Any) -> None:
    """Put a value where it is found only when the conversation is saved."""
    conversation["answers"] = []
    conversation["answers"].extend([value] * 4)  # which are too large together, if each is large


def template(conversation: Conversation, value: Any) -> SimpleTemplateResponse:
    source = engines["django"].from_string("{{ lazy }}")
    return SimpleTemplateResponse(source, {"lazy": Lazy(conversation, value)})


def in_view(request: Any) -> HttpResponse:
    request.conversation.messages.append("user", value_of(request))
    return HttpResponse("kept")


async def ain_view(request: Any) -> HttpResponse:
    (await request.aconversation()).messages.append("user", value_of(request))
    return HttpResponse("kept")


def at_save(request: Any) -> HttpResponse:
    put_inside(request.conversation, value_of(request))
    return HttpResponse("kept")


async def aat_save(request: Any) -> HttpResponse:
    put_inside(await request.aconversation(), value_of(request))
    return HttpResponse("kept")


def in_template(request: Any) -> HttpResponse:
    return template(request.conversation, value_of(request))


async def ain_template(request: Any) -> HttpResponse:
    return template(await request.aconversation(), value_of(request))


def new_stream(request: Any) -> StreamingHttpResponse:
    """A new conversation is saved before its stream begins."""
    put_inside(request.conversation, value_of(request))
    return StreamingHttpResponse(iter(["never sent"]))


async def anew_stream(request: Any) -> StreamingHttpResponse:
    put_inside(await request.aconversation(), value_of(request))

    async def content() -> AsyncIterator[str]:
        yield "never sent"

    return StreamingHttpResponse(content())


@conversation_turn
def turn_end(request: Any) -> HttpResponse:
    put_inside(request.conversation, value_of(request))
    return HttpResponse("kept")


@conversation_turn
async def aturn_end(request: Any) -> HttpResponse:
    put_inside(await request.aconversation(), value_of(request))
    return HttpResponse("kept")


CHUNKS = ["before \ud83d", "\ude00 after ", "\ud83d"]


def half_stream(request: Any) -> StreamingHttpResponse:
    """Its last chunk is half an emoji, which is found out when the headers were sent."""
    messages = request.conversation.messages
    messages.append("user", "hello")
    return StreamingHttpResponse(messages.stream("assistant", iter(CHUNKS)))


async def ahalf_stream(request: Any) -> StreamingHttpResponse:
    messages = (await request.aconversation()).messages
    messages.append("user", "hello")

    async def chunks() -> AsyncIterator[str]:
        for chunk in CHUNKS:
            yield chunk

    return StreamingHttpResponse(messages.stream("assistant", chunks()))


class RestView(APIView):
    def get(self, request: Any) -> Response:
        request.conversation.messages.append("user", value_of(request))
        return Response("kept")


class RestSave(APIView):
    def get(self, request: Any) -> Response:
        put_inside(request.conversation, value_of(request))
        return Response("kept")


class Late(dict[str, Any]):
    """Data of a response that are made while it is rendered."""

    def __init__(self, conversation: Conversation, value: Any) -> None:
        super().__init__(late=True)
        self.conversation = conversation
        self.value = value

    def items(self) -> Any:
        self.conversation.messages.append("user", self.value)
        return super().items()


class RestRendering(APIView):
    def get(self, request: Any) -> Response:
        return Response(Late(request.conversation, value_of(request)))


def error_named(request: Any) -> Exception:
    error: Exception = getattr(exceptions, request.GET["name"])(f"about {CANARY}")
    return error


def raising(request: Any) -> HttpResponse:
    raise error_named(request)


async def araising(request: Any) -> HttpResponse:
    raise error_named(request)


class RestRaising(APIView):
    def get(self, request: Any) -> Response:
        raise error_named(request)


def keyed(request: Any) -> HttpResponse:
    request.conversation["given"] = {request.GET["key"]: [float("nan")]}
    return HttpResponse("kept")


VIEWS = [
    (in_view, ain_view),
    (at_save, aat_save),
    (in_template, ain_template),
    (new_stream, anew_stream),
    (turn_end, aturn_end),
    (half_stream, ahalf_stream),
    (raising, araising),
]
REST: dict[str, type[APIView]] = {
    "rest_view": RestView,
    "rest_save": RestSave,
    "rest_rendering": RestRendering,
    "rest_raising": RestRaising,
}

urlpatterns = (
    [
        path(f"{way}/{pair[0].__name__}", pair[way == "async"])
        for pair in VIEWS
        for way in ("sync", "async")
    ]
    + [
        path(f"{way}/{name}", view.as_view())
        for name, view in REST.items()
        for way in ("sync", "async")
    ]
    + [path("sync/keyed", keyed)]
)
