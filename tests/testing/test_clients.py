"""`client.conversation` is what the client's next request has."""

from typing import Any

import pytest
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import include, path
from rest_framework.test import APIClient

from django_convstate import BackendUnavailable, ConversationStore, conversations
from django_convstate.middleware import ConversationMiddleware
from django_convstate.testing import aseed, seed, store_away

pytestmark = pytest.mark.usefixtures("emptied")

TENANT = ConversationStore("locmem", key_prefix="tenant")


class TenantMiddleware(ConversationMiddleware):
    def get_store(self, request: HttpRequest) -> ConversationStore:
        return TENANT if request.headers.get("X-Tenant") == "acme" else conversations


def log_in(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get())
    return HttpResponse("in")


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("out")


urlpatterns = [
    path("in", log_in),
    path("out", log_out),
    path("", include("tests.support.urls")),
]


def texts(response: Any) -> list[str]:
    found: list[str] = response.json()["messages"]
    return found


class TestAnonymous:
    def test_it_is_what_a_view_has_saved(self, client: Any) -> None:
        client.get("/sync/say?text=hi")
        assert [each["content"] for each in client.conversation.messages] == ["hi"]
        assert client.conversation["turns"] == 1
        assert client.conversation.id == next(conversations.list()).id

    def test_a_new_one_is_what_a_view_goes_on_with(self, client: Any) -> None:
        conversation = client.conversation
        assert conversation.is_new
        assert list(conversations.list()) == []
        conversation.messages.append("assistant", "What is your city?")
        conversation.save()
        assert texts(client.get("/sync/say?text=Paris")) == ["What is your city?", "Paris"]
        assert client.conversation.id == conversation.id

    def test_one_that_is_not_saved_stores_nothing(self, client: Any) -> None:
        first = client.conversation
        assert client.conversation.id == first.id
        assert texts(client.get("/sync/look")) == []
        assert list(conversations.list()) == []

    def test_it_can_be_given(self, client: Any) -> None:
        client.conversation = seed([("user", "seeded")])
        assert texts(client.get("/sync/look")) == ["seeded"]

    def test_a_bad_cookie_is_none(self, client: Any) -> None:
        client.cookies["conversation"] = "forged:signature"
        assert client.conversation.is_new
        assert texts(client.get("/sync/say?text=hi")) == ["hi"]

    def test_one_that_is_gone_is_followed_by_a_new_one(self, client: Any) -> None:
        client.get("/sync/say?text=hi")
        old = client.conversation
        old_id = old.id
        old.delete()
        conversation = client.conversation
        assert (conversation.is_new, conversation.id == old_id) == (True, False)
        conversation["a"] = 1
        conversation.save()
        assert client.get("/sync/look").json()["state"] == {"a": 1}

    def test_the_name_of_the_cookie_is_a_setting(self, client: Any, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"COOKIE_NAME": "chat"}
        client.conversation = seed([("user", "seeded")])
        assert list(client.cookies) == ["chat"]
        assert texts(client.get("/sync/look")) == ["seeded"]
        settings.CONVERSATION_STATE = {"COOKIE_NAME": None, "HEADER_NAME": "X-Chat"}
        for access in (
            lambda: client.conversation,
            lambda: setattr(client, "conversation", seed([("user", "hi")])),
        ):
            with pytest.raises(ImproperlyConfigured, match="COOKIE_NAME"):
                access()

    def test_an_outage_is_not_taken_for_none(self, client: Any) -> None:
        client.conversation = seed([("user", "seeded")])
        cookie = client.cookies["conversation"].value
        with store_away(), pytest.raises(BackendUnavailable):
            _ = client.conversation
        assert client.cookies["conversation"].value == cookie
        assert len(client.conversation.messages) == 1

    def test_clients_that_are_made_of_djangos_have_it_too(self) -> None:
        client: Any = APIClient()
        client.get("/sync/say?text=hi")
        assert client.conversation["turns"] == 1

    def test_it_is_in_the_store_of_the_middleware(self, settings: Any) -> None:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE[:-1], f"{__name__}.TenantMiddleware"]
        client: Any = Client(headers={"X-Tenant": "acme"})
        client.get("/sync/say?text=hi")
        assert client.conversation["turns"] == 1
        assert [each.id for each in TENANT.list()] == [client.conversation.id]
        assert not conversations.exists(client.conversation.id)


@pytest.mark.django_db(transaction=True)
class TestUser:
    @pytest.fixture(autouse=True)
    def _urls(self, settings: Any) -> None:
        settings.ROOT_URLCONF = __name__

    @pytest.fixture
    def user(self) -> User:
        return User.objects.create_user("ada", "ada@example.com")

    def test_it_is_the_users(self, client: Any, user: User) -> None:
        client.force_login(user)
        conversation = client.conversation
        assert (conversation.owner, conversation.is_new) == (str(user.pk), True)
        conversation["city"] = "Paris"
        conversation.save()
        assert client.get("/sync/look").json()["state"] == {"city": "Paris"}
        assert client.conversation["city"] == "Paris"
        assert [each.id for each in conversations.list(user)] == [conversation.id]

    def test_a_seeded_one_is_theirs_alone(self, client: Any, user: User) -> None:
        client.conversation = seed([("user", "mine")], owner=user)
        assert client.conversation.is_new, "nobody is logged in"
        client.force_login(user)
        client.conversation = seed([("user", "mine")], owner=user)
        assert texts(client.get("/sync/look")) == ["mine"]
        client.conversation = seed([("user", "another's")], owner="another")
        assert client.conversation.is_new
        assert texts(client.get("/sync/look")) == []

    def test_a_login_claims_it_as_in_a_request(self, client: Any, user: User) -> None:
        client.get("/sync/say?text=hi")
        id = client.conversation.id
        client.get("/in")
        assert (client.conversation.id, client.conversation.owner) == (id, str(user.pk))
        assert texts(client.get("/sync/say?text=again")) == ["hi", "again"]
        assert client.conversation.id == id
        client.get("/out")
        assert client.conversation.is_new

    def test_the_owner_is_asked_of_the_setting(self, client: Any, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"OWNER": f"{__name__}.address_of"}
        conversation = client.conversation
        assert conversation.owner == "127.0.0.1"
        conversation["a"] = 1
        conversation.save()
        assert client.get("/sync/look").json()["state"] == {"a": 1}
        settings.CONVERSATION_STATE = {"OWNER": None}
        client.cookies.clear()
        assert client.conversation.owner is None

    async def test_async_clients_have_it_too(self, async_client: Any) -> None:
        user = await User.objects.acreate_user("ada", "ada@example.com")
        await async_client.aforce_login(user)
        conversation = await async_client.aconversation()
        assert (conversation.owner, conversation.is_new) == (str(user.pk), True)
        conversation["city"] = "Paris"
        await conversation.asave()
        response = await async_client.get("/async/say?text=hi")
        assert response.json()["state"] == {"city": "Paris", "turns": 1}
        assert (await async_client.aconversation())["turns"] == 1


def address_of(request: HttpRequest) -> str:
    return str(request.META["REMOTE_ADDR"])


class TestAsync:
    async def test_what_a_view_has_saved(self, async_client: Any) -> None:
        await async_client.get("/async/say?text=hi")
        assert async_client.conversation["turns"] == 1
        assert (await async_client.aconversation())["turns"] == 1

    async def test_a_new_one_and_one_that_is_given(self, async_client: Any) -> None:
        conversation = await async_client.aconversation()
        assert async_client.conversation.id == conversation.id
        conversation.messages.append("assistant", "What is your city?")
        await conversation.asave()
        response = await async_client.get("/async/say?text=Paris")
        assert texts(response) == ["What is your city?", "Paris"]
        async_client.conversation = await aseed([("user", "seeded")])
        assert texts(await async_client.get("/async/look")) == ["seeded"]


def test_what_is_no_client_has_none() -> None:
    assert not hasattr(RequestFactory(), "conversation")
