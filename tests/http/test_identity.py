"""The token of a conversation, in a cookie or in a header."""

import logging
import pickle
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.signing import Signer
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_convstate import conf, conversations
from django_convstate.http.identity import presented_tokens, set_token
from django_convstate.ids import new_id
from django_convstate.tokens import Token, sign_id, unsign_token
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

    def test_its_signature_is_checked_and_not_made_again(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        browser.get("say?text=hello")
        monkeypatch.setattr(Token, "signed", None)
        assert browser.get("say?text=again").json()["messages"] == ["hello", "again"]

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

    def test_without_a_name_there_is_no_cookie(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"COOKIE_NAME": None, "HEADER_NAME": "X-Tab"}
        first = browser.get("say?text=first tab")
        assert (first.cookies, "X-Tab" in first.headers) == ({}, True)
        assert browser.get("say?text=second tab").json()["messages"] == ["second tab"]
        again = browser.get("say?text=again", headers={"X-Tab": first.headers["X-Tab"]})
        assert again.json()["messages"] == ["first tab", "again"]
        gone = browser.get("delete", headers={"X-Tab": first.headers["X-Tab"]})
        assert gone.cookies == {}

    def test_without_cookie_and_header_nothing_is_presented(
        self, browser: Browser, settings: Any
    ) -> None:
        browser.get("say?text=hello")
        settings.CONVERSATION_STATE = {"COOKIE_NAME": None}
        response = browser.get("say?text=again")
        assert (response.json()["messages"], response.cookies) == (["again"], {})


class TestPartitionedCookie:
    """Which a browser keeps apart for each site that has ours in a frame."""

    @pytest.fixture(autouse=True)
    def _partitioned(self, settings: Any) -> None:
        settings.CONVERSATION_STATE = {
            "COOKIE_SAMESITE": "None",
            "COOKIE_SECURE": True,
            "COOKIE_PARTITIONED": True,
        }

    def test_the_attribute_is_set(self, browser: Browser) -> None:
        cookie = browser.get("say?text=hello").cookies["conversation"]
        sent = cookie.OutputString().split("; ")
        assert sent[0] == f"conversation={browser.token}"
        assert sorted(sent[1:]) == [
            "HttpOnly",
            "Partitioned",
            "Path=/",
            "SameSite=None",
            "Secure",
        ]
        assert browser.get("say?text=again").json()["messages"] == ["hello", "again"]

    def test_the_cookie_that_is_deleted_is_the_partitioned_one(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        cookie = browser.get("delete").cookies["conversation"]
        assert {"Partitioned", "SameSite=None", "Secure", "Max-Age=0"} <= set(
            cookie.OutputString().split("; ")
        )

    def test_the_attribute_is_there_in_a_copy(self, browser: Browser) -> None:
        """A response may be pickled, by a cache, say."""
        cookies = browser.get("say?text=hello").cookies
        assert "; Partitioned" in pickle.loads(pickle.dumps(cookies)).output()

    def test_other_cookies_do_not_have_it(self, browser: Browser) -> None:
        response = HttpResponse()
        response.set_cookie("other", "x")
        set_token(RequestFactory().get("/"), response, "token", conf.current())
        sent = response.cookies.output().split("\r\n")
        assert [cookie.endswith("; Partitioned") for cookie in sent] == [True, False]


@pytest.mark.parametrize("samesite", ["Lax", "None"])
def test_a_secure_cookie_is_deleted_by_a_secure_one(
    browser: Browser, settings: Any, samesite: str
) -> None:
    settings.CONVERSATION_STATE = {"COOKIE_SECURE": True, "COOKIE_SAMESITE": samesite}
    browser.get("say?text=hello")
    cookie = browser.get("delete").cookies["conversation"]
    assert (cookie.value, cookie["secure"], cookie["samesite"]) == ("", True, samesite)


class TestSeveralCookiesOfOneName:
    """Of another path, domain or application: a browser sends them all."""

    @pytest.fixture
    def token(self) -> str:
        return sign_id(conversations.open(new_id()).id)

    def presented(self, cookies: str, way: str, **headers: str) -> list[str]:
        if way == "sync":
            request: HttpRequest = RequestFactory().get("/", HTTP_COOKIE=cookies, headers=headers)
        else:
            sent = [("cookie", cookies), *headers.items()]
            raw = [(name.lower().encode(), value.encode()) for name, value in sent]
            scope = {"type": "http", "method": "GET", "path": "/", "headers": raw}
            request = ASGIRequest(scope, BytesIO())
        return presented_tokens(request, conf.current())

    def test_all_are_presented_in_the_order_sent(self, way: str) -> None:
        cookies = 'a=1; conversation=one; conversation="two"; b; conversation=; conversation=one'
        assert self.presented(cookies, way) == ["one", "two"]

    def test_no_more_than_fifty(self, way: str) -> None:
        numbers = list(map(str, range(80)))
        cookies = "; ".join(f"conversation={number}" for number in numbers * 2)
        assert self.presented(cookies, way) == numbers[:50]

    def test_ones_own_is_found_among_many(self, way: str, calls: Any) -> None:
        ours = conversations.create()
        ours["is"] = "ours"
        ours.save()
        others = [sign_id(new_id(), "another") for _ in range(20)] + ["x"] * 20
        header = "; ".join(f"conversation={token}" for token in [*others, ours.token]) + "; a=1"
        calls.clear()
        assert Browser(way).get("look", headers={"Cookie": header}).status_code == 200
        assert max(calls.values()) == 1, calls

    def test_no_more_than_five_are_looked_for(self, way: str, calls: Any) -> None:
        header = "; ".join(f"conversation={sign_id(new_id())}" for _ in range(20))
        Browser(way).get("look", headers={"Cookie": header})
        assert max(calls.values()) == 5, calls

    def test_a_header_is_presented_alone(self, way: str, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"HEADER_NAME": "X-Tab"}
        assert self.presented("conversation=one", way, **{"X-Tab": "two"}) == ["two"]
        assert self.presented("conversation=one", way) == ["one"]
        assert self.presented("conversation=one", way, **{"X-Tab": ""}) == ["one"]

    def test_what_a_middleware_has_changed_counts(self) -> None:
        request = RequestFactory().get("/", HTTP_COOKIE="conversation=one; conversation=two")
        request.COOKIES["conversation"] = "three"
        assert presented_tokens(request, conf.current()) == ["one", "three"]
        del request.COOKIES["conversation"]
        assert presented_tokens(request, conf.current()) == []
        bare = HttpRequest()
        bare.COOKIES["conversation"] = "one"
        assert presented_tokens(bare, conf.current()) == ["one"]

    @pytest.mark.parametrize("ours_is_first", [True, False])
    def test_the_one_with_our_signature_is_taken(
        self, browser: Browser, ours_is_first: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        browser.get("say?text=hello")
        both = [f"conversation={browser.token}", "conversation=another-application"]
        # The async test client of Django 5.2 puts a comma after the last.
        cookies = "; ".join([*(both if ours_is_first else reversed(both)), "a=1"])
        response = Browser(browser.way).get("look", headers={"Cookie": cookies})
        assert response.json()["messages"] == ["hello"]
        assert response.cookies == {}, "it is not set again"
        assert not [r for r in caplog.records if r.name == "django_convstate"]

    def test_none_is_deleted_while_a_websocket_is_to_begin_one_of_them(self, way: str) -> None:
        unsaved = sign_id(new_id(), unsaved=True)
        header = f"conversation={unsaved}; conversation=other; a=1"
        response = Browser(way).get("look", headers={"Cookie": header})
        assert response.cookies == {}


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

    def test_it_is_a_plain_string_or_a_server_of_wsgi_refuses_it(self, browser: Browser) -> None:
        token = browser.get("say?text=hello").headers[self.HEADER]
        response = Browser(browser.way).get("say?text=again", headers={self.HEADER: token})
        assert {type(value) for value in response.headers.values()} == {str}

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
