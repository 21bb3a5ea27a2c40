"""What a response says, and when there is an error."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches

from django_convstate import conversations
from django_convstate.backends.records import Change
from tests.support.browsers import Browser, varies
from tests.support.messages import pairs


class TestResponse:
    def test_a_response_is_private_if_the_conversation_was_touched(self, browser: Browser) -> None:
        for view in ("look", "say?text=hello", "look"):
            response = browser.get(view)
            assert varies(response) == {"Cookie"}
            assert response.headers["Cache-Control"] == "private"

    def test_a_response_is_private_even_if_the_view_says_public(self, browser: Browser) -> None:
        assert browser.get("public").headers["Cache-Control"] == "max-age=60, private"

    @pytest.mark.parametrize(("status", "saved"), [(200, True), (404, True), (500, False)])
    def test_a_response_below_500_saves(self, browser: Browser, status: int, saved: bool) -> None:
        browser.get("say?text=hello")
        browser.get(f"fail?status={status}")
        assert ("failed" in browser.get("look").json()["state"]) is saved
        assert browser.token

    def test_a_view_that_raises_saves_nothing(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        browser.client.raise_request_exception = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logging.getLogger("django.request"), "disabled", True)
            assert browser.get("crash").status_code == 500
        assert "crashed" not in browser.get("look").json()["state"]

    def test_a_conversation_deleted_meanwhile_is_answered_with_400(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        response = browser.get("interrupted")
        assert response.status_code == 400
        assert response.headers["Cache-Control"] == "private"
        assert varies(response) == {"Cookie"}
        assert list(conversations.list()) == []

    def test_an_invalid_value_leaves_the_record_as_it_was(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        browser.client.raise_request_exception = False
        response = browser.get("bad_value")
        assert response.status_code == 400
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

    def test_an_expired_conversation_is_followed_by_a_new_one(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.2}
        id = browser.get("say?text=hello").json()["id"]
        time.sleep(0.25)
        response = browser.get("look")
        assert response.json()["messages"] == []
        assert response.json()["id"] != id
        assert response.cookies["conversation"].value == ""


class TestTrouble:
    def test_an_unavailable_store_never_changes_the_cookie(
        self, browser: Browser, settings: Any
    ) -> None:
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

    def test_a_store_unavailable_at_the_save_is_answered_with_503(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        response = browser.get("say?text=hello")
        assert response.status_code == 503
        assert response.cookies == {}
        assert response.headers["Cache-Control"] == "private"

    def test_without_a_fallback_an_outage_is_answered_with_503(
        self, browser: Browser, settings: Any
    ) -> None:
        browser.get("say?text=hello")
        settings.CACHES = settings.CACHES | {
            "dead": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "redis://127.0.0.1:1/0",
            }
        }
        settings.CONVERSATION_STATE_BACKEND = "redis"
        settings.CONVERSATION_STATE = {"CACHE_ALIAS": "dead", "FALLBACK": None}
        assert browser.get("say?text=hello").status_code == 503
        assert browser.get("tolerant").content == b"memory is away", "a BackendUnavailable"

    def test_an_error_that_the_view_has_handled_is_not_raised_again(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        response = browser.get("handled")
        assert response.status_code == 200
        assert response.json() == {"error": "BackendUnavailable"}

    def test_damage_is_answered_with_400_once(
        self, browser: Browser, caplog: pytest.LogCaptureFixture
    ) -> None:
        id = browser.get("say?text=hello").json()["id"]
        conversations.backend.commit(id, Change(append=pairs(b"5"), set={"bad": b"{"}))
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
