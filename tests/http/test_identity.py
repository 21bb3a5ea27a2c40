"""The token of a conversation, in a cookie or in a header."""

import logging
from typing import Any

import pytest
from django.core.signing import Signer

from django_convstate import conversations
from django_convstate.ids import new_id
from django_convstate.tokens import sign_id, unsign_token
from tests.support.browsers import Browser, varies


class TestCookie:
    def test_the_cookie_has_the_attributes_of_the_session_cookie(self, browser: Browser) -> None:
        cookie = browser.get("say?text=hello").cookies["conversation"]
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/", "Lax", True)
        assert (cookie["secure"], cookie["domain"], cookie["max-age"]) == ("", "", "")
        assert cookie.value == sign_id(next(conversations.list()).id)

    def test_every_cookie_setting_is_used(self, browser: Browser, settings: Any) -> None:
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

    def test_secure_follows_session_cookie_secure(self, browser: Browser, settings: Any) -> None:
        settings.SESSION_COOKIE_SECURE = True
        assert browser.get("say?text=hello").cookies["conversation"]["secure"] is True

    def test_the_cookie_is_set_once(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        assert browser.get("say?text=again").cookies == {}

    def test_a_cookie_with_an_age_is_sent_again(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"COOKIE_AGE": 600}
        browser.get("say?text=hello")
        assert browser.get("look").cookies["conversation"]["max-age"] == 600

    def test_the_cookie_is_signed_anew_after_a_change_of_secret(
        self, browser: Browser, settings: Any
    ) -> None:
        browser.get("say?text=hello")
        old = browser.token
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another secret"
        assert browser.get("look").json()["messages"] == ["hello"]
        assert browser.token != old

    def test_the_cookie_is_deleted_with_the_conversation(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        cookie = browser.get("delete").cookies["conversation"]
        assert (cookie.value, cookie["max-age"]) == ("", 0)
        assert list(conversations.list()) == []

    def test_the_cookie_stays_if_the_view_failed(self, browser: Browser) -> None:
        conversations.delete(browser.get("say?text=hello").json()["id"])
        assert browser.get("fail?status=500").cookies == {}

    def test_the_cookie_of_an_absent_conversation_is_deleted(self, browser: Browser) -> None:
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

    def test_the_cookie_changes_with_the_id(self, browser: Browser) -> None:
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
    def test_a_cookie_without_our_signature_is_ignored_and_deleted(
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

    def test_a_header_replaces_the_cookie(self, browser: Browser) -> None:
        token = browser.get("say?text=hello").headers[self.HEADER]
        stranger = Browser(browser.way)
        response = stranger.get("say?text=again", headers={self.HEADER: token})
        assert response.json()["messages"] == ["hello", "again"]
        assert response.headers[self.HEADER] == token
        assert response.cookies == {}
        assert varies(response) == {"Cookie", self.HEADER}

    def test_a_header_counts_for_more_than_the_cookie(self, browser: Browser) -> None:
        browser.get("say?text=by cookie")
        other = Browser(browser.way).get("say?text=by header").headers[self.HEADER]
        shown = browser.get("look", headers={self.HEADER: other}).json()
        assert shown["messages"] == ["by header"]

    def test_a_forged_header_does_not_fall_back_to_the_cookie(self, browser: Browser) -> None:
        browser.get("say?text=by cookie")
        response = browser.get("look", headers={self.HEADER: "forged"})
        assert response.json()["messages"] == []
        assert response.cookies == {}, "the cookie is good, and stays"
        assert browser.get("look").json()["messages"] == ["by cookie"]

    def test_a_client_with_a_cookie_gets_no_header(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        assert self.HEADER not in browser.get("look").headers

    def test_a_header_is_ignored_unless_the_setting_names_it(
        self, browser: Browser, settings: Any
    ) -> None:
        token = browser.get("say?text=hello").headers[self.HEADER]
        settings.CONVERSATION_STATE = {}
        response = Browser(browser.way).get("look", headers={self.HEADER: token})
        assert response.json()["messages"] == []
        assert self.HEADER not in response.headers


class TestTheCookieOfAWebsocket:
    """Which says that nothing is stored under its id yet, and stays when something is."""

    @pytest.fixture
    def cookie(self) -> str:
        return sign_id(new_id(), unsaved=True)

    def test_it_stays_as_long_as_its_conversation_may_be_begun(
        self, browser: Browser, cookie: str
    ) -> None:
        browser.cookies["conversation"] = cookie
        assert "conversation" not in browser.get("look").cookies

    def test_it_goes_with_its_conversation(self, browser: Browser, cookie: str) -> None:
        browser.cookies["conversation"] = cookie
        conversations.append(unsign_token(cookie) or "", "user", "by a websocket")
        assert browser.get("delete").cookies["conversation"].value == ""
        assert browser.get("say?text=anew").json()["messages"] == ["anew"]

    def test_after_its_conversation_was_deleted_elsewhere_one_request_fails(
        self, browser: Browser, cookie: str
    ) -> None:
        browser.cookies["conversation"] = cookie
        conversations.append(unsign_token(cookie) or "", "user", "by a websocket")
        conversations.delete(unsign_token(cookie) or "")
        response = browser.get("say?text=hello")
        assert (response.status_code, response.cookies["conversation"].value) == (400, "")
        assert browser.get("say?text=anew").json()["messages"] == ["anew"]
