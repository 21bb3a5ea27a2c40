"""The health view, and the check for django-health-check: what a load balancer sees, and when."""

import asyncio
import json
import time
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client, RequestFactory
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Health
from django_convstate.health_check import Conversations
from django_convstate.http import health as views
from tests.backends import AwayBackend, CountingBackend


class DegradedBackend(FailoverBackend):
    """A backend whose primary nobody reaches, as the settings would build it."""

    option_names: ClassVar = ()

    def __init__(self) -> None:
        super().__init__(AwayBackend(), LocMemBackend())


class HangingBackend(LocMemBackend):
    """Takes its time to say how it is."""

    def health(self) -> Health:
        time.sleep(2)
        return super().health()


@pytest.fixture(autouse=True)
def _first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_cache", views._HealthCache())


def test_ready() -> None:
    response = Client().get("/health/")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
    assert "no-store" in response.headers["Cache-Control"]
    assert response.cookies == {}


def test_not_ready(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.backends.AwayBackend"
    response = Client().get("/health/")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable"}


def test_going_on_in_memory_is_ready(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.test_health.DegradedBackend"
    response = Client().get("/health/")
    assert response.status_code == 200
    assert response.json() == {"status": "degraded"}


def test_live_whatever_happens(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.backends.CountingBackend"
    CountingBackend.calls.clear()
    assert Client().get("/health/live/").json() == {"status": "ok"}
    assert not CountingBackend.calls


def test_asks_once_a_second(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.backends.CountingBackend"
    CountingBackend.calls.clear()
    for _ in range(20):
        assert Client().get("/health/").status_code == 200
    assert CountingBackend.calls["health"] == 1


def test_never_longer_than_a_second(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.test_health.HangingBackend"
    started = time.monotonic()
    response = Client().get("/health/")
    assert time.monotonic() - started < 1
    assert response.status_code == 503


def test_only_reads() -> None:
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
    def test_all_is_well(self) -> None:
        asyncio.run(Conversations().run())

    def test_away(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.backends.AwayBackend"
        with pytest.raises(ServiceUnavailable, match="cannot be reached"):
            asyncio.run(Conversations().run())

    def test_going_on_in_memory(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.test_health.DegradedBackend"
        with pytest.raises(ServiceWarning, match="cannot be reached"):
            asyncio.run(Conversations().run())
