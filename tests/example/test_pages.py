"""The example as a visitor, a program and an operator meet it: its page, its API, its settings."""

import json
import re
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import AsyncClient, Client

from django_convstate import Conversation, conversations
from django_convstate.testing import assert_store_calls, clock, seed, store_away
from example_project.concierge import api, pages
from example_project.concierge.chat import reply_to
from example_project.concierge.refusals import MAX_TEXT
from example_project.concierge.vocabulary import CATEGORIES
from tests.support.example_site import ROOT, ExampleSite, environment, use_settings_of_example

MESSAGES, CONVERSATION = "/api/messages", "/api/conversation"


@pytest.fixture(autouse=True)
def site(settings: Any, empty_conversations: None) -> Any:
    """Run the test under the settings of the example, but for where conversations are kept."""
    use_settings_of_example(settings)
    return settings


def say(client: Client, text: object) -> Any:
    return client.post(MESSAGES, json.dumps({"text": text}), content_type="application/json")


def stored() -> int:
    return sum(1 for _ in conversations.list())


class TestApi:
    def test_a_post_is_answered_with_reply_and_state(self, client):
        answer = say(client, "a hotel in Paris").json()
        assert answer["reply"]["role"] == "assistant"
        assert "Paris" in answer["reply"]["content"]
        assert answer["state"]["domain"] == "hotel"
        assert answer["state"]["lastAnswer"] == answer["reply"]["content"]
        assert answer["started"] is True
        assert answer["message_count"] == 2
        assert 3590 < answer["expires_in"] <= answer["ttl"] == 3600
        assert answer["expires_at"].endswith("+00:00")
        looking_for = answer["notes"][0]
        assert {"name": "Where", "value": "Paris"} in looking_for["lines"]

    def test_a_cookie_continues_the_conversation(self, client):
        say(client, "a hotel in Paris")
        assert client.conversation["city"] == "Paris"
        with assert_store_calls(3):  # a load, and the begin and the end of a turn
            answer = say(client, "under $90").json()
        assert answer["started"] is False
        assert answer["message_count"] == 4
        assert answer["state"]["city"] == "Paris"
        assert answer["state"]["price"] == "$90"

    def test_get_returns_the_conversation(self, client):
        say(client, "hi")
        shown = client.get(CONVERSATION).json()
        assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
        assert shown["messages"][0]["content"] == "hi"
        assert shown["state"]["lastQuery"] == "hi"
        assert shown["message_count"] == 2

    def test_get_returns_the_newest_messages_only(self, client):
        client.conversation = seed(("user", f"hello, for the {n}. time") for n in range(60))
        shown = client.get(CONVERSATION).json()
        assert len(shown["messages"]) == 50
        assert shown["message_count"] == 60
        assert "59." in shown["messages"][-1]["content"]

    def test_looking_stores_nothing(self, client):
        response = client.get(CONVERSATION)
        assert response.json()["messages"] == []
        assert response.json()["expires_at"] is None
        assert not response.cookies
        assert stored() == 0

    def test_delete_begins_anew(self, client):
        say(client, "a hotel in Paris")
        response = client.delete(CONVERSATION)
        assert response.status_code == 200
        assert response.json()["state"] == {}
        assert response.json()["message_count"] == 0
        assert stored() == 0
        assert say(client, "hi").json()["started"] is True

    def test_an_expired_conversation_is_followed_by_a_new_one(self, client):
        say(client, "a hotel in Paris")
        clock.move(3601)
        assert client.get(CONVERSATION).json()["messages"] == []
        answer = say(client, "under $90").json()
        assert answer["started"] is True
        assert answer["message_count"] == 2
        assert "city" not in answer["state"]

    @pytest.mark.parametrize(
        ("body", "content_type", "status", "code"),
        [
            (b"{", "application/json", 400, "bad_json"),
            (b"\xff", "application/json", 400, "bad_json"),
            (b"[" * 100_000, "application/json", 400, "bad_json"),
            (b'"hi"', "application/json", 400, "bad_json"),
            (b"{}", "application/json", 400, "missing_text"),
            (b'{"text": 5}', "application/json", 400, "missing_text"),
            (b'{"text": null}', "application/json", 400, "missing_text"),
            (b'{"text": " \\n "}', "application/json", 400, "empty_text"),
            (b'{"text": "\\ud800"}', "application/json", 400, "bad_text"),
            (b'{"text": "%b"}' % (b"x" * (MAX_TEXT + 1)), "application/json", 413, "text_too_long"),
            (b'{"text": "%b"}' % (b"x" * 3_000_000), "application/json", 413, "body_too_large"),
            (b'{"text": "hi"}', "text/plain", 415, "not_json"),
            (b"text=hi", "application/x-www-form-urlencoded", 415, "not_json"),
        ],
    )
    def test_an_invalid_message_is_refused(self, client, body, content_type, status, code):
        say(client, "hi")
        before = client.get(CONVERSATION).json()
        response = client.post(MESSAGES, body, content_type=content_type)
        assert response.status_code == status
        error = response.json()["error"]
        assert error["code"] == code
        assert error["message"].endswith(".")
        after = client.get(CONVERSATION).json()
        assert after["messages"] == before["messages"]
        assert after["state"] == before["state"]
        fresh = Client().post(MESSAGES, body, content_type=content_type)
        assert not fresh.cookies
        assert stored() == 1

    def test_the_longest_text_is_accepted(self, client):
        assert say(client, "x" * MAX_TEXT).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [("get", MESSAGES, "POST"), ("delete", MESSAGES, "POST"), ("post", CONVERSATION, "DELETE")],
    )
    def test_other_methods_are_refused(self, client, method, path, allowed):
        response = getattr(client, method)(path)
        assert response.status_code == 405
        assert response.json()["error"]["code"] == "method_not_allowed"
        assert allowed in response.headers["Allow"]

    def test_the_api_needs_no_csrf_token(self):
        strict = Client(enforce_csrf_checks=True)
        assert say(strict, "hi").status_code == 200
        assert strict.delete(CONVERSATION).status_code == 200

    def test_answers_are_not_cached(self, client):
        assert "no-store" in say(client, "hi").headers["Cache-Control"]

    def test_an_outage_is_answered_with_503_and_keeps_the_cookie(self, client):
        client.conversation = seed([("user", "a hotel in Paris")])
        with store_away():
            for response in (
                say(client, "hi"),
                client.get(CONVERSATION),
                client.delete(CONVERSATION),
            ):
                assert response.status_code == 503
                assert response.json()["error"]["code"] == "unavailable"
                assert not response.cookies
        assert client.get(CONVERSATION).json()["message_count"] == 1

    def test_a_conversation_deleted_meanwhile_is_answered_with_409(self, client, monkeypatch):
        def delete_meanwhile(conversation: Conversation, text: str, id: str | None) -> str:
            conversations.delete(conversation.id)
            return reply_to(conversation, text, id)

        say(client, "a hotel in Paris")
        monkeypatch.setattr(api, "reply_to", delete_meanwhile)
        response = say(client, "under $90")
        assert response.status_code == 409
        assert response.json()["error"]["code"] == "ended"
        monkeypatch.undo()
        assert say(client, "under $90").json()["started"] is True

    async def test_the_api_works_in_an_async_server(self, async_client: AsyncClient):
        for expected in (2, 4):
            response = await async_client.post(
                MESSAGES, json.dumps({"text": "hi"}), content_type="application/json"
            )
            assert response.json()["message_count"] == expected


class TestPage:
    def test_the_page_greets_and_suggests(self, client):
        response = client.get("/")
        html = response.content.decode()
        assert response.status_code == 200
        for suggestion in pages.SUGGESTIONS:
            assert f'value="{suggestion}"' in html
        assert "conversation" not in response.cookies
        assert stored() == 0

    def test_the_page_has_no_inline_code_and_nothing_from_elsewhere(self, client):
        say(client, "a hotel in Paris")
        response = client.get("/")
        html = response.content.decode()
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert not re.search(r"<style|\sstyle=|\son\w+=|https?://|//\w", html)
        assert re.findall(r"<script(.*?)</script>", html, re.DOTALL) == [
            ' type="module" src="/static/concierge/chat.js">'
        ]

    def test_the_page_has_transcript_and_state_before_scripts_run(self, client):
        say(client, "A 4 day trip to Jaipur")
        html = client.get("/").content.decode()
        assert html.index("A 4 day trip to Jaipur") < html.index("4 days in Jaipur")
        assert '<dt>Days</dt><dd dir="auto">4</dd>' in html
        assert "&quot;duration_days&quot;: 4" in html
        assert 'data-message-count="2"' in html
        assert re.search(r'data-expires-in="3[56]\d\d\.\d"', html)

    def test_the_page_escapes_text(self, client):
        say(client, "<script>alert(1)</script>")
        html = client.get("/").content.decode()
        assert "<script>alert" not in html
        assert html.count("&lt;script&gt;alert(1)") == 3  # the message, and lastQuery twice

    def test_forms_work_without_scripts(self, client):
        response = client.post("/", {"text": "a hotel in Paris\r\nunder $90"})
        assert response.status_code == 302
        assert response.headers["Location"] == "/"
        shown = client.get(CONVERSATION).json()
        assert shown["messages"][0]["content"] == "a hotel in Paris\nunder $90"
        assert shown["state"]["price"] == "$90"
        assert client.post("/new").status_code == 302
        assert client.get(CONVERSATION).json()["messages"] == []

    def test_a_refused_text_stays_in_the_form(self, client):
        text = "x" * (MAX_TEXT + 1)
        response = client.post("/", {"text": text})
        assert response.status_code == 413
        assert text in response.content.decode()
        assert "2001 characters" in response.content.decode()
        assert stored() == 0

    def test_an_outage_is_answered_with_a_page(self, client):
        with store_away():
            response = client.post("/", {"text": "a hotel in Paris"})
        assert response.status_code == 503
        assert "My memory cannot be reached" in response.content.decode()
        assert "a hotel in Paris</textarea>" in response.content.decode()

    @pytest.mark.parametrize("path", ["/", "/new", "/former"])
    def test_forms_need_a_csrf_token(self, path):
        strict = Client(enforce_csrf_checks=True)
        assert strict.post(path, {"text": "hi"}).status_code == 403
        token = re.search(
            r'name="csrfmiddlewaretoken" value="(\w+)"', strict.get("/").content.decode()
        )
        assert token
        form = {"text": "hi", "csrfmiddlewaretoken": token[1]}
        assert strict.post(path, form).status_code == (404 if path == "/former" else 302)

    def test_a_link_cannot_end_a_conversation(self, client):
        say(client, "hi")
        assert client.get("/new").status_code == client.get("/former").status_code == 405
        assert client.get(CONVERSATION).json()["message_count"] == 2


@pytest.mark.parametrize("domain", [*CATEGORIES, "location", "general"])
def test_every_domain_has_a_picture(domain):
    assert finders.find(f"concierge/images/{domain}.svg")


def manage(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *args],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestSettings:
    @pytest.mark.parametrize(
        "env",
        [
            {},
            {"CONVERSATION_STATE_BACKEND": "cache"},
            {"CONVERSATION_STATE_BACKEND": "cache", "REDIS_URL": "redis://127.0.0.1:1/0"},
            {"DEBUG": "false", "SECRET_KEY": "0123456789"},
        ],
        ids=str,
    )
    def test_settings_come_from_the_environment(self, env):
        done = manage("check", "--fail-level", "WARNING", **env)
        assert done.returncode == 0, done.stderr

    def test_an_unknown_backend_is_reported_by_check(self):
        done = manage("check", CONVERSATION_STATE_BACKEND="nonsense")
        assert done.returncode == 1
        assert "convstate.E003" in done.stderr

    def test_a_secret_key_is_required_without_debug(self):
        done = manage("check", DEBUG="false")
        assert done.returncode == 1
        assert "SECRET_KEY" in done.stderr


def test_a_conversation_over_http(tmp_path):
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with ExampleSite(tmp_path / "log") as site:
        answers = []
        for text in ("a 4 day trip to Jaipur, we love food", "make it 3 days"):
            request = urllib.request.Request(
                site.url + MESSAGES,
                json.dumps({"text": text}).encode(),
                {"Content-Type": "application/json"},
            )
            with browser.open(request) as response:
                answers.append(json.load(response))
        assert [cookie.name for cookie in jar] == ["conversation"]
        assert answers[1]["message_count"] == 4
        assert answers[1]["state"]["preferences"]["duration_days"] == 3
        assert len(answers[1]["state"]["itinerary"]) == 3
        for path in ("/", "/static/concierge/chat.js", answers[0]["reply"]["image"]):
            with browser.open(site.url + path) as response:
                assert response.status == 200
