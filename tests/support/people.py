"""Persons with a browser, who come to one chat over HTTP, websockets, streams and lists; and the
views they come to. Users and sessions are in memory: no test of these needs a database.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.auth import alogin, alogout, login, logout
from django.contrib.auth.models import User
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_convstate import ConversationNotFound, InvalidBackend, conversations
from django_convstate.channels import ConversationMiddlewareStack
from django_convstate.conversation import cancellation
from django_convstate.identity import as_subprotocol
from django_convstate.tokens import read_token, unsign_token
from tests.support.consumers import Chat
from tests.support.tabs import PATIENCE, Tab

HEADER = "X-Conversation"


class Users:
    """A backend of Django's authentication."""

    known: dict[int, User] = {}  # noqa: RUF012 - for all
    names = ("olga", "mallory")

    @classmethod
    def reset(cls) -> None:
        for pk, name in enumerate(cls.names, 1):
            user = User(pk=pk, username=name, password=f"of {name}")
            user.save = lambda **kwargs: None  # type: ignore[method-assign]
            cls.known[pk] = user

    @classmethod
    def named(cls, name: str) -> User:
        return cls.known[cls.names.index(name) + 1]

    def get_user(self, pk: int) -> User | None:
        return self.known.get(pk)

    async def aget_user(self, pk: int) -> User | None:
        return self.known.get(pk)


def use_people(settings: Any) -> None:
    """Set what the views and the users here need."""
    Users.reset()
    settings.ROOT_URLCONF = "tests.support.people"
    settings.AUTHENTICATION_BACKENDS = ["tests.support.people.Users"]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"


# The views.


def talked(request: Any, conversation: Any) -> dict[str, Any]:
    if "say" in request.GET:
        conversation.messages.append("user", request.GET["say"])
        conversation["value"] = request.GET["say"]
    said = [message["content"] for message in conversation.messages.window(50)]
    return {"said": said, "state": dict(conversation), "count": len(conversation.messages)}


def chat(request: Any) -> HttpResponse:
    return JsonResponse(talked(request, request.conversation))


async def achat(request: Any) -> HttpResponse:
    return JsonResponse(talked(request, await request.aconversation()))


def stream(request: Any) -> StreamingHttpResponse:
    _ = request.conversation.id  # before the headers are sent, with the token in them

    def events() -> Iterator[str]:
        yield f"data: {json.dumps(talked(request, request.conversation))}\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def astream(request: Any) -> StreamingHttpResponse:
    conversation = await request.aconversation()

    async def events() -> AsyncIterator[str]:
        yield f"data: {json.dumps(talked(request, conversation))}\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


def at(request: Any, id: str) -> HttpResponse:
    try:
        request.conversation = conversations.get(id, owner=request.user)
    except ConversationNotFound:
        raise Http404 from None
    return JsonResponse(talked(request, request.conversation))


async def aat(request: Any, id: str) -> HttpResponse:
    try:
        request.conversation = await conversations.aget(id, owner=await request.auser())
    except ConversationNotFound:
        raise Http404 from None
    return JsonResponse(talked(request, request.conversation))


def mine(request: Any) -> HttpResponse:
    try:
        return _listed(list(conversations.list(owner=request.user, keys=["value"])))
    except InvalidBackend as error:  # a cache cannot list
        return HttpResponse(str(error), status=501)


async def amine(request: Any) -> HttpResponse:
    listing = conversations.alist(owner=await request.auser(), keys=["value"])
    try:
        return _listed([summary async for summary in listing])
    except InvalidBackend as error:
        return HttpResponse(str(error), status=501)


def _listed(summaries: list[Any]) -> HttpResponse:
    said = [summary.state.get("value") for summary in summaries]
    return JsonResponse({"said": said, "ids": [summary.id for summary in summaries]})


def log_in(request: Any, name: str) -> HttpResponse:
    login(request, Users.named(name))
    return HttpResponse("welcome")


async def alog_in(request: Any, name: str) -> HttpResponse:
    await alogin(request, Users.named(name))
    return HttpResponse("welcome")


def log_out(request: Any) -> HttpResponse:
    logout(request)
    return HttpResponse("bye")


async def alog_out(request: Any) -> HttpResponse:
    await alogout(request)
    return HttpResponse("bye")


urlpatterns = [
    *(path("sync/chat", chat), path("async/chat", achat)),
    *(path("sync/stream", stream), path("async/stream", astream)),
    *(path("sync/at/<str:id>", at), path("async/at/<str:id>", aat)),
    *(path("sync/mine", mine), path("async/mine", amine)),
    *(path("sync/login/<str:name>", log_in), path("async/login/<str:name>", alog_in)),
    *(path("sync/logout", log_out), path("async/logout", alog_out)),
]


# Those who come.


@dataclass
class Seen:
    """What a client gets for one request, or for one socket."""

    status: int | None
    body: str
    headers: dict[str, str]
    cookies: SimpleCookie = field(default_factory=SimpleCookie)
    said: list[str] | None = None  # as far as it is shown

    @property
    def everything(self) -> str:
        return f"{self.body} {self.headers} {self.cookies.output()}"

    @property
    def shape(self) -> Any:
        """All but the values of tokens."""
        cookies = {
            name: (bool(cookie.value), sorted((key, str(value)) for key, value in cookie.items()))
            for name, cookie in self.cookies.items()
        }
        headers = {
            name.lower(): "a token" if name.lower() == HEADER.lower() else value
            for name, value in self.headers.items()
            if name.lower() != "set-cookie"
        }
        return self.status, self.body, headers, cookies


class Person:
    """Somebody with a browser, or with what was copied out of one.

    `token` is of the conversation: in the cookie, or wherever else the transport has it.
    """

    def __init__(self, name: str | None = None) -> None:
        self.cookies = SimpleCookie()
        if name is not None:
            self.log_in(name)

    @property
    def token(self) -> str:
        return self.cookies["conversation"].value if "conversation" in self.cookies else ""

    @token.setter
    def token(self, token: str) -> None:
        self.cookies["conversation"] = token

    @property
    def id(self) -> str:
        return unsign_token(self.token) or "absent"

    def twin(self) -> "Person":
        """Return one who has the same in their browser."""
        person = Person()
        person.cookies = copy.deepcopy(self.cookies)
        return person

    def log_in(self, name: str, way: str = "sync") -> Seen:
        return self._get(f"/{way}/login/{name}")

    def log_out(self, way: str = "sync") -> Seen:
        return self._get(f"/{way}/logout")

    def look(self, transport: str) -> Seen:
        seen: Seen = TRANSPORTS[transport](self, None)
        return seen

    def say(self, transport: str, text: str) -> Seen:
        seen: Seen = TRANSPORTS[transport](self, text)
        return seen

    def _get(self, url: str, say: str | None = None, *, by_header: bool = False) -> Seen:
        is_async = url.startswith("/async")
        client: Any = AsyncClient() if is_async else Client()
        client.cookies = SimpleCookie()
        headers = {}
        for name, cookie in self.cookies.items():
            if not cookie.value:
                continue
            if by_header and name == "conversation":
                headers[HEADER] = cookie.value
            else:
                client.cookies[name] = cookie.value
        query = {} if say is None else {"say": say}
        seen: Seen
        if is_async:
            seen = async_to_sync(_aget)(client, url, query, headers)
        else:
            seen = _seen(response := client.get(url, query, headers=headers), response.getvalue())
        self._keep(seen)
        return seen

    def _keep(self, seen: Seen) -> None:
        self.cookies.update(seen.cookies)
        if seen.headers.get(HEADER):
            self.token = seen.headers[HEADER]

    async def _open(self, say: str | None, by: str) -> Seen:
        jar = {name: cookie.value for name, cookie in self.cookies.items() if cookie.value}
        token = jar.get("conversation", "") if by == "cookie" else jar.pop("conversation", "")
        sent = "; ".join(f"{name}={value}" for name, value in jar.items())
        headers = [(b"origin", b"http://testserver"), (b"cookie", sent.encode())]
        offers = {
            "cookie": [],
            "subprotocol": ["convstate", as_subprotocol(token)],
            "message": ["convstate"],
        }[by]
        tab = Tab(ConversationMiddlewareStack(Chat.as_asgi()), "/", headers, offers)
        frames: list[str] = []
        is_open, code = await tab.connect(PATIENCE)
        if is_open:
            if by == "message":
                await tab.send_json_to({"type": "conversation.token", "token": token})
            wish = {} if say is None else {"say": say, "set": say}
            code = await _ask(tab, frames, wish) or await _ask(tab, frames, {})
        if not tab.future.done():
            await tab.send_input({"type": "websocket.disconnect", "code": 1000})
            await tab.wait(PATIENCE)
        answers = [json.loads(frame) for frame in frames]
        said = [each["messages"] for each in answers if "turns" in each]
        received = {} if not is_open else tab.headers
        cookies = SimpleCookie(received.get("set-cookie", ""))
        presented = read_token(self.token)
        if presented is not None and presented.is_unsaved and "conversation" in cookies:
            # The same once more, with a later time, if a second has passed.
            received = {name: value for name, value in received.items() if name != HEADER.lower()}
            cookies.clear()
        # A token in a frame is for this client, as one in a cookie is.
        shown = [{**each, "token": "a token"} if "token" in each else each for each in answers]
        seen = Seen(code, json.dumps(shown), received, cookies, said[-1] if said else None)
        self._keep(seen)
        return seen


async def _ask(tab: Tab, frames: list[str], content: dict[str, Any]) -> int | None:
    """Send a message and wait for its answer; return the code, if the socket is closed instead."""
    await tab.send_json_to(content)
    while True:
        message = await tab.receive_output(PATIENCE)
        if message["type"] == "websocket.close":
            code: int = message.get("code", 1000)
            return code
        frames.append(message["text"])
        if "turns" in json.loads(message["text"]):
            return None


async def _aget(client: AsyncClient, url: str, query: Any, headers: Any) -> Seen:
    response: Any = await client.get(url, query, headers=headers)
    if response.streaming:
        body = b"".join([part async for part in response])
        response.close()
        await asyncio.gather(*cancellation._background)
    else:
        body = response.content
    return _seen(response, body)


def _seen(response: Any, body: bytes) -> Seen:
    text = body.decode()
    said = json.loads(text.removeprefix("data: "))["said"] if '"said"' in text else None
    cookies = SimpleCookie()
    cookies.update(response.cookies)
    return Seen(response.status_code, text, dict(response.headers), cookies, said)


def _socket(by: str) -> Any:
    return lambda person, say: async_to_sync(person._open)(say, by)


# How one comes to a conversation: by a request, a websocket, a stream, an id in a URL, a list.
TRANSPORTS: dict[str, Any] = {
    "http": lambda person, say: person._get("/sync/chat", say),
    "async": lambda person, say: person._get("/async/chat", say),
    "sse": lambda person, say: person._get("/sync/stream", say),
    "async sse": lambda person, say: person._get("/async/stream", say),
    "header": lambda person, say: person._get("/sync/chat", say, by_header=True),
    "async header": lambda person, say: person._get("/async/chat", say, by_header=True),
    "url": lambda person, say: person._get(f"/sync/at/{person.id}", say),
    "async url": lambda person, say: person._get(f"/async/at/{person.id}", say),
    "list": lambda person, say: person._get("/sync/mine"),
    "async list": lambda person, say: person._get("/async/mine"),
    "websocket": _socket("cookie"),
    "websocket subprotocol": _socket("subprotocol"),
    "websocket message": _socket("message"),
}
