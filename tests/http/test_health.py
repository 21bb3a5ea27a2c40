"""The health view, and the check for django-health-check: what a load balancer sees, and when."""

import asyncio
import json
import threading
import time
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client, RequestFactory
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.reports import Health
from django_convstate.health_check import Conversations
from django_convstate.http import health as views
from tests.support.backends import AwayBackend, CountingBackend
from tests.support.ruler import Stopwatch


class DegradedBackend(FailoverBackend):
    """A backend whose primary nobody reaches, as the settings would build it."""

    option_names: ClassVar = ()

    def __init__(self) -> None:
        super().__init__(AwayBackend(), LocMemBackend())


class HangingBackend(LocMemBackend):
    """Does not say how it is before it is `released`."""

    released: ClassVar = threading.Event()

    def health(self) -> Health:
        self.released.wait(20)
        return super().health()


HEALTH_TIMEOUT = views.HEALTH_TIMEOUT


@pytest.fixture(autouse=True)
def _first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_cache", views._HealthCache())
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
