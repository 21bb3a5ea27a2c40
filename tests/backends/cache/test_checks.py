"""A cache that drops what is in use is warned of by the checks, and at the first commit."""

from typing import Any

import pytest
from django.core.cache import caches
from redis.backoff import NoBackoff
from redis.retry import Retry

from django_convstate import ConversationStore, get_backend
from django_convstate.backends.cache.backend import CacheBackend
from django_convstate.backends.cache.checks import ENOUGH_ENTRIES, check_capacity

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
CULLING = [
    LOCMEM,
    "django.core.cache.backends.filebased.FileBasedCache",
    "django.core.cache.backends.db.DatabaseCache",
    "tests.backends.cache.test_checks.Derived",
]


def __getattr__(name: str) -> Any:
    """A cache of the project's own, which culls as that does from which it is derived."""
    if name != "Derived":
        raise AttributeError(name)
    from django.core.cache.backends.locmem import LocMemCache

    return type("Derived", (LocMemCache,), {})


@pytest.mark.parametrize("kind", CULLING)
@pytest.mark.parametrize(
    ("options", "is_told"),
    [
        ({}, True),
        ({"MAX_ENTRIES": 5_000}, True),
        ({"MAX_ENTRIES": "many"}, True),
        ({"MAX_ENTRIES": ENOUGH_ENTRIES}, False),
    ],
)
def test_a_cache_that_culls_is_warned_of(kind: str, options: dict[str, Any], is_told: bool) -> None:
    found = list(check_capacity("default", {"BACKEND": kind, "OPTIONS": options}))
    assert [message.id for message in found] == ["convstate.W002"] * is_told


@pytest.mark.parametrize("kind", ["django.core.cache.backends.redis.RedisCache", "no.such", ""])
def test_one_that_does_not_is_not(kind: str) -> None:
    assert not list(check_capacity("default", {"BACKEND": kind}))


def test_the_first_commit_says_so_once(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """For a server that runs no checks, and a warning that was overlooked."""
    settings.CACHES = {**settings.CACHES, "small": {"BACKEND": LOCMEM, "LOCATION": "small"}}
    store = ConversationStore(get_backend("cache", cache_alias="small"))
    assert "drops conversations" not in caplog.text
    for _ in range(3):
        conversation = store.create()
        conversation["a"] = 1
        conversation.save()
    told = [r for r in caplog.records if "drops conversations" in r.getMessage()]
    assert len(told) == 1
    assert "MAX_ENTRIES" in told[0].getMessage()


CLUSTER = {"CONNECTION_FACTORY": "django_convstate.backends.redis.cluster.ClusterConnectionFactory"}


@pytest.mark.parametrize(
    ("kind", "options", "query", "is_told"),
    [
        ("django_redis.cache", {}, "", False),
        ("django_redis.cache", {"CONNECTION_POOL_KWARGS": {"retry_on_timeout": True}}, "", True),
        ("django_redis.cache", {"CONNECTION_POOL_KWARGS": {"retry_on_timeout": False}}, "", False),
        (
            "django_redis.cache",
            {"CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 2)}},
            "",
            True,
        ),
        ("django_redis.cache", {}, "&retry_on_timeout=yes", True),
        ("django_redis.cache", {}, "&retry_on_timeout=False", False),
        ("django_redis.cache", CLUSTER, "", True),
        (
            "django_redis.cache",
            CLUSTER | {"REDIS_CLIENT_KWARGS": {"retry": Retry(NoBackoff(), 0)}},
            "",
            False,
        ),
        ("django.core.cache.backends.redis", {"retry_on_timeout": True}, "", True),
        ("django.core.cache.backends.redis", {"retry_on_error": [TimeoutError]}, "", True),
    ],
)
def test_a_client_that_repeats_writes_is_warned_of(
    settings: Any, kind: str, options: dict[str, Any], query: str, is_told: bool
) -> None:
    url = f"redis://127.0.0.1:1/0?socket_timeout=1{query}"
    entry = {"BACKEND": f"{kind}.RedisCache", "LOCATION": url, "OPTIONS": options}
    settings.CACHES = {**settings.CACHES, "own": entry}
    found = CacheBackend.check({"cache_alias": "own"})
    assert [message.id for message in found] == ["convstate.W014"] * is_told


@pytest.mark.parametrize("alias", ["redis", "django_redis"])
def test_without_options_no_client_does(valkey: None, alias: str) -> None:
    cache: Any = caches[alias]
    client = cache.client.get_client() if alias == "django_redis" else cache._cache.get_client()
    connection = client.connection_pool.get_connection()
    try:
        assert connection.retry.get_retries() == 0
    finally:
        client.connection_pool.release(connection)
