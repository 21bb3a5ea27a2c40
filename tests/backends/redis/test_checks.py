"""What the system checks for the redis backend find in CACHES, and in a server."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache.backends.base import default_key_func

from django_convstate import InvalidBackend
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.diagnostics.checks import check_entry, check_one, check_server
from django_convstate.backends.redis.diagnostics.server_info import ServerInfo
from tests.support.places import on
from tests.support.servers import SERVICE, Server

CLUSTER = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"


def by_tenant(key: str, prefix: str, version: int) -> str:
    return f"acme:{prefix}:{version}:{key}"


class TestChecks:
    def ids(self, settings: Any, **entry: Any) -> list[str]:
        settings.CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "redis://127.0.0.1:6379/0",
                **entry,
            }
        }
        messages = check_entry("default")
        assert all(message.hint for message in messages)
        assert "hunter2" not in str(messages)
        return [str(message.id) for message in messages]

    def test_addresses_and_timeouts_are_checked(self, settings: Any) -> None:
        timeout = {"SOCKET_TIMEOUT": 1}
        sentinels = {"SENTINELS": [("127.0.0.1", 1)]}
        assert self.ids(settings, OPTIONS=timeout) == []
        assert self.ids(settings) == ["convstate.W003"]
        assert self.ids(settings, BACKEND="django.core.cache.backends.redis.RedisCache") == [
            "convstate.E009"
        ]
        for url in ("127.0.0.1:6379", "", "http://x", "redis://x:notaport/0", "redis://x:99999/0"):
            assert "convstate.E010" in self.ids(settings, LOCATION=url, OPTIONS=timeout), url
        cluster = {**timeout, "CONNECTION_FACTORY": CLUSTER}
        assert self.ids(settings, OPTIONS=cluster) == []
        assert self.ids(settings, LOCATION="redis://x/1", OPTIONS=cluster) == ["convstate.E012"]
        assert self.ids(settings, OPTIONS={**cluster, **sentinels}) == ["convstate.E011"]
        assert [str(m.id) for m in check_entry("nowhere")] == ["convstate.E004"]

    @pytest.mark.parametrize(
        "name", ["tests.backends.redis.test_checks.by_tenant", by_tenant, "no.such.function"]
    )
    def test_a_key_function_is_an_error(self, settings: Any, name: Any) -> None:
        timeout = {"SOCKET_TIMEOUT": 1}
        assert self.ids(settings, OPTIONS=timeout, KEY_FUNCTION=name) == ["convstate.E023"]
        (message,) = check_entry("default")
        assert "get_store" in str(message.hint)
        assert "KEY_PREFIX" in str(message.hint)

    @pytest.mark.parametrize(
        "name", [None, "django.core.cache.backends.base.default_key_func", default_key_func]
    )
    def test_the_default_key_function_is_fine(self, settings: Any, name: Any) -> None:
        assert self.ids(settings, OPTIONS={"SOCKET_TIMEOUT": 1}, KEY_FUNCTION=name) == []

    def test_sentinel_entries_are_checked(self, settings: Any) -> None:
        service, pairs = f"redis://{SERVICE}/0", [("127.0.0.1", 1)]
        client = {"CLIENT_CLASS": "django_redis.client.SentinelClient", "SOCKET_TIMEOUT": 1}
        factory = {"CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory"}
        right = {**client, **factory, "SENTINELS": pairs}

        def ids(location: str, options: dict[str, Any]) -> list[str]:
            return self.ids(settings, LOCATION=location, OPTIONS=options)

        assert ids(service, right) == []
        # Without its client the cache does not read from replicas, and that is all.
        assert ids(service, {"SOCKET_TIMEOUT": 1, **factory, "SENTINELS": pairs}) == []
        assert ids(service, {**client, "SENTINELS": pairs}) == ["convstate.W008"]
        assert ids(service, client) == ["convstate.E011"]
        assert ids(service, {**client, **factory, "SENTINELS": []}) == ["convstate.E011"]
        # Where the name of the service should be is nothing, or a sentinel.
        assert ids("redis:///0", right) == ["convstate.E011"]
        assert ids("redis://127.0.0.1:1/0", right) == ["convstate.W008"]
        for wrong in (["127.0.0.1:26379"], "127.0.0.1:26379", [("127.0.0.1",)], 5):
            assert ids(service, {**right, "SENTINELS": wrong}) == ["convstate.E010"], wrong

    def test_contradicting_logins_and_clients_are_warned_of(self, settings: Any) -> None:
        timeout = {"SOCKET_TIMEOUT": 1}
        own = "redis://chat:p%40ss@127.0.0.1:6379/0"
        logins: list[tuple[dict[str, Any], list[str]]] = [
            ({"PASSWORD": "p@ss", "USERNAME": "chat"}, []),
            ({"PASSWORD": "hunter2"}, ["convstate.W010"]),
            ({"USERNAME": "root"}, ["convstate.W010"]),
            ({"CONNECTION_POOL_KWARGS": {"password": "hunter2"}}, ["convstate.W010"]),
        ]
        for login, expected in logins:
            assert self.ids(settings, LOCATION=own, OPTIONS={**timeout, **login}) == expected
        two = ["redis://127.0.0.1:6379/0", "redis://127.0.0.1:6380/0"]
        assert self.ids(settings, LOCATION=two, OPTIONS=timeout) == []
        shards = {"CLIENT_CLASS": "django_redis.client.ShardClient"}
        assert self.ids(settings, LOCATION=two, OPTIONS={**timeout, **shards}) == ["convstate.W009"]

    def test_unreadable_options_are_errors(self, settings: Any) -> None:
        for options in (
            {"CONNECTION_FACTORY": "no.such.Factory"},
            {"CONNECTION_FACTORY": "django_redis.pool.get_connection_factory"},
            {"SOCKET_TIMEOUT": "0.25"},
            {"SOCKET_CONNECT_TIMEOUT": -1},
            {"CONNECTION_POOL_KWARGS": {"socket_timeout": True}},
            ["SOCKET_TIMEOUT"],
        ):
            assert self.ids(settings, OPTIONS=options) == ["convstate.E010"], options
        # A password with a slash in it ends the host too early; it is not quoted.
        assert self.ids(settings, LOCATION="redis://:hunter2/x@127.0.0.1:6379/0") == [
            "convstate.E010"
        ]

    @pytest.mark.parametrize(
        "location",
        [
            "redis://:hunter2/x@127.0.0.1:6379/0",
            "redis://:hunter2\u2100@127.0.0.1:6379/0",
            "redis://:1?hunter2=x@127.0.0.1/0",
            "redis://:hun[ter2@127.0.0.1/0",
            "redis://:hunter2@[bad]:6379/0",
            "127.0.0.1:6379",
            "REDIS://127.0.0.1:6379/0",
            "redis://127.0.0.1:6379?db=abc",
            "redis://127.0.0.1:6379?socket_timeout=abc",
            "redis://127.0.0.1:6379?foo=1",
            "redis://127.0.0.1:6379?max_connections=0",
            "redis://127.0.0.1:6379/production",
            "redis://127.0.0.1:6379/1/2",
            "redis://127.0.0.1:6379/-1",
            "redis://127.0.0.1:6379?db=-1",
            "unix://",
            "",
            [],
            [None],
            None,
            5,
            b"redis://127.0.0.1:6379/0",
        ],
    )
    def test_an_unreadable_location_is_an_error_and_refused_at_run_time(
        self, settings: Any, location: Any
    ) -> None:
        options = {"SOCKET_TIMEOUT": 1}
        assert self.ids(settings, LOCATION=location, OPTIONS=options) == ["convstate.E010"]
        self.refused_at_run_time()

    @pytest.mark.parametrize(
        "options",
        [
            *({"SOCKET_TIMEOUT": bad} for bad in (0, math.inf, math.nan, 1e12, "1", -1, True)),
            *(
                {"CONNECTION_POOL_KWARGS": bad}
                for bad in (
                    {"max_connections": "50"},
                    {"max_connections": 1.5},
                    {"max_connections": -1},
                    {"max_connections": 0},
                    {"hunter": 1},
                    {"ssl_ca_certs": "/ca.pem"},
                    {"socket_timeout": None},
                    {"health_check_interval": "1"},
                    {"socket_read_size": 0},
                    {"protocol": 4},
                    {"db": "x"},
                    "max_connections",
                )
            ),
            {"REDIS_CLIENT_KWARGS": {"hunter": 1}},
            {"SENTINELS": [("127.0.0.1", 1)], "SENTINEL_KWARGS": {"hunter": 1}},
            {"SENTINELS": [("127.0.0.1", 1)], "SENTINEL_KWARGS": {"socket_timeout": math.inf}},
            {"CONNECTION_FACTORY": "no.such.Factory"},
            {"CONNECTION_FACTORY": CLUSTER, "REDIS_CLIENT_KWARGS": {"hunter": 1}},
        ],
    )
    def test_an_impossible_option_is_an_error_and_refused_at_run_time(
        self, settings: Any, options: dict[str, Any]
    ) -> None:
        assert self.ids(settings, OPTIONS={"SOCKET_TIMEOUT": 1, **options}) == ["convstate.E010"]
        self.refused_at_run_time()

    def refused_at_run_time(self) -> None:
        backend = RedisBackend()
        for use in (
            lambda: backend.load("a", 1),
            lambda: asyncio.run(backend.aload("a", 1)),
            lambda: backend.commit("a", Change()),
            backend.health,
            lambda: asyncio.run(backend.ahealth()),
            lambda: list(backend.scan()),
        ):
            with pytest.raises(InvalidBackend) as caught:
                use()
            assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"

    @pytest.mark.parametrize(
        ("location", "options", "id"),
        [
            ("redis://127.0.0.1:6379/1", {}, "convstate.E012"),
            ("redis://127.0.0.1:6379?db=1", {}, "convstate.E012"),
            ("redis://127.0.0.1:6379", {"CONNECTION_POOL_KWARGS": {"db": 1}}, "convstate.E012"),
            ("unix:///tmp/socket", {}, "convstate.E010"),
        ],
    )
    def test_databases_and_sockets_are_errors_on_a_cluster(
        self, settings: Any, location: str, options: dict[str, Any], id: str
    ) -> None:
        cluster = {"SOCKET_TIMEOUT": 1, "CONNECTION_FACTORY": CLUSTER, **options}
        assert self.ids(settings, LOCATION=location, OPTIONS=cluster) == [id]
        self.refused_at_run_time()

    @pytest.mark.parametrize("query", ["", "?decode_responses=True&max_connections=1"])
    @pytest.mark.parametrize("place", ["CONNECTION_POOL_KWARGS", "REDIS_CLIENT_KWARGS"])
    def test_options_for_the_cache_alone_do_not_change_conversations(
        self, settings: Any, server: Server, query: str, place: str
    ) -> None:
        business: Any = {"decode_responses": True, "encoding": "latin-1", "max_connections": 1}
        url = f"redis://127.0.0.1:{server.port}/3{query}"
        options: dict[str, Any] = {place: business}
        backend = on(settings, url, **options)
        assert check_entry("own") == []
        backend.commit("a", Change(owner="\xfc", set={"\xe4": '"\xf6"'.encode()}))

        async def load() -> Any:
            try:
                return await backend.aload("a", 1)
            finally:
                await backend.aclose()

        for record in (backend.load("a", 1), asyncio.run(load())):
            assert record is not None
            assert (record.owner, record.state) == ("\xfc", {"\xe4": '"\xf6"'.encode()})
        backend.close()
        with server.client() as client:
            assert set(client.info("keyspace")) == {"db3"}

    def test_a_timeout_in_the_url_is_used(self, settings: Any) -> None:
        for query in ("socket_timeout=60", "db=1&socket_timeout=0.5"):
            assert self.ids(settings, LOCATION=f"redis://127.0.0.1:6379?{query}") == []
        backend = on(settings, "redis://127.0.0.1:6379/0?socket_timeout=60")
        assert backend._clients.config.kwargs["socket_timeout"] == 60

    def test_a_timeout_that_is_no_number_is_refused_at_run_time(self, settings: Any) -> None:
        backend = on(settings, "redis://127.0.0.1:1/0", SOCKET_TIMEOUT="0.25")
        with pytest.raises(InvalidBackend, match="SOCKET_TIMEOUT must be a number of seconds"):
            backend.exists("a")

    def test_a_missing_alias_is_refused_at_run_time(self) -> None:
        with pytest.raises(InvalidBackend, match="nowhere"):
            RedisBackend(cache_alias="nowhere").exists("a")

    def test_memory_policy_replicas_and_absence_of_a_server_are_checked(
        self, settings: Any, server: Server
    ) -> None:
        on(settings, f"redis://127.0.0.1:{server.port}/0")

        def ids() -> set[str]:
            messages = list(check_server("own"))
            assert all(message.hint for message in messages)
            return {str(message.id) for message in messages}

        assert ids() == {"convstate.W006"}
        with server.client() as client:
            client.config_set("maxmemory", 10**9)
            assert ids() == set()
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert ids() == {"convstate.W005"}
            client.config_set("maxmemory-policy", "noeviction")
            client.replicaof("127.0.0.1", 1)
            assert ids() == {"convstate.E015"}
        server.kill()
        assert ids() == {"convstate.W004"}

    def test_a_server_without_info_is_healthy_with_unknowns(
        self, settings: Any, server: Server
    ) -> None:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-info", "-config")
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        assert list(check_server("own")) == []
        health = backend.health()
        assert health.connected
        assert "unknown" in health.detail
        assert "0 keys" in health.detail
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-dbsize")
        assert "keys unknown" in backend.health().detail
        assert "keys unknown" in asyncio.run(backend.ahealth()).detail
        backend.close()

    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            ({"redis_version": "6.0.16"}, ["convstate.E014"]),
            ({"redis_version": "5.0.7"}, ["convstate.E014"]),
            ({"redis_version": "6.2.14"}, []),
            # Valkey tells which Redis it is like, and then its own version.
            ({"redis_version": "7.2.4", "valkey_version": "8.1.0"}, []),
            ({}, []),
        ],
    )
    def test_old_server_versions_are_errors(
        self, version: dict[str, str], expected: list[str]
    ) -> None:
        told = {"role": "master", "maxmemory_policy": "noeviction", "maxmemory": 10**9, **version}
        messages = check_one("default", ServerInfo.from_reply(told, {}), is_cluster=False)
        assert [message.id for message in messages] == expected


class TestCluster:
    """Not the node that answers first, but all primaries are looked at."""

    @pytest.fixture
    def second(self, cluster: list[Server]) -> Iterator[Any]:
        with cluster[1].client() as client:
            yield client
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 0)

    def test_checks_look_at_all_primaries(
        self, settings: Any, cluster: list[Server], second: Any
    ) -> None:
        clients = [node.client() for node in cluster[:3]]
        try:
            for client in clients:
                client.config_set("maxmemory", 10**9)
            assert list(check_server("cluster")) == []
            second.config_set("maxmemory-policy", "allkeys-lru")
            (message,) = check_server("cluster")
        finally:
            for client in clients:
                client.config_set("maxmemory", 0)
                client.close()
        assert message.id == "convstate.W005"
        assert f":{cluster[1].port}" in message.msg

    async def test_health_looks_at_all_primaries(self, cluster: list[Server], second: Any) -> None:
        backend = RedisBackend(cache_alias="cluster")
        try:
            assert "3 primaries" in backend.health().detail
            assert "3 primaries" in (await backend.ahealth()).detail
            second.config_set("maxmemory", 1)
            for health in (backend.health(), await backend.ahealth()):
                assert not health.connected
                assert "out of memory" in health.detail
                assert f":{cluster[1].port}" in health.detail
        finally:
            backend.close()
            await backend.aclose()
