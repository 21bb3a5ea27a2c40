"""Fixtures for the tests of the cache backend."""

import pytest

CACHES = [
    "default",
    "file",
    pytest.param("database", marks=pytest.mark.django_db(transaction=True)),
    "redis",
    "django_redis",
]


@pytest.fixture(params=CACHES)
def alias(request: pytest.FixtureRequest) -> str:
    """The name of each cache in turn, ready for use."""
    name: str = request.param
    if name in ("redis", "django_redis"):
        request.getfixturevalue("valkey")
    return name
