"""The places that the commands work on, each in turn."""

from collections.abc import Iterator
from typing import Any

import pytest

from django_convstate import clock, conversations
from tests.support.databases import ALIASES

PLACES = ("shared", "redis", *ALIASES)
PREFIX = "commands"


@pytest.fixture(params=PLACES)
def kept(request: pytest.FixtureRequest, settings: Any) -> Iterator[str]:
    """The name of a place that other processes see, too; the commands find it by the settings."""
    name: str = request.param
    options: dict[str, Any] = {"TTL": 86400, "KEY_PREFIX": PREFIX}
    if name == "redis":
        request.getfixturevalue("valkey")
        options |= {"CACHE_ALIAS": "django_redis"}
    elif name in ALIASES:
        options["DATABASE_ALIAS"] = request.getfixturevalue(name)
    settings.CONVERSATION_STATE = options
    settings.CONVERSATION_STATE_BACKEND = {
        "shared": "tests.support.backends.SharedBackend",
        "redis": "redis",
    }.get(name, "database")
    yield name
    clock.set_ahead(clock.ahead + 1)  # or memory may have what is used in the future, and not idle
    if name == "shared":
        conversations.purge(everything=True)
    else:
        conversations.backend.erase()
    conversations.close()
    clock.set_ahead(0)
