"""The middleware, through Django's own test clients: sync, and async natively."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation
from django.core.signing import Signer
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory

from django_convstate import conversations
from django_convstate.backends.records import Change
from django_convstate.middleware import ConversationMiddleware
from django_convstate.tokens import sign_id
from tests.support.backends import CountingBackend


class Browser:
    """A client that keeps cookies, over WSGI or over ASGI."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.client: Any = Client() if way == "sync" else AsyncClient()

    def get(self, view: str, **options: Any) -> Any:
        get = self.client.get if self.way == "sync" else async_to_sync(self.client.get)
        return get(f"/{self.way}/{view}", **options)

    @property
    def cookies(self) -> SimpleCookie:
        cookies: SimpleCookie = self.client.cookies
        return cookies

    @property
    def token(self) -> str | None:
        return self.cookies["conversation"].value if "conversation" in self.cookies else None


@pytest.fixture(params=["sync", "async"])
def browser(request: pytest.FixtureRequest) -> Browser:
    return Browser(request.param)


@pytest.fixture
def calls(settings: Any) -> Iterator[Any]:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
    CountingBackend.calls.clear()
    yield CountingBackend.calls
    conversations.purge(everything=True)


def varies(response: Any) -> set[str]:
    return {name.strip() for name in response.headers.get("Vary", "").split(",") if name}


class TestRemembering:
    def test_a_conversation_over_three_requests(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        browser.get("say?text=again")
        shown = browser.get("look").json()
        assert shown["messages"] == ["hello", "again"]
        assert shown["state"] == {"turns": 2}

    def test_two_browsers_are_strangers(self, browser: Browser) -> None:
        browser.get("say?text=mine")
        assert Browser(browser.way).get("look").json()["messages"] == []

    def test_reading_stores_nothing_and_sets_no_cookie(self, browser: Browser) -> None:
        response = browser.get("look")
        assert response.cookies == {}
        assert list(conversations.list()) == []

    def test_the_same_in_both_worlds(self) -> None:
        wsgi, asgi = Browser("sync"), Browser("async")
        wsgi.get("say?text=by wsgi")
        asgi.client.cookies = wsgi.cookies
        assert asgi.get("say?text=by asgi").json()["messages"] == ["by wsgi", "by asgi"]

    def test_another_conversation_in_its_place(self, browser: Browser) -> None:
        old = browser.get("say?text=old").json()["id"]
        new = browser.get("another").json()["id"]
        assert new != old
        response = browser.get("look")
        assert response.json()["state"] == {"another": True}
        assert conversations.exists(old)
        assert browser.get("another").headers["Cache-Control"] == "private"

    def test_two_awaits_side_by_side_get_one_object(self) -> None:
        browser = Browser("async")
        browser.get("say?text=hello")
        assert browser.get("side_by_side").json()["messages"] == ["hello"]

    def test_threads_of_one_request_get_one_object(self) -> None:
        browser = Browser("sync")
        browser.get("say?text=hello")
        browser.get("threads")
        assert len(browser.get("look").json()["state"]) == 1 + 8

    def test_a_reference_from_before_the_await_is_good_after_it(self) -> None:
        browser = Browser("async")
        browser.get("say?text=hello")
        assert browser.get("early_reference").json()["state"] == {"turns": 1, "late": True}

    def test_a_forgotten_await_says_what_to_write(self) -> None:
        browser = Browser("async")
        with pytest.raises(SynchronousOnlyOperation, match=r"await request\.aconversation\(\)"):
            browser.get("forgotten_await")

    def test_is_native_in_both_worlds(self) -> None:
        async def view(request: Any) -> HttpResponse:
            return HttpResponse()

        assert iscoroutinefunction(ConversationMiddleware(view))
        assert not iscoroutinefunction(ConversationMiddleware(lambda request: HttpResponse()))


class TestCallsOfTheStore:
    def test_none_where_it_is_not_touched(self, browser: Browser, calls: Any) -> None:
        browser.get("say?text=hello")
        calls.clear()
        response = browser.get("ignore")
        assert not calls
        assert varies(response) == set()
        assert "Cache-Control" not in response.headers
        assert response.cookies == {}

    def test_none_for_a_newcomer_who_only_looks(self, browser: Browser, calls: Any) -> None:
        browser.get("look")
        assert not calls

    def test_one_load_and_one_commit_a_turn(self, browser: Browser, calls: Any) -> None:
        # The twins of locmem enter by themselves and then call the methods.
        ways = (
            ("load", "commit") if browser.way == "sync" else ("load", "aload", "commit", "acommit")
        )
        browser.get("say?text=hello")
        assert calls == {way: 1 for way in ways if "commit" in way}
        calls.clear()
        browser.get("say?text=again")
        assert calls == dict.fromkeys(ways, 1)
        calls.clear()
        browser.get("look")
        assert calls == {way: 1 for way in ways if "load" in way}


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


class TestResponse:
    def test_is_private_whenever_touched(self, browser: Browser) -> None:
        for view in ("look", "say?text=hello", "look"):
            response = browser.get(view)
            assert varies(response) == {"Cookie"}
            assert response.headers["Cache-Control"] == "private"

    def test_is_private_even_if_the_view_says_public(self, browser: Browser) -> None:
        assert browser.get("public").headers["Cache-Control"] == "max-age=60, private"

    @pytest.mark.parametrize(("status", "saved"), [(200, True), (404, True), (500, False)])
    def test_saves_below_500(self, browser: Browser, status: int, saved: bool) -> None:
        browser.get("say?text=hello")
        browser.get(f"fail?status={status}")
        assert ("failed" in browser.get("look").json()["state"]) is saved
        assert browser.token

    def test_a_crash_saves_nothing(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        browser.client.raise_request_exception = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logging.getLogger("django.request"), "disabled", True)
            assert browser.get("crash").status_code == 500
        assert "crashed" not in browser.get("look").json()["state"]

    def test_deleted_meanwhile_is_a_bad_request(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        response = browser.get("interrupted")
        assert response.status_code == 400
        assert response.headers["Cache-Control"] == "private"
        assert varies(response) == {"Cookie"}
        assert list(conversations.list()) == []

    def test_a_bad_value_leaves_the_record_as_it_was(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        browser.client.raise_request_exception = False
        response = browser.get("bad_value")
        assert response.status_code == 500
        assert response.headers["Cache-Control"] == "private"
        assert browser.get("look").json()["state"] == {"turns": 1}

    def test_two_requests_at_once_lose_nothing(self, browser: Browser) -> None:
        browser.get("say?text=first")
        tabs = [Browser(browser.way) for _ in range(8)]
        for tab in tabs:
            tab.cookies["conversation"] = browser.token or ""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: tabs[n].get(f"say?text=tab {n}"), range(8)))
        shown = browser.get("look").json()
        assert sorted(shown["messages"]) == ["first", *(f"tab {n}" for n in range(8))]
        assert shown["state"] == {"turns": 9}

    def test_it_expires(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.2}
        id = browser.get("say?text=hello").json()["id"]
        time.sleep(0.25)
        response = browser.get("look")
        assert response.json()["messages"] == []
        assert response.json()["id"] != id
        assert response.cookies["conversation"].value == ""


class TestTrouble:
    def test_unreachable_never_touches_the_cookie(self, browser: Browser, settings: Any) -> None:
        browser.get("say?text=hello")
        token = browser.token
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        response = browser.get("tolerant")
        assert response.content == b"memory is away"
        assert response.cookies == {}
        assert response.headers["Cache-Control"] == "private"
        response = browser.get("look")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        assert response.cookies == {}
        settings.CONVERSATION_STATE_BACKEND = "locmem"
        assert browser.token == token
        assert browser.get("look").json()["messages"] == ["hello"]

    def test_unreachable_at_the_save(self, browser: Browser, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        response = browser.get("say?text=hello")
        assert response.status_code == 503
        assert response.cookies == {}
        assert response.headers["Cache-Control"] == "private"

    def test_an_error_that_the_view_has_answered_is_not_raised_again(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        response = browser.get("handled")
        assert response.status_code == 200
        assert response.json() == {"error": "BackendUnavailable"}

    def test_something_damaged_is_met_once(
        self, browser: Browser, caplog: pytest.LogCaptureFixture
    ) -> None:
        id = browser.get("say?text=hello").json()["id"]
        conversations.backend.commit(id, Change(append=[b"5"], set={"bad": b"{"}))
        caplog.clear()
        response = browser.get("look")
        assert response.status_code == 400
        assert response.cookies["conversation"].value == ""
        assert "damaged" in caplog.text
        assert browser.get("look").json()["messages"] == []

    @pytest.mark.parametrize("damage", [b"", b"{", b"\x80\x05N."])
    def test_a_damaged_record_begins_anew(
        self, browser: Browser, settings: Any, damage: bytes
    ) -> None:
        settings.CONVERSATION_STATE_BACKEND = "cache"
        id = browser.get("say?text=hello").json()["id"]
        caches["default"].set(f"convstate:doc:{id}", damage)
        response = browser.get("say?text=again")
        assert response.status_code == 200
        assert response.json()["messages"] == ["again"]
        assert response.json()["id"] != id
        assert browser.get("look").json()["messages"] == ["again"]


@pytest.mark.django_db(transaction=True)
def test_a_logout_ends_the_conversation_for_the_next_user(browser: Browser) -> None:
    browser.get("say?text=mine")
    response = browser.get("log_out")
    assert response.cookies["conversation"].value == ""
    assert browser.get("look").json()["messages"] == []


def test_the_middleware_alone_touches_neither_store_nor_response(calls: Any) -> None:
    seen = []

    def view(request: Any) -> HttpResponse:
        seen.append((hasattr(request, "conversation"), hasattr(request, "aconversation")))
        return HttpResponse()

    response = ConversationMiddleware(view)(RequestFactory().get("/"))
    assert seen == [(True, True)]
    assert isinstance(response, HttpResponse)
    assert not calls
