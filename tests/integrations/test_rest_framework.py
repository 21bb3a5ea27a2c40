"""The serializer for Django REST framework, with its own views and renderers."""

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.response import Response
from rest_framework.views import APIView

from django_convstate import Conversation, conversations
from django_convstate.conversation import state
from django_convstate.decorators import conversation_turn
from django_convstate.integrations.rest_framework import ConversationSerializer
from django_convstate.middleware import ConversationMiddleware
from tests.support.people import Users, use_people

FIELDS = ["id", "state", "messages", "created_at", "modified_at", "last_accessed", "expires_at"]


class Show(APIView):
    def get(self, request: Any) -> Response:
        request.conversation.messages.append("user", "hello")
        return Response(ConversationSerializer(request.conversation).data)


def test_it_shows_all_but_the_owner(saved: Conversation) -> None:
    saved.claim("42")
    shown = ConversationSerializer(saved).data
    assert list(shown) == FIELDS
    assert shown["id"] == saved.id
    assert shown["state"] == dict(saved)
    assert shown["messages"] == list(saved.messages)
    for name in FIELDS[3:]:
        assert datetime.fromisoformat(shown[name]) == getattr(saved, name)
    assert "owner" not in json.dumps(shown)


def test_many_are_a_list(saved: Conversation) -> None:
    shown = ConversationSerializer([saved, conversations.create()], many=True).data
    assert [each["id"] == saved.id for each in shown] == [True, False]
    assert shown[1]["created_at"] is None
    assert shown[1]["messages"] == []


def test_what_is_shown_are_copies(saved: Conversation) -> None:
    shown = ConversationSerializer(saved).data
    shown["messages"][0]["content"] = "changed"
    shown["messages"].clear()
    assert saved.messages[0]["content"] == "message 0"
    assert not saved.is_modified


def test_a_view_of_it_answers_in_json(rf: RequestFactory) -> None:
    response: Any = ConversationMiddleware(Show.as_view())(
        rf.get("/", headers={"accept": "application/json"})
    )
    shown = json.loads(response.render().content)
    assert [message["content"] for message in shown["messages"]] == ["hello"]
    assert conversations.exists(shown["id"])


def test_other_messages_may_be_shown(saved: Conversation) -> None:
    class Newest(ConversationSerializer):
        def messages_of(self, conversation: Conversation) -> list[dict[str, Any]]:
            return conversation.messages.for_llm(1)

    assert Newest(saved).data["messages"] == [{"role": "user", "content": "message 9"}]


def test_it_reads_nothing() -> None:
    serializer = ConversationSerializer(data={"state": {}})
    with pytest.raises(NotImplementedError):
        serializer.is_valid()


def test_a_field_that_is_an_attribute_says_what_to_use(saved: Conversation) -> None:
    class Wrong(serializers.Serializer):
        id = serializers.CharField()

    with pytest.raises(KeyError, match=r"conversation\.id.*ConversationSerializer"):
        _ = Wrong(saved).data


@pytest.mark.parametrize("name", sorted(state._ATTRIBUTES))
def test_so_does_the_key_itself(saved: Conversation, name: str) -> None:
    assert hasattr(saved, name)
    with pytest.raises(KeyError, match=rf"conversation\.{name}:"):
        _ = saved[name]
    assert saved.get(name) is None
    assert name not in saved
    saved[name] = "a key as any other"
    assert saved[name] == "a key as any other"


def test_every_property_of_a_conversation_is_among_them() -> None:
    properties = {name for name in vars(Conversation) if _is_property(name)}
    assert properties == state._ATTRIBUTES


def _is_property(name: str) -> bool:
    return isinstance(vars(Conversation)[name], property)


def test_another_key_is_named_alone(saved: Conversation) -> None:
    with pytest.raises(KeyError) as caught:
        _ = saved["absent"]
    assert caught.value.args == ("absent",)


def test_without_the_library_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['rest_framework'] = None\n"
        "import django_convstate.integrations\n"
        "try: import django_convstate.integrations.rest_framework\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install django-convstate[drf]" in found.stdout


def test_the_package_does_not_import_it() -> None:
    code = (
        "import sys, django\nfrom django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['django_convstate'])\ndjango.setup()\n"
        "import django_convstate.middleware, django_convstate.urls\n"
        "assert 'rest_framework' not in sys.modules\n"
        "assert 'django_convstate.integrations' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Views that authenticate by a token, inside or around what uses the conversation.


class ByToken(BaseAuthentication):
    def authenticate(self, request: Any) -> tuple[Any, None] | None:
        name = request.META.get("HTTP_AUTHORIZATION")
        return None if name is None else (Users.named(name), None)


def tell(request: Any) -> Response:
    request.conversation.messages.append("user", request.GET["say"])
    return Response([message["content"] for message in request.conversation.messages])


class Told(APIView):
    authentication_classes = (ByToken,)

    def get(self, request: Any) -> Response:
        return tell(request)


class Saved(Told):
    def get(self, request: Any) -> Response:
        response = tell(request)
        request.conversation.save()
        return response


def loads_first(view: Any) -> Any:
    def respond(request: Any) -> Any:
        len(request.conversation.messages)
        return view(request)

    return respond


@conversation_turn
def streams(request: Any) -> StreamingHttpResponse:
    response = Told.as_view()(request)

    def parts() -> Any:
        yield response.render().content

    return StreamingHttpResponse(parts())


@method_decorator(conversation_turn, "get")
class ToldInTurn(Told):
    pass


INSIDE = {"told": Told.as_view(), "turn": ToldInTurn.as_view()}
OUTSIDE = {
    "told": loads_first(Told.as_view()),
    "turn": conversation_turn(Told.as_view()),
    "saved": loads_first(Saved.as_view()),
    "stream": streams,
}


def plain(request: Any) -> HttpResponse:
    tell(request)
    return HttpResponse()


urlpatterns = [
    path("plain", plain),
    *(path(f"inside/{name}", view) for name, view in INSIDE.items()),
    *(path(f"outside/{name}", view) for name, view in OUTSIDE.items()),
]


@pytest.fixture
def client(settings: Any) -> Client:
    use_people(settings)
    settings.ROOT_URLCONF = __name__
    return Client(raise_request_exception=False)


def say(client: Client, url: str, said: str, name: str | None = None) -> tuple[int, list[str]]:
    headers = {"accept": "application/json"} | ({} if name is None else {"authorization": name})
    response = client.get(url, {"say": said}, headers=headers)
    if response.status_code != 200:
        return response.status_code, []
    try:
        return 200, json.loads(response.getvalue())
    except ImproperlyConfigured:  # which has ended the stream
        return 500, []
    finally:
        response.close()


def owned() -> list[tuple[str | None, int]]:
    return [(each.owner, each.message_count) for each in conversations.list()]


@pytest.mark.parametrize("view", INSIDE)
def test_who_is_authenticated_first_goes_on(client: Client, view: str) -> None:
    assert say(client, f"/inside/{view}", "one", "olga") == (200, ["one"])
    assert say(client, f"/inside/{view}", "two", "olga") == (200, ["one", "two"])
    assert owned() == [("1", 2)]


@pytest.mark.parametrize("view", OUTSIDE)
def test_a_new_one_is_that_of_the_user_who_is_authenticated_after_the_load(
    client: Client, view: str
) -> None:
    assert say(client, f"/outside/{view}", "one", "olga") == (200, ["one"])
    assert owned() == [("1", 1)]
    assert say(client, "/inside/told", "two", "olga") == (200, ["one", "two"])


@pytest.mark.parametrize("view", OUTSIDE)
@pytest.mark.parametrize("first", [None, "olga", "mallory"])
def test_a_stored_one_is_not_saved_and_the_right_order_is_named(
    client: Client, view: str, first: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    say(client, "/inside/told", "one", first)
    before = owned()
    if first == "mallory":  # whose conversation the request does not open
        assert say(client, f"/outside/{view}", "two", "olga") == (200, ["two"])
        assert sorted(owned()) == [("1", 1), ("2", 1)]
        return
    assert say(client, f"/outside/{view}", "two", "olga")[0] == 500
    assert "@conversation_turn inside of @api_view" in caplog.text
    assert owned() == before
    assert say(client, "/inside/told", "three", first) == (200, ["one", "three"])


def test_nor_is_that_of_a_session_for_an_api_that_does_not_know_it(client: Client) -> None:
    client.force_login(Users.named("olga"))
    client.get("/plain", {"say": "one"})
    before = owned()
    assert say(client, "/outside/told", "two")[0] == 500
    assert owned() == before


@pytest.mark.parametrize("view", OUTSIDE)
def test_without_a_user_both_orders_are_the_same(client: Client, view: str) -> None:
    assert say(client, f"/outside/{view}", "one") == (200, ["one"])
    assert say(client, f"/outside/{view}", "two") == (200, ["one", "two"])
    assert owned() == [(None, 2)]


def test_with_owners_of_ones_own_that_is_not_asked(client: Client, settings: Any) -> None:
    settings.CONVERSATION_STATE = {"OWNER": None}
    for said in (["one"], ["one", "two"]):
        assert say(client, "/outside/told", said[-1], "olga") == (200, said)
