"""The example's "New", and the way back from it, by its API and by its forms."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from django_convstate import conversations
from django_convstate.testing import store_away
from example_project.concierge import undo
from tests.support.example_site import use_settings_of_example

NEW, CONVERSATION = "/api/new", "/api/conversation"


@pytest.fixture(autouse=True)
def site(settings: Any, empty_conversations: None) -> Any:
    use_settings_of_example(settings)
    return settings


def say(client: Client, text: str) -> Any:
    body = json.dumps({"text": text})
    return client.post("/api/messages", body, content_type="application/json").json()


def begin_anew(client: Client) -> Any:
    return client.post(NEW, "{}", content_type="application/json")


def count(client: Client) -> int:
    shown: int = client.get(CONVERSATION).json()["message_count"]
    return shown


def test_a_new_conversation_deletes_nothing_and_can_be_taken_back(client):
    say(client, "a hotel in Paris")
    former = client.cookies["conversation"].value
    shown = begin_anew(client).json()
    assert (shown["message_count"], shown["state"], shown["undo_for"]) == (0, {}, undo.UNDO_FOR)
    assert client.cookies["conversation"].value == ""
    assert count(client) == 0
    assert sum(1 for _ in conversations.list()) == 1
    back = client.delete(NEW).json()
    assert (back["message_count"], back["state"]["city"]) == (2, "Paris")
    assert client.cookies["conversation"].value == former
    assert say(client, "under $90")["state"]["city"] == "Paris"


def test_the_way_back_is_for_this_browser_and_not_for_its_scripts(client):
    say(client, "a hotel in Paris")
    begin_anew(client)
    cookie = client.cookies["former"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["max-age"] == undo.UNDO_FOR
    forger = Client()
    forger.cookies["former"] = cookie.value[:-1] + ("A" if cookie.value[-1] != "A" else "B")
    assert forger.delete(NEW).status_code == 404
    assert Client().delete(NEW).json()["error"]["code"] == "gone"


def test_it_can_be_taken_back_once(client):
    say(client, "a hotel in Paris")
    begin_anew(client)
    client.delete(NEW)
    assert client.delete(NEW).status_code == 404
    assert count(client) == 2


def test_it_is_too_late_after_a_minute(client, monkeypatch):
    say(client, "a hotel in Paris")
    begin_anew(client)
    late = time.time() + undo.UNDO_FOR + 1
    monkeypatch.setattr(undo, "time", SimpleNamespace(time=lambda: late))
    response = client.delete(NEW)
    assert response.status_code == 404
    assert "too late" in response.json()["error"]["message"]
    assert "Undo" not in visible(client)


def test_it_is_too_late_when_the_former_conversation_is_gone(client):
    say(client, "a hotel in Paris")
    begin_anew(client)
    conversations.purge(everything=True)
    assert client.delete(NEW).status_code == 404


def test_of_an_empty_conversation_there_is_nothing_to_take_back(client):
    response = begin_anew(client)
    assert response.json()["undo_for"] == 0
    assert "former" not in response.cookies


def test_a_form_elsewhere_cannot_begin_anew(client):
    say(client, "a hotel in Paris")
    response = client.post(NEW, {})
    assert response.status_code == 415
    assert not response.cookies
    assert client.get(NEW).status_code == 405


def test_an_outage_is_answered_with_503_and_keeps_the_cookies(client):
    say(client, "a hotel in Paris")
    with store_away():
        response = begin_anew(client)
        assert response.status_code == 503
        assert not response.cookies
    begin_anew(client)
    with store_away():
        response = client.delete(NEW)
        assert response.status_code == 503
        assert not response.cookies
    assert client.delete(NEW).status_code == 200


def visible(client: Client) -> str:
    """Return the form of the page, if it is not hidden."""
    html = client.get("/").content.decode()
    start = html.index('id="undo"')
    form = html[start : html.index("</form>", start)]
    return "" if form.startswith('id="undo" hidden') else form


def test_forms_without_scripts_have_the_way_back_too(client):
    assert visible(client) == ""
    client.post("/", {"text": "a hotel in Paris"})
    assert visible(client) == ""
    assert client.post("/new").status_code == 302
    assert "Undo" in visible(client)
    assert client.post("/former").status_code == 302
    assert count(client) == 2
    assert visible(client) == ""
    assert client.post("/former").status_code == 404
