"""docs/moving-in.md does what it says: its recipes are run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client
from django.test.utils import isolate_apps
from django.urls import path

from django_convstate import ConversationNotFound, conversations
from tests.support.docs import ROOT, blocks

TEXT = (ROOT / "docs/moving-in.md").read_text()
START = datetime(2024, 5, 1, 12, tzinfo=UTC)
SAID = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]


def define(*words: str, **names: Any) -> dict[str, Any]:
    for word in words:
        (found,) = [each for each in blocks(TEXT, "python") if word in each]
        exec(compile(found, "moving-in.md", "exec"), names)
    return names


def test_the_first_example() -> None:
    define('"chat-7"')
    conversation = conversations.get("chat-7", owner="42")
    assert conversation["title"] == "A trip"
    assert [message["content"] for message in conversation.messages] == ["hi", "Hello!"]
    assert conversation.created_at == START
    assert conversation.modified_at == START + timedelta(seconds=2)


def keep_in_session(request: HttpRequest) -> HttpResponse:
    request.session["messages"] = SAID
    return HttpResponse()


def chat(request: HttpRequest) -> HttpResponse:
    names = define("def move_session_in", JsonResponse=JsonResponse)
    answer: HttpResponse = names["chat"](request)
    return answer


urlpatterns = [path("before", keep_in_session), path("chat", chat)]


@pytest.mark.django_db
@pytest.mark.urls(__name__)
@pytest.mark.parametrize("logged_in", [False, True])
def test_a_session_moves_in_when_its_visitor_comes(client: Client, logged_in: bool) -> None:
    if logged_in:
        client.force_login(User.objects.create(username="ada", pk=7))
    client.get("/before")
    for number in range(3):
        found = client.post("/chat", {"message": f"and {number}"}).json()["messages"]
        assert [message["content"] for message in found] == [
            "hi",
            "Hello!",
            "and 0",
            "and 1",
            "and 2",
        ][: 3 + number]
    assert "messages" not in client.session
    (summary,) = conversations.list()
    assert summary.owner == ("7" if logged_in else None)
    assert summary.message_count == 5


@pytest.mark.django_db
@pytest.mark.urls(__name__)
def test_a_session_that_was_not_saved_moves_in_again(client: Client) -> None:
    client.get("/before")
    before = dict(client.session)
    client.post("/chat", {"message": "and 0"})
    session = client.session
    session.update(before)
    session.save()
    found = client.post("/chat", {"message": "and 1"}).json()["messages"]
    assert [message["content"] for message in found] == ["hi", "Hello!", "and 0", "and 1"]


@pytest.fixture
def names(transactional_db: None) -> Iterator[dict[str, Any]]:
    """The recipe, and its tables."""
    with isolate_apps("tests.support.host") as apps:
        assert apps is not None
        apps.register_model("auth", User)
        found = define(
            "class Chat(",
            "def move_session_in",
            "def move_chat_in",
            __name__="tests.support.host.models",
        )
        with connection.schema_editor() as editor:
            editor.create_model(found["Chat"])
            editor.create_model(found["ChatMessage"])
        yield found
        with connection.schema_editor() as editor:
            editor.delete_model(found["ChatMessage"])
            editor.delete_model(found["Chat"])


def test_tables_move_in_once(names: dict[str, Any]) -> None:
    user = User.objects.create(username="ada", pk=7)
    chats = [
        names["Chat"].objects.create(user=owner, title=f"chat {number}", created_at=START)
        for number, owner in enumerate((user, None, user))
    ]
    for number in range(6):
        names["ChatMessage"].objects.create(
            chat=chats[number % 2],
            role="user",
            text=f"message {number}",
            created_at=START + timedelta(minutes=number),
        )
    request: Any = HttpRequest()
    request.user = user
    names["open_chat"](request, chats[0])
    request.conversation.messages.append("user", "since then")
    request.conversation.save()
    for _ in range(2):
        names["move_all_in"]()
    assert [summary.owner for summary in conversations.list()] == ["7", None], "newest saved first"
    first, second = (conversations.get(conversations.key("chat", chat.pk)) for chat in chats[:2])
    said = [message["content"] for message in first.messages]
    assert said == ["message 0", "message 2", "message 4", "since then"]
    assert first["title"] == "chat 0"
    assert second.created_at == START
    assert second.modified_at == START + timedelta(minutes=5)
    assert second.messages.find(second.messages[0].id) == second.messages[0]
    assert second.messages[0].id.startswith("chat-")
    request.user = User.objects.create(username="bob", pk=8)
    with pytest.raises(ConversationNotFound):
        names["open_chat"](request, chats[0])
