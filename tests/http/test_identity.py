"""The token of a conversation, in a cookie or in a header."""

import logging
from typing import Any

import pytest
from django.core.signing import Signer

from django_convstate import conversations
from django_convstate.tokens import sign_id
from tests.support.browsers import Browser, varies


class TestCookie:
    def test_attributes_as_the_session_has_them(self, browser: Browser) -> None:
        cookie = browser.get("say?text=hello").cookies["conversation"]
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/", "Lax", True)
        assert (cookie["secure"], cookie["domain"], cookie["max-age"]) == ("", "", "")
        assert cookie.value == sign_id(next(conversations.list()).id)

    def test_every_setting(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {
            "COOKIE_NAME": "chat",
            "COOKIE_AGE": 600,
            "COOKIE_PATH": "/sync",
            "COOKIE_DOMAIN": "testserver",
            "COOKIE_SECURE": True,
            "COOKIE_HTTPONLY": False,
            "COOKIE_SAMESITE": "Strict",
        }
        cookie = browser.get("say?text=hello").cookies["chat"]
        assert (cookie["path"], cookie["domain"], cookie["samesite"]) == (
            "/sync",
            "testserver",
            "Strict",
        )
        assert (cookie["secure"], cookie["httponly"], cookie["max-age"]) == (True, "", 600)

    def test_secure_follows_the_session(self, browser: Browser, settings: Any) -> None:
        settings.SESSION_COOKIE_SECURE = True
        assert browser.get("say?text=hello").cookies["conversation"]["secure"] is True

    def test_is_set_once(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        assert browser.get("say?text=again").cookies == {}

    def test_slides_if_it_has_an_age(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"COOKIE_AGE": 600}
        browser.get("say?text=hello")
        assert browser.get("look").cookies["conversation"]["max-age"] == 600

    def test_is_signed_anew_after_a_change_of_secret(self, browser: Browser, settings: Any) -> None:
        browser.get("say?text=hello")
        old = browser.token
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another secret"
        assert browser.get("look").json()["messages"] == ["hello"]
        assert browser.token != old

    def test_goes_with_the_conversation(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        cookie = browser.get("delete").cookies["conversation"]
        assert (cookie.value, cookie["max-age"]) == ("", 0)
        assert list(conversations.list()) == []

    def test_stays_if_the_view_failed(self, browser: Browser) -> None:
        conversations.delete(browser.get("say?text=hello").json()["id"])
        assert browser.get("fail?status=500").cookies == {}

    def test_goes_once_the_conversation_is_gone(self, browser: Browser) -> None:
        id = browser.get("say?text=hello").json()["id"]
        conversations.delete(id)
        response = browser.get("look")
        assert response.json()["messages"] == []
        assert response.json()["id"] != id
        assert response.cookies["conversation"].value == ""

    def test_a_new_conversation_never_takes_the_callers_id(self, browser: Browser) -> None:
        id = browser.get("say?text=hello").json()["id"]
        conversations.delete(id)
        assert browser.get("say?text=again").json()["id"] != id

    def test_changes_with_the_id(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        old = browser.token
        browser.get("cycle")
        assert browser.token != old
        assert browser.get("look").json()["messages"] == ["hello"]
        browser.cookies["conversation"] = old or ""
        assert browser.get("look").json()["messages"] == []

    @pytest.mark.parametrize(
        "forge",
        [
            lambda id: id,
            lambda id: f"{id}:",
            lambda id: f"{id}:{'A' * 43}",
            lambda id: sign_id(id)[:-1],
            lambda id: "x" + sign_id(id),
            lambda id: Signer(key="another site's", salt="django_convstate.token").sign(id),
            lambda id: Signer(salt="another purpose").sign(id),
            lambda id: sign_id("../../etc/passwd"),
            lambda id: "x" * 10_000,
            lambda id: "héllo",
            lambda id: "\x00",
        ],
    )
    def test_without_our_signature_it_counts_as_absent(
        self, browser: Browser, calls: Any, forge: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        id = browser.get("say?text=secret").json()["id"]
        calls.clear()
        browser.cookies["conversation"] = forge(id)
        response = browser.get("look")
        assert response.json()["messages"] == []
        assert response.json()["id"] != id
        assert not calls
        (line,) = [r for r in caplog.records if r.name == "django_convstate"]
        assert line.levelno == logging.WARNING
        assert id not in line.getMessage()
        assert response.cookies["conversation"].value == "", "one log line, not one a request"


class TestHeader:
    HEADER = "X-Conversation-Token"

    @pytest.fixture(autouse=True)
    def _header(self, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"HEADER_NAME": self.HEADER}

    def test_does_without_cookies(self, browser: Browser) -> None:
        token = browser.get("say?text=hello").headers[self.HEADER]
        stranger = Browser(browser.way)
        response = stranger.get("say?text=again", headers={self.HEADER: token})
        assert response.json()["messages"] == ["hello", "again"]
        assert response.headers[self.HEADER] == token
        assert response.cookies == {}
        assert varies(response) == {"Cookie", self.HEADER}

    def test_counts_for_more_than_the_cookie(self, browser: Browser) -> None:
        browser.get("say?text=by cookie")
        other = Browser(browser.way).get("say?text=by header").headers[self.HEADER]
        shown = browser.get("look", headers={self.HEADER: other}).json()
        assert shown["messages"] == ["by header"]

    def test_a_forged_one_does_not_fall_back_to_the_cookie(self, browser: Browser) -> None:
        browser.get("say?text=by cookie")
        response = browser.get("look", headers={self.HEADER: "forged"})
        assert response.json()["messages"] == []
        assert response.cookies == {}, "the cookie is good, and stays"
        assert browser.get("look").json()["messages"] == ["by cookie"]

    def test_is_not_shown_to_who_has_the_cookie(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        assert self.HEADER not in browser.get("look").headers

    def test_is_ignored_unless_set(self, browser: Browser, settings: Any) -> None:
        token = browser.get("say?text=hello").headers[self.HEADER]
        settings.CONVERSATION_STATE = {}
        response = Browser(browser.way).get("look", headers={self.HEADER: token})
        assert response.json()["messages"] == []
        assert self.HEADER not in response.headers
