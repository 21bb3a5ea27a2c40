"""The middleware, through Django's own test clients: sync, and async natively."""

from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpResponse
from django.test import RequestFactory

from django_convstate import conversations
from django_convstate.middleware import ConversationMiddleware
from tests.support.browsers import Browser, varies


class TestRemembering:
    def test_a_conversation_continues_over_requests(self, browser: Browser) -> None:
        browser.get("say?text=hello")
        browser.get("say?text=again")
        shown = browser.get("look").json()
        assert shown["messages"] == ["hello", "again"]
        assert shown["state"] == {"turns": 2}

    def test_two_browsers_have_two_conversations(self, browser: Browser) -> None:
        browser.get("say?text=mine")
        assert Browser(browser.way).get("look").json()["messages"] == []

    def test_reading_stores_nothing_and_sets_no_cookie(self, browser: Browser) -> None:
        response = browser.get("look")
        assert response.cookies == {}
        assert list(conversations.list()) == []

    def test_wsgi_and_asgi_share_conversations(self) -> None:
        wsgi, asgi = Browser("sync"), Browser("async")
        wsgi.get("say?text=by wsgi")
        asgi.client.cookies = wsgi.cookies
        assert asgi.get("say?text=by asgi").json()["messages"] == ["by wsgi", "by asgi"]

    def test_a_view_may_assign_another_conversation(self, browser: Browser) -> None:
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

    def test_a_reference_taken_before_the_await_works_after_it(self) -> None:
        browser = Browser("async")
        browser.get("say?text=hello")
        assert browser.get("early_reference").json()["state"] == {"turns": 1, "late": True}

    def test_a_forgotten_await_says_what_to_write(self) -> None:
        browser = Browser("async")
        with pytest.raises(SynchronousOnlyOperation, match=r"await request\.aconversation\(\)"):
            browser.get("forgotten_await")

    def test_the_middleware_is_sync_or_async_as_its_view(self) -> None:
        async def view(request: Any) -> HttpResponse:
            return HttpResponse()

        assert iscoroutinefunction(ConversationMiddleware(view))
        assert not iscoroutinefunction(ConversationMiddleware(lambda request: HttpResponse()))

    def test_it_prepares_for_a_view_as_it_is_called_or_django_needs_a_thread(self) -> None:
        async def view(request: Any) -> HttpResponse:
            return HttpResponse()

        assert iscoroutinefunction(ConversationMiddleware(view).process_view)
        in_sync = ConversationMiddleware(lambda request: HttpResponse())
        assert not iscoroutinefunction(in_sync.process_view)


class TestCallsOfTheStore:
    def test_a_view_that_does_not_touch_it_calls_no_store(
        self, browser: Browser, calls: Any
    ) -> None:
        browser.get("say?text=hello")
        calls.clear()
        response = browser.get("ignore")
        assert not calls
        assert varies(response) == set()
        assert "Cache-Control" not in response.headers
        assert response.cookies == {}

    def test_a_newcomer_who_only_reads_calls_no_store(self, browser: Browser, calls: Any) -> None:
        browser.get("look")
        assert not calls

    def test_a_request_takes_one_load_and_one_commit(self, browser: Browser, calls: Any) -> None:
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
