"""The health view, and the check for django-health-check: what a load balancer sees, and when."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client, RequestFactory
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.reports import Health
from django_convstate.health_check import Conversations
from django_convstate.http import health as views
from tests.support.backends import AwayBackend, CountingBackend
from tests.support.browsers import Browser
from tests.support.ruler import Stopwatch
from tests.support.servers import wait_until


class DegradedBackend(FailoverBackend):
    """A backend whose primary nobody reaches, as the settings would build it."""

    option_names: ClassVar = ()

    def __init__(self) -> None:
        super().__init__(AwayBackend(), LocMemBackend())


class FullBackend(FailoverBackend):
    """The same, with a journal that is full."""

    option_names: ClassVar = ()

    def __init__(self) -> None:
        super().__init__(AwayBackend(), LocMemBackend(), journal_bytes=1)


class HangingBackend(LocMemBackend):
    """Does not say how it is before it is `released`."""

    released: ClassVar = threading.Event()

    def health(self) -> Health:
        self.released.wait(20)
        return super().health()


HEALTH_TIMEOUT, STAFF_TIMEOUT = views.HEALTH_TIMEOUT, views.STAFF_TIMEOUT
MANY = 200  # requests, which would take so many timeouts one after the other


def health_of(browser: Browser, session: str | None = None) -> Any:
    """Return the response to a request for the health, with the cookie of a session."""
    if session is not None:
        browser.cookies["sessionid"] = session
    get = browser.client.get if browser.way == "sync" else async_to_sync(browser.client.get)
    return get("/health/")


@pytest.fixture(autouse=True)
def _first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_cache", views._HealthCache())
    monkeypatch.setattr(views, "_staff_check", views._StaffCheck())
    # But for the one test of it, time is not what is tested.
    monkeypatch.setattr(views, "HEALTH_TIMEOUT", 20.0)
    monkeypatch.setattr(views, "STAFF_TIMEOUT", 20.0)


def test_a_connected_store_is_ready() -> None:
    response = Client().get("/health/")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
    assert "no-store" in response.headers["Cache-Control"]
    assert response.cookies == {}


def test_an_unavailable_store_is_not_ready(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
    response = Client().get("/health/")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable"}


def test_a_degraded_store_is_ready(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.http.test_health.DegradedBackend"
    response = Client().get("/health/")
    assert response.status_code == 200
    assert response.json() == {"status": "degraded"}


def test_a_full_journal_is_not_ready(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.http.test_health.FullBackend"
    response = Client().get("/health/")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable"}


def test_liveness_does_not_ask_the_store(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
    CountingBackend.calls.clear()
    assert Client().get("/health/live/").json() == {"status": "ok"}
    assert not CountingBackend.calls


def test_readiness_asks_the_store_once_a_second(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
    CountingBackend.calls.clear()
    started = time.monotonic()
    for _ in range(20):
        assert Client().get("/health/").status_code == 200
    assert CountingBackend.calls["health"] <= 1 + (time.monotonic() - started) // views.MAX_AGE


def test_readiness_answers_within_a_second(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.http.test_health.HangingBackend"
    monkeypatch.setattr(views, "HEALTH_TIMEOUT", HEALTH_TIMEOUT)
    HangingBackend.released.clear()
    with Stopwatch() as watch:
        response = Client().get("/health/")
    HangingBackend.released.set()
    assert watch.seconds < 1
    assert response.status_code == 503


def test_a_store_that_hangs_is_not_waited_for_by_each_request(
    browser: Browser, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.http.test_health.HangingBackend"
    monkeypatch.setattr(views, "HEALTH_TIMEOUT", HEALTH_TIMEOUT)
    HangingBackend.released.clear()
    with Stopwatch() as watch:
        statuses = {health_of(browser).status_code for _ in range(MANY)}
    HangingBackend.released.set()
    assert statuses == {503}
    assert watch.seconds < MANY * HEALTH_TIMEOUT / 4


class TestSessionsThatHang:
    """Where the store of the sessions hangs, as a silent server without a timeout does."""

    @pytest.fixture
    def silent(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        monkeypatch.setattr(views, "STAFF_TIMEOUT", STAFF_TIMEOUT)
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as silent:
            settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
            settings.SESSION_CACHE_ALIAS = "silent"
            settings.CACHES = settings.CACHES | {
                "silent": {
                    "BACKEND": "django.core.cache.backends.redis.RedisCache",
                    "LOCATION": f"redis://127.0.0.1:{silent.getsockname()[1]}",
                }
            }
            yield silent

    def test_any_number_of_requests_takes_one_thread(
        self, browser: Browser, silent: socket.socket
    ) -> None:
        health_of(browser, "stranger")  # what Django starts once is started
        before = set(threading.enumerate())
        with Stopwatch() as watch:
            responses = [health_of(browser, "stranger") for _ in range(MANY)]
        assert {response.status_code for response in responses} == {200}
        assert responses[-1].json() == {"status": "ok"}
        assert watch.seconds < MANY * STAFF_TIMEOUT / 4
        # The first request has started it. The thread that asks the store ends at once.
        wait_until(lambda: not set(threading.enumerate()) - before)

    def test_so_do_many_at_the_same_time(self, silent: socket.socket) -> None:
        before = set(threading.enumerate())
        with ThreadPoolExecutor(16) as pool:
            statuses = set(
                pool.map(lambda _: health_of(Browser("sync"), "stranger").status_code, range(MANY))
            )
        assert statuses == {200}
        wait_until(lambda: len(set(threading.enumerate()) - before) == 1)

    def test_the_thread_ends_when_the_store_answers_or_closes(self, silent: socket.socket) -> None:
        before = set(threading.enumerate())
        health_of(Browser("sync"), "stranger")
        assert set(threading.enumerate()) - before
        silent.accept()[0].close()
        silent.close()
        wait_until(lambda: not set(threading.enumerate()) - before)

    def test_staff_see_details_again_afterwards(
        self, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = set(threading.enumerate())
        health_of(Browser("sync"), "stranger")
        silent.accept()[0].close()
        silent.close()
        wait_until(lambda: not set(threading.enumerate()) - before)
        monkeypatch.setattr(views, "STAFF_TIMEOUT", 20.0)
        request = RequestFactory().get("/")
        request.COOKIES["sessionid"] = "somebody's"
        request.user = User(is_staff=True)
        assert "detail" in json.loads(views.ready(request).content)


def test_a_process_that_can_start_no_thread_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = Client()
    client.cookies["sessionid"] = "somebody's"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert client.get("/health/").status_code == 503
    assert client.get("/health/").status_code == 200


def test_post_is_not_allowed() -> None:
    assert Client().post("/health/").status_code == 405


@pytest.mark.parametrize("is_staff", [True, False])
def test_details_are_for_staff(is_staff: bool) -> None:
    request = RequestFactory().get("/")
    request.COOKIES["sessionid"] = "somebody's"
    request.user = User(is_staff=is_staff) if is_staff else AnonymousUser()
    shown = json.loads(views.ready(request).content)
    assert ("detail" in shown) is is_staff
    assert ("latency_ms" in shown) is is_staff


class TestHealthCheck:
    def test_a_connected_store_passes(self) -> None:
        asyncio.run(Conversations().run())

    def test_an_unavailable_store_fails(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        with pytest.raises(ServiceUnavailable, match="cannot be reached"):
            asyncio.run(Conversations().run())

    def test_a_degraded_store_warns(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.http.test_health.DegradedBackend"
        with pytest.raises(ServiceWarning, match="cannot be reached"):
            asyncio.run(Conversations().run())
