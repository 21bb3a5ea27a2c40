"""Readiness, where the store is not in an outage but set up wrongly: memory would hide that for as
long as the process lives."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory

from django_convstate import conversations
from django_convstate.backends.redis.diagnostics.checks import check_server
from django_convstate.http import health as views
from tests.settings import PATIENT
from tests.support.servers import Server, wait_until

PASSWORD = "hunter2"
numbers = itertools.count()


@pytest.fixture
def point_at(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    monkeypatch.setattr(views, "MAX_AGE", 0.0)
    monkeypatch.setattr(views, "HEALTH_TIMEOUT", 20.0)
    monkeypatch.setattr(views, "STAFF_TIMEOUT", 20.0)

    def point_at(url: str, **options: Any) -> None:
        monkeypatch.setattr(views, "_cache", views._HealthCache())
        entry = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": url,
            "OPTIONS": PATIENT | options,
        }
        alias = f"own-{next(numbers)}"  # the default store remembers those it was given
        settings.CACHES = {**settings.CACHES, alias: entry}
        settings.CONVERSATION_STATE_BACKEND = "redis"
        settings.CONVERSATION_STATE = {"CACHE_ALIAS": alias}

    yield point_at
    conversations.close()
    backend: Any = conversations.backend
    backend.begin_anew()  # what no store has taken is not to be told of at the end


def said_to_staff() -> dict[str, Any]:
    request = RequestFactory().get("/")
    request.COOKIES["sessionid"] = "somebody's"
    request.user = User(is_staff=True)
    shown: dict[str, Any] = json.loads(views.ready(request).content)
    return shown


def speak() -> bool:
    """Return whether it went on in memory."""
    conversation = conversations.create()
    conversation.messages.append("user", "hello")
    conversation.save()
    return conversation.degraded


def test_a_store_that_has_never_answered_is_not_ready(
    point_at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    point_at("redis://127.0.0.1:1/0")
    assert speak()
    response = Client().get("/health/")
    assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
    assert "has not answered once" in said_to_staff()["detail"]
    assert asyncio.run(conversations.ahealth()).is_misconfigured
    speak()
    told = [r for r in caplog.records if "has not answered once" in r.getMessage()]
    assert len(told) == 1
    (message,) = check_server(conversations.options.cache_alias)
    assert "not ready" in str(message.hint)


def test_a_store_that_refuses_the_password_is_not_ready_until_it_does_not(
    point_at: Any, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
    point_at(f"redis://:wrong@127.0.0.1:{server.port}/0")
    assert speak()
    assert Client().get("/health/").status_code == 503
    assert "does not accept the user name or the password" in said_to_staff()["detail"]
    assert "That is no outage" in caplog.text
    (message,) = check_server(conversations.options.cache_alias)
    assert "password" in f"{message.msg} {message.hint}"
    assert PASSWORD not in f"{caplog.text} {message}"
    server.password = PASSWORD
    with server.client() as client:
        client.config_set("requirepass", "wrong")
    server.password = "wrong"
    wait_until(lambda: not conversations.health().using_fallback)
    assert Client().get("/health/").json() == {"status": "ok"}


@pytest.mark.parametrize("forbidden", [["-eval", "-evalsha"], ["-hset"]], ids=["all", "in scripts"])
def test_a_store_that_refuses_commands_is_not_ready(
    point_at: Any, server: Server, forbidden: list[str]
) -> None:
    login = ["on", ">pw", "~*", "+@all", *forbidden]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "chat", *login)
    point_at(f"redis://chat:pw@127.0.0.1:{server.port}/0")
    assert speak()
    assert Client().get("/health/").status_code == 503
    assert "NOPERM" in said_to_staff()["detail"]


@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
def test_an_outage_of_a_store_that_had_answered_is_ready(
    point_at: Any, server: Server, in_loop: bool
) -> None:
    point_at(f"redis://127.0.0.1:{server.port}/0")

    async def visit() -> None:
        conversation = conversations.create()
        conversation["a"] = 1
        await conversation.asave()
        assert not conversation.degraded
        await conversations.aclose()

    if in_loop:
        asyncio.run(visit())
    else:
        assert not speak()
    server.kill()
    assert speak()
    response = Client().get("/health/")
    assert (response.status_code, response.json()) == (200, {"status": "degraded"})
    assert not conversations.health().is_misconfigured
    server.start()
    wait_until(lambda: not conversations.health().using_fallback)


def test_a_store_that_says_why_it_does_not_serve_is_ready(point_at: Any, server: Server) -> None:
    """That is an outage: memory may be raised."""
    with server.client() as client:
        client.config_set("maxmemory", 1)
    point_at(f"redis://127.0.0.1:{server.port}/0")
    assert speak()
    assert Client().get("/health/").json() == {"status": "degraded"}
    with server.client() as client:
        client.config_set("maxmemory", 0)
    wait_until(lambda: not conversations.health().using_fallback)
