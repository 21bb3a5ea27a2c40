"""Every place where conversations are kept, and backends on it."""

from typing import Any

import pytest

from django_convstate import get_backend
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.redis.backend import RedisBackend
from tests.settings import PATIENT
from tests.support.databases import ALIASES

# Every place where conversations are kept: locmem, caches by their names, and Redis.
PLACES: list[Any] = [
    "locmem",
    "default",
    "file",
    pytest.param("database", marks=pytest.mark.django_db(transaction=True)),
    "redis",
    "django_redis",
    # The redis backend, on each kind of setup.
    "standalone",
    "sentinel",
    "cluster",
    # The database backend, on each kind of database.
    "sqlite",
    "postgres",
    # The standalone Redis again, with memory to fall back to.
    "failover",
]


def slow_but(*names: str) -> list[Any]:
    """Return all places, those marked as slow that are not among `names`."""
    params = [place if hasattr(place, "marks") else pytest.param(place) for place in PLACES]
    return [
        param
        if param.values[0] in names
        else pytest.param(*param.values, marks=[*param.marks, pytest.mark.slow])
        for param in params
    ]


def make_place(name: str, **options: object) -> ConversationStateBackend:
    if name == "locmem":
        return get_backend("locmem", **options)
    if name in ("standalone", "sentinel", "cluster"):
        alias = "django_redis" if name == "standalone" else name
        return get_backend("redis", cache_alias=alias, fallback=None, **options)
    if name == "failover":
        return get_backend("redis", cache_alias="django_redis", **options)
    if name in ALIASES:
        return get_backend("database", database_alias=name, **options)
    return get_backend("cache", cache_alias=name, **options)


def on(settings: Any, url: str, *, within: float | None = None, **options: Any) -> RedisBackend:
    """A redis backend on a server of the test's own, that gives up `within` so many seconds; where
    time is not what is tested, it is patient."""
    options = {**PATIENT, **options}
    if within is not None:
        options |= {"SOCKET_TIMEOUT": within, "SOCKET_CONNECT_TIMEOUT": within}
    entry = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "OPTIONS": options}
    settings.CACHES = {**settings.CACHES, "own": entry}
    return RedisBackend(cache_alias="own")
