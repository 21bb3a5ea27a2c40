"""The contract, on every backend and every kind of cache."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import pytest

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.testing import BackendContract
from tests.support.places import make_place

# What takes seconds, because it waits for time to pass.
LIFETIMES = (
    "test_expiry_slides_on_load_and_commit",
    "test_touch",
    "test_max_age_limits_the_time_to_live",
    "test_purge_of_expired_conversations",
)
LEASES = (
    "test_an_expired_holder_loses_its_place",
    "test_an_expired_lease_is_lost_without_waiters",
    "test_renewal_keeps_the_lease",
    "test_a_waiter_that_asks_again_keeps_its_place",
)
C = TypeVar("C", bound=type[BackendContract])


def slow(*names: str) -> Callable[[C], C]:
    """Leave some tests to `make test-slow`, where another class here tests the same code."""

    def mark(contract: C) -> C:
        for name in names:
            setattr(contract, name, pytest.mark.slow(_copy_of(getattr(contract, name))))
        return contract

    return mark


def _copy_of(scenario: Callable[[Any], None]) -> Callable[[Any], None]:
    # A mark is kept in the function itself, and that is every contract's.
    @wraps(scenario)
    def copy(self: Any) -> None:
        scenario(self)

    return copy


class TestLocMem(BackendContract):
    def make_backend(self, **options: Any) -> ConversationStateBackend:
        return make_place("locmem", **options)


class CacheContract(BackendContract):
    alias: str

    def make_backend(self, **options: Any) -> ConversationStateBackend:
        return make_place(self.alias, **options)


@slow(*LEASES)  # its queue is that of the memory backend
class TestLocMemCache(CacheContract):
    alias = "default"


@slow(*LIFETIMES, *LEASES)
class TestFileBasedCache(CacheContract):
    alias = "file"


@slow(*LIFETIMES, *LEASES)
@pytest.mark.django_db(transaction=True)
class TestDatabaseCache(CacheContract):
    alias = "database"
    expiry_slack = 1.0  # it keeps whole seconds


@slow(*LIFETIMES, *LEASES)
@pytest.mark.usefixtures("valkey")
class TestRedisCache(CacheContract):
    alias = "redis"


@slow(*LIFETIMES, *LEASES)
@pytest.mark.usefixtures("valkey")
class TestDjangoRedis(CacheContract):
    alias = "django_redis"


@pytest.mark.usefixtures("valkey")
class TestRedisStandalone(CacheContract):
    alias = "standalone"


@slow(*LIFETIMES, *LEASES)
@pytest.mark.usefixtures("sentinel")
class TestRedisSentinel(CacheContract):
    alias = "sentinel"


@slow(*LIFETIMES, *LEASES)
@pytest.mark.usefixtures("cluster")
class TestRedisCluster(CacheContract):
    alias = "cluster"


class DatabaseContract(BackendContract):
    alias: str

    def make_backend(self, **options: Any) -> ConversationStateBackend:
        return make_place(self.alias, **options)


@slow(*LIFETIMES, *LEASES)
@pytest.mark.usefixtures("sqlite")
class TestSQLite(DatabaseContract):
    alias = "sqlite"


@pytest.mark.usefixtures("postgres")
class TestPostgreSQL(DatabaseContract):
    alias = "postgres"
