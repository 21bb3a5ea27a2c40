"""The README does what it says: its Python is run, its settings are the defaults, its links lead
somewhere."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import get_commands, load_command_class
from django.http import Http404, HttpRequest, JsonResponse, StreamingHttpResponse
from django.template import Context, Template
from django.test import RequestFactory
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

import django_convstate
from django_convstate import (
    ConversationConflict,
    ConversationNotFound,
    MessageNotFound,
    claim_conversation,
    conf,
    conversations,
)
from django_convstate.checks import check_settings
from django_convstate.exceptions import ConversationError
from django_convstate.middleware import ConversationMiddleware
from django_convstate.testing import BackendContract
from tests.support.docs import README, ROOT, ask, blocks


def block_with(words: str) -> str:
    (found,) = [block for block in blocks(README, "python") if words in block]
    return found


def run(words: str, **names: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"JsonResponse": JsonResponse, "Http404": Http404} | names
    exec(compile(block_with(words), "README.md", "exec"), namespace)
    return namespace


def post(view: Any, cookies: dict[str, str] | None = None, **data: str) -> JsonResponse:
    request = RequestFactory().post("/", data)
    request.COOKIES.update(cookies or {})
    request.user = AnonymousUser()
    response = ConversationMiddleware(view)(request)
    assert isinstance(response, JsonResponse)
    return response


def as_json(response: JsonResponse) -> Any:
    return response.content.decode()


def test_the_first_view_counts_what_was_said() -> None:
    chat = run("def chat(")["chat"]
    first = post(chat, text="one")
    cookie = first.cookies["conversation"].value
    second = post(chat, {"conversation": cookie}, text="two")
    assert as_json(second) == '{"answer": "You have said 2 things so far."}'


def test_the_example_of_use_runs() -> None:
    request = SimpleNamespace(conversation=conversations.create())
    namespace = run("conversation = request.conversation  #", request=request)
    assert namespace["conversation"].is_new, "the last line deletes it"


def test_the_example_of_a_store_outside_a_request_runs() -> None:
    namespace = run("from django_convstate import ConversationNotFound")
    assert namespace["conversation"].owner == "42"


def test_settings_are_the_defaults() -> None:
    shown = run('"TTL": 3600')["CONVERSATION_STATE"]
    defaults = conf.Options()
    assert shown == {
        name.upper(): getattr(defaults, name) for name in conf.Options.__dataclass_fields__
    }


def test_the_example_that_asks_a_model_runs() -> None:
    asked: list[dict[str, Any]] = []

    def create(model: str, messages: list[dict[str, Any]]) -> Any:
        asked.extend(messages)
        message = SimpleNamespace(content="hello yourself")
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    completions = SimpleNamespace(create=create)
    client = SimpleNamespace(chat=SimpleNamespace(completions=completions))
    response = post(run("def ask(", client=client)["ask"], text="hello")
    assert as_json(response) == '{"answer": "hello yourself"}'
    assert asked == [{"role": "user", "content": "hello"}]


def test_the_example_of_one_turn_at_a_time_runs() -> None:
    def answer_to(messages: list[dict[str, Any]]) -> str:
        if messages[-1]["content"] == "fail":
            raise RuntimeError("no model")
        return f"answer to {len(messages)}"

    view = run("@conversation_turn", answer_to=answer_to)["ask_in_turn"]
    cookie = post(view, text="hello").cookies["conversation"].value
    with pytest.raises(RuntimeError):
        post(view, {"conversation": cookie}, text="fail")
    response = post(view, {"conversation": cookie}, text="again")
    assert as_json(response) == '{"answer": "answer to 3"}'


class FakeModel:
    """Streams as OpenAI's clients do: pieces of text, None, and a last chunk without choices."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.chat = SimpleNamespace(completions=self)

    def create(self, model: str, messages: list[dict[str, Any]], stream: bool) -> Any:
        self.asked.extend(messages)
        deltas = [SimpleNamespace(content=content) for content in ("", "hello ", "you", None)]
        yield from (SimpleNamespace(choices=[SimpleNamespace(delta=delta)]) for delta in deltas)
        yield SimpleNamespace(choices=[])


def test_the_example_of_tools_runs() -> None:
    """The model calls two tools, and answers when it has their results."""

    def create(model: str, messages: list[dict[str, Any]], tools: list[str]) -> Any:
        asked.append(messages)
        made: dict[str, Any] = {"role": "assistant", "content": "It is warm in both."}
        calls = [] if len(asked) > 1 else [SimpleNamespace(id=id) for id in ("a", "b")]
        if calls:
            made = {"role": "assistant", "tool_calls": [vars(call) for call in calls]}
        answer = SimpleNamespace(
            content=made.get("content"), tool_calls=calls, model_dump=lambda exclude_none: made
        )
        return SimpleNamespace(choices=[SimpleNamespace(message=answer)])

    asked: list[list[dict[str, Any]]] = []
    completions = SimpleNamespace(create=create)
    view = run(
        "def ask_with_tools(",
        client=SimpleNamespace(chat=SimpleNamespace(completions=completions)),
        prompt_of_today=lambda: "Today is Monday.",
        result_of=lambda call: f"{call.id}: 30 °C",
        TOOLS=[],
    )["ask_with_tools"]
    assert "It is warm in both." in as_json(post(view, text="hello"))
    roles = ["system", "user", "assistant", "tool", "tool"]
    assert [[m["role"] for m in messages] for messages in asked] == [roles[:2], roles]
    assert [m["tool_call_id"] for m in asked[1][3:]] == ["a", "b"]


def test_the_example_of_a_stream_that_counts_runs() -> None:
    def create(stream_options: Any, **options: Any) -> Any:
        for chunk in FakeModel().create(**options):
            yield SimpleNamespace(usage=None, **vars(chunk))
        yield SimpleNamespace(usage=SimpleNamespace(completion_tokens=2), choices=[])

    completions = SimpleNamespace(create=create)
    view = run(
        "def stream_and_count(",
        client=SimpleNamespace(chat=SimpleNamespace(completions=completions)),
        time=time,
        StreamingHttpResponse=StreamingHttpResponse,
    )["stream_and_count"]
    response = ConversationMiddleware(view)(RequestFactory().post("/", {"text": "hello"}))
    assert b"".join(response) == b"hello you"  # type: ignore[arg-type]
    (summary,) = conversations.list()
    answer = conversations.get(summary.id).messages[-1]
    assert answer["tokens"] == 2
    assert answer["first_word_after"] >= 0


class AsyncFakeModel:
    def __init__(self) -> None:
        self.chat = SimpleNamespace(completions=self)

    async def create(self, **options: Any) -> Any:
        async def reply() -> AsyncIterator[Any]:
            for chunk in FakeModel().create(**options):
                yield chunk

        return reply()


def kept() -> list[tuple[str, str]]:
    (summary,) = conversations.list()
    return [(m["role"], m["content"]) for m in conversations.get(summary.id).messages.all()]


def test_the_example_of_a_streamed_answer_runs() -> None:
    model = FakeModel()
    view = run("def stream(", client=model, StreamingHttpResponse=StreamingHttpResponse)["stream"]
    response = ConversationMiddleware(view)(RequestFactory().post("/", {"text": "hello"}))
    assert b"".join(response) == b"hello you"  # type: ignore[arg-type]
    assert model.asked == [{"role": "user", "content": "hello"}]
    assert kept() == [("user", "hello"), ("assistant", "hello you")]


async def test_the_example_of_server_sent_events_runs() -> None:
    names = {
        "client": AsyncFakeModel(),
        "json": json,
        "StreamingHttpResponse": StreamingHttpResponse,
    }
    view = run("async def events(", **names)["events"]
    request = RequestFactory().post("/", {"text": "hello"})
    response = await ConversationMiddleware(view)(request)  # type: ignore[misc]
    sent = b"".join([part async for part in response]).decode()
    assert sent.startswith('data: ""\n\ndata: "hello "\n\n')
    assert sent.endswith("event: done\ndata:\n\n")
    assert kept() == [("user", "hello"), ("assistant", "hello you")]


def test_the_example_for_rest_framework_runs() -> None:
    view: Any = run(
        "class ChatView(APIView)", APIView=APIView, serializers=serializers, Response=Response
    )["ChatView"].as_view()

    def rendered(request: Any) -> Any:
        return view(request).render()

    request = RequestFactory().post("/", {"text": "hello"})
    response = ConversationMiddleware(rendered)(request)
    assert b"You said: hello" in response.content  # type: ignore[union-attr]
    assert "conversation" in response.cookies  # type: ignore[union-attr]
    assert ConversationMiddleware(rendered)(RequestFactory().post("/")).status_code == 400  # type: ignore[union-attr]


def test_the_example_that_closes_the_store_runs() -> None:
    outages = (ROOT / "docs/outages.md").read_text()
    (block,) = [block for block in blocks(outages, "python") if "lifespan" in block]
    namespace: dict[str, Any] = {"conversations": conversations, "django_application": None}
    exec(compile(block, "docs/outages.md", "exec"), namespace)
    coming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(namespace["application"]({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_the_example_of_an_async_view_runs() -> None:
    view = run("async def achat(")["achat"]
    request = RequestFactory().post("/", {"text": "hello"})
    response = await ConversationMiddleware(view)(request)  # type: ignore[misc]
    assert b"hello" in response.content


LONG_ID = "wamid." + 72 * "A"  # as WhatsApp makes them


def test_the_example_of_a_webhook_runs() -> None:
    asked: list[list[dict[str, Any]]] = []

    def answer_to(messages: list[dict[str, Any]]) -> str:
        asked.append(messages)
        return f"answer to {len(messages)}"

    jobs: list[Any] = []
    incoming = run(
        "def incoming(",
        conversations=conversations,
        answer_to=answer_to,
        enqueue=lambda *job: jobs.append(job),
        MessageNotFound=MessageNotFound,
    )["incoming"]
    log = run("def log(", conversations=conversations)["log"]
    told = [log("+15550100", "hello", delivery) for delivery in (LONG_ID, LONG_ID)]
    assert told == ["kept", "known already"]
    for _ in range(2):
        incoming("+15550100", "are you there?", LONG_ID[:-1])
    job, id, delivery = jobs[0]
    with pytest.raises(MessageNotFound):  # what it answers is not in the store yet
        job(id, conversations.key("next"))
    with pytest.raises(ConversationNotFound):
        job("whatsapp:+15550101", delivery)
    assert asked == []
    for job, *arguments in jobs:
        job(*arguments)
    assert len(asked) == 1, "a redelivery asks no model"
    messages = conversations.get("whatsapp:+15550100").messages
    assert [message["content"] for message in messages] == [
        "hello",
        "are you there?",
        "answer to 2",
    ]


def test_the_example_of_a_login_without_django_claims_the_conversation() -> None:
    issue_token = run(
        "def issue_token(",
        claim_conversation=claim_conversation,
        user_with=lambda password: User(pk=42),
        token_for=lambda user: "a token",
    )["issue_token"]
    conversation = conversations.create()
    conversation["a"] = 1
    conversation.save()
    response = post(issue_token, {"conversation": conversation.token}, password="...")
    claimed = conversations.get(conversation.id, owner="42")
    assert claimed["a"] == 1
    assert response.cookies["conversation"].value == claimed.token


def test_the_example_of_a_list_serves_the_owner_alone() -> None:
    resume = run(
        "def resume(", conversations=conversations, ConversationNotFound=ConversationNotFound
    )["resume"]
    conversation = conversations.create(owner="42")
    conversation.messages.append("user", "mine")
    conversation.save()
    request = HttpRequest()
    request.user = User(pk=42)
    assert b"mine" in resume(request, conversation.id).content
    for stranger in (User(pk=43), AnonymousUser()):
        request.user = stranger
        with pytest.raises(Http404):
            resume(request, conversation.id)


def test_the_example_of_a_version_check_conflicts() -> None:
    edit = run("def edit(")["edit"]
    cookie = post(edit, itinerary="a", version="0").cookies["conversation"].value
    post(edit, {"conversation": cookie}, itinerary="b", version="1")
    with pytest.raises(ConversationConflict):
        post(edit, {"conversation": cookie}, itinerary="c", version="1")


@pytest.mark.parametrize("backend", ["locmem", "cache", "redis"])
def test_the_example_of_tenants_keeps_them_apart(settings: Any, valkey: None, backend: str) -> None:
    settings.CONVERSATION_STATE_BACKEND = backend
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis"}
    names = run("class TenantConversations(")

    def say(request: Any) -> JsonResponse:
        request.conversation.messages.append("user", request.GET["text"])
        return JsonResponse({"count": len(request.conversation.messages)})

    def visit(tenant: str, cookies: Any) -> Any:
        request: Any = RequestFactory().get("/", {"text": f"of {tenant}"})
        request.COOKIES.update(cookies)
        request.user = AnonymousUser()
        request.tenant = SimpleNamespace(schema_name=tenant)
        return names["TenantConversations"](say)(request)

    first = visit("acme", {})
    cookies = {"conversation": first.cookies["conversation"].value}
    assert as_json(visit("acme", cookies)) == '{"count": 2}'
    assert as_json(visit("zenith", cookies)) == '{"count": 1}'
    for tenant in ("acme", "zenith"):
        names["store_of"](tenant).backend.close()


@pytest.mark.parametrize("words", ['COOKIE_PARTITIONED": True', '"COOKIE_NAME": None'])
def test_the_examples_of_settings_are_fine(settings: Any, words: str) -> None:
    settings.CONVERSATION_STATE = run(words)["CONVERSATION_STATE"]
    assert check_settings() == []


def test_the_example_of_a_transcript_is_rendered() -> None:
    conversation = conversations.create()
    conversation.messages.append("user", "<script>")
    conversation.messages.append("assistant", "two\nlines")
    conversation.messages.append("expert", "?")
    (block,) = blocks(README, "django")
    template = Template("{% load static %}" + block)
    shown = template.render(Context({"request": SimpleNamespace(conversation=conversation)}))
    for part in ("You", "Assistant", "expert", "&lt;script&gt;", "two<br>lines", "transcript.css"):
        assert part in shown
    assert "<script>" not in shown


def test_every_error_is_listed() -> None:
    names = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    public = {
        name
        for name, value in vars(django_convstate).items()
        if isinstance(value, type) and issubclass(value, ConversationError)
    }
    assert names == public - {"ConversationError"}


def test_the_commands_in_the_readme_exist() -> None:
    shown = "\n".join(blocks(README, "console"))
    for name in ("purge_sessions", "inspect_sessions"):
        assert get_commands()[name] == "django_convstate"
        parser = load_command_class("django_convstate", name).create_parser("manage.py", name)
        for line in re.findall(rf"manage.py {name}(.*?)(?:#|$)", shown, re.MULTILINE):
            parser.parse_args(line.split())


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", "docs/backends.md", "docs/live.md", "docs/testing.md"]
)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_example_of_a_backend_inherits_the_contract() -> None:
    (block,) = blocks((ROOT / "docs/backends.md").read_text(), "python")
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    assert issubclass(namespace["TestMyBackend"], BackendContract)


@pytest.mark.django_db  # Channels looks after connections to it
async def test_the_example_of_a_websocket_answers() -> None:
    (heard,) = await ask(run("class Chat(")["websocket"], text="hello")
    said = [message["content"] for message in heard["messages"]]
    assert said == ["hello", "1 things so far"]


def test_make_knows_what_the_readme_promises() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
