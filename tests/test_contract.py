"""The contract, on every backend and every kind of cache."""

from typing import Any

import pytest

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.testing import BackendContract
from tests.conftest import make_place


class TestLocMem(BackendContract):
    def make_backend(self, **options: Any) -> ConversationStateBackend:
        return make_place("locmem", **options)


class CacheContract(BackendContract):
    alias: str

    def make_backend(self, **options: Any) -> ConversationStateBackend:
        return make_place(self.alias, **options)


class TestLocMemCache(CacheContract):
    alias = "default"


class TestFileBasedCache(CacheContract):
    alias = "file"


@pytest.mark.django_db(transaction=True)
class TestDatabaseCache(CacheContract):
    alias = "database"
    expiry_slack = 1.0  # it keeps whole seconds


@pytest.mark.usefixtures("valkey")
class TestRedisCache(CacheContract):
    alias = "redis"


@pytest.mark.usefixtures("valkey")
class TestDjangoRedis(CacheContract):
    alias = "django_redis"


@pytest.mark.usefixtures("valkey")
class TestRedisStandalone(CacheContract):
    alias = "standalone"


@pytest.mark.usefixtures("sentinel")
class TestRedisSentinel(CacheContract):
    alias = "sentinel"


@pytest.mark.usefixtures("cluster")
class TestRedisCluster(CacheContract):
    alias = "cluster"
