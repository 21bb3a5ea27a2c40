"""The example's list of conversations: whose they are, what they are called, and the way back."""

import json
import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from django_convstate import conversations
from django_convstate.testing import store_away
from example_project.concierge.chat import MAX_TITLE, title_of
from example_project.concierge.sidebar import SHOWN
from tests.support.example_site import use_settings_of_example

LIST, NEW = "/api/conversations", "/api/new"


@pytest.fixture(autouse=True)
def site(settings: Any, empty_conversations: None) -> Any:
    use_settings_of_example(settings)
    return settings


@pytest.fixture
def client() -> Client:
    """A browser that has seen the page, and so is known."""
    client = Client()
    client.get("/")
    return client


def post(client: Client, path: str, **body: object) -> Any:
    return client.post(path, json.dumps(body), content_type="application/json")


def say(client: Client, *texts: str) -> None:
    for text in texts:
        assert post(client, "/api/messages", text=text).status_code == 200


def talk(client: Client, *texts: str) -> None:
    """Begin a conversation for each text."""
    for text in texts:
        post(client, NEW)
        say(client, text)


def listed(client: Client) -> list[tuple[str, bool]]:
    found = client.get(LIST).json()["conversations"]
    return [(each["title"], each["is_open"]) for each in found]


def id_of(client: Client, title: str) -> str:
    (found,) = [each for each in client.get(LIST).json()["conversations"] if each["title"] == title]
    return str(found["id"])


class TestVisitors:
    def test_a_browser_is_known_from_the_first_page_on(self) -> None:
        client = Client()
        cookie = client.get("/").cookies["visitor"]
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        say(client, "hi")
        assert "visitor" not in client.get("/").cookies
        (found,) = conversations.list()
        assert found.owner is not None
        assert cookie.value.startswith(found.owner)

    def test_a_program_that_has_seen_no_page_needs_no_other_cookie(self) -> None:
        client = Client()
        say(client, "a hotel in Paris", "under $90")
        assert listed(client) == []
        assert list(client.cookies) == ["conversation"]
        client.get("/")
        assert "visitor" not in client.cookies, "or it would lose what was said"

    def test_nobody_can_pretend_to_be_another(self, client: Client) -> None:
        talk(client, "a hotel in Paris")
        id, cookie = id_of(client, "a hotel in Paris"), client.cookies["visitor"].value
        owner = cookie.split(":")[0]
        forged = (owner, f"{owner}:", cookie[:-1] + ("A" if cookie[-1] != "A" else "B"), "", "\x7f")
        for value in forged:
            other = Client()
            other.cookies["visitor"] = value
            assert listed(other) == []
            assert post(other, LIST, id=id).status_code == 404
            assert other.post("/open", {"id": id}).status_code == 404
        other = Client()
        other.cookies["visitor"] = cookie
        assert listed(other) == [("a hotel in Paris", False)]


class TestList:
    @pytest.mark.parametrize("backend", ["locmem", "redis"])
    def test_newest_saved_first(
        self, client: Client, site: Any, backend: str, request: pytest.FixtureRequest
    ) -> None:
        site.CONVERSATION_STATE_BACKEND = backend
        if backend == "redis":
            request.getfixturevalue("valkey")
            site.CONVERSATION_STATE |= {"CACHE_ALIAS": "django_redis"}
        talk(client, "a hotel in Paris", "Flights to Tokyo", "hello")
        assert {title for title, _ in listed(client)} == {
            *("a hotel in Paris", "Flights to Tokyo", "Untitled")
        }
        assert [title for title, is_open in listed(client) if is_open] == ["Untitled"]
        answer = post(client, LIST, id=id_of(client, "a hotel in Paris")).json()
        assert answer["message_count"] == 2
        assert answer["state"]["city"] == "Paris"
        assert [title for title, is_open in listed(client) if is_open] == ["a hotel in Paris"]
        say(client, "under $90")
        if backend != "redis":  # whose order is exact to a minute
            assert listed(client)[0] == ("a hotel in Paris", True)
        assert client.get("/api/conversation").json()["message_count"] == 4
        conversations.purge(everything=True)

    def test_others_are_not_in_it(self, client: Client) -> None:
        other = Client()
        other.get("/")
        talk(client, "a hotel in Paris")
        talk(other, "Flights to Tokyo")
        assert listed(client) == [("a hotel in Paris", True)]
        assert listed(other) == [("Flights to Tokyo", True)]

    def test_a_new_conversation_is_in_it_when_something_is_said(self, client: Client) -> None:
        talk(client, "a hotel in Paris")
        post(client, NEW)
        assert listed(client) == [("a hotel in Paris", False)]
        assert client.delete(NEW).status_code == 200
        assert listed(client) == [("a hotel in Paris", True)]

    def test_it_has_an_end(self, client: Client) -> None:
        talk(client, *["a hotel in Paris"] * (SHOWN + 1))
        assert len(listed(client)) == SHOWN

    def test_the_page_has_it_before_scripts_run(self, client: Client) -> None:
        talk(client, "Flights to <b>Tokyo</b>", "a hotel in Paris")
        html = client.get("/").text
        nav = html[html.index('<nav id="conversations"') : html.index("</nav>")]
        assert "hidden>" not in nav.split("\n")[0]
        buttons = re.findall(r'<button name="id"[^>]*?( aria-current="true")?>(.*?)</button>', nav)
        assert [(unescape(title), bool(is_open)) for is_open, title in buttons] == [
            ("a hotel in Paris", True),
            ("Flights to <b>Tokyo</b>", False),
        ]

    def test_where_the_store_cannot_list_there_is_none(self, client: Client, site: Any) -> None:
        site.CONVERSATION_STATE_BACKEND = "cache"
        say(client, "a hotel in Paris")
        assert client.get(LIST).json() == {"conversations": None}
        html = client.get("/").text
        for id in ("conversations", "show-conversations"):
            assert re.search(rf'id="{id}"[^>]* hidden>', html)

    def test_nor_where_it_is_away(self, client: Client) -> None:
        say(client, "a hotel in Paris")
        with store_away():
            assert client.get(LIST).status_code == 503


class TestOpening:
    def test_by_a_form_without_scripts(self, client: Client) -> None:
        talk(client, "a hotel in Paris", "Flights to Tokyo")
        response = client.post("/open", {"id": id_of(client, "a hotel in Paris")})
        assert response.headers["Location"] == "/"
        assert client.conversation["city"] == "Paris"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("id", [None, "", 5, {}, "nothing-there", "x" * 5000, "../..", "\0"])
    def test_what_is_not_there_changes_nothing(self, client: Client, id: object) -> None:
        say(client, "a hotel in Paris")
        response = post(client, LIST, id=id)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "gone"
        assert not response.cookies
        response = client.post("/open", {} if id is None else {"id": str(id)})
        assert response.status_code == 404
        assert "not there any more" in response.text
        assert listed(client) == [("a hotel in Paris", True)]

    def test_an_ownerless_one_is_not_opened_by_its_id(self, client: Client) -> None:
        other = Client()
        say(other, "a hotel in Paris")
        (found,) = conversations.list()
        for each in (client, Client()):
            assert post(each, LIST, id=found.id).status_code == 404

    def test_a_form_elsewhere_cannot_do_it(self, client: Client) -> None:
        talk(client, "a hotel in Paris", "Flights to Tokyo")
        id = id_of(client, "a hotel in Paris")
        assert client.post(LIST, {"id": id}).status_code == 415
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = client.cookies
        assert strict.post("/open", {"id": id}).status_code == 403
        assert client.get("/open").status_code == 405
        assert listed(client)[0] == ("Flights to Tokyo", True)

    def test_an_outage_keeps_the_cookie(self, client: Client) -> None:
        talk(client, "a hotel in Paris", "Flights to Tokyo")
        id = id_of(client, "a hotel in Paris")
        with store_away():
            response = post(client, LIST, id=id)
        assert response.status_code == 503
        assert not response.cookies


class TestTitles:
    @pytest.mark.parametrize(
        ("texts", "title"),
        [
            (["a hotel in Paris", "under $90"], "a hotel in Paris"),
            (["hello", "thanks", "Flights to Tokyo"], "Flights to Tokyo"),
            (["hello"], "Untitled"),
            (["I want to die"], "Untitled"),
            (["a hotel in Paris", "forget everything"], "Untitled"),
            (["a hotel in Paris", "forget everything", "Flights to Tokyo"], "Flights to Tokyo"),
        ],
    )
    def test_it_is_the_beginning_of_the_first_request(
        self, client: Client, texts: list[str], title: str
    ) -> None:
        say(client, *texts)
        assert listed(client) == [(title, True)]

    def test_it_is_short_and_in_one_line(self) -> None:
        assert title_of("a hotel\n\n in   Paris") == "a hotel in Paris"
        for text in ("x" * 2000, "a hotel " * 250, "🐘" * 2000):
            assert len(title_of(text)) == MAX_TITLE
            assert title_of(text).endswith("…")
