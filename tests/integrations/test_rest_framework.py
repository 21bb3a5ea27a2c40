"""The serializer for Django REST framework, with its own views and renderers."""

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from django_convstate import Conversation, conversations
from django_convstate.conversation import state
from django_convstate.integrations.rest_framework import ConversationSerializer
from django_convstate.middleware import ConversationMiddleware

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
