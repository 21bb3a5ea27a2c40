"""What the system checks for the redis backend find in CACHES, and in a server."""

import asyncio
from typing import Any

import pytest

from django_convstate import InvalidBackend
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.checks import check_place, check_server
from tests.conftest import on
from tests.servers import SERVICE, Server


class TestChecks:
    def ids(self, settings: Any, **entry: Any) -> list[str]:
        settings.CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "redis://127.0.0.1:6379/0",
                **entry,
            }
        }
        messages = check_place("default")
        assert all(message.hint for message in messages)
        assert "hunter2" not in str(messages)
        return [str(message.id) for message in messages]

    def test_places(self, settings: Any) -> None:
        timeout = {"SOCKET_TIMEOUT": 1}
        factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
        sentinels = {"SENTINELS": [("127.0.0.1", 1)]}
        assert self.ids(settings, OPTIONS=timeout) == []
        assert self.ids(settings) == ["convstate.W003"]
        assert self.ids(settings, BACKEND="django.core.cache.backends.redis.RedisCache") == [
            "convstate.E009"
        ]
        for url in ("127.0.0.1:6379", "", "http://x", "redis://x:notaport/0", "redis://x:99999/0"):
            assert "convstate.E010" in self.ids(settings, LOCATION=url, OPTIONS=timeout), url
        cluster = {**timeout, "CONNECTION_FACTORY": factory}
        assert self.ids(settings, OPTIONS=cluster) == []
        assert self.ids(settings, LOCATION="redis://x/1", OPTIONS=cluster) == ["convstate.E012"]
        assert self.ids(settings, OPTIONS={**cluster, **sentinels}) == ["convstate.E013"]
        assert [str(m.id) for m in check_place("nowhere")] == ["convstate.E004"]

    def test_sentinels(self, settings: Any) -> None:
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
        assert ids(service, client) == ["convstate.E016"]
        assert ids(service, {**client, **factory, "SENTINELS": []}) == ["convstate.E016"]
        # Where the name of the service should be is nothing, or a sentinel.
        assert ids("redis:///0", right) == ["convstate.E011"]
        assert ids("redis://127.0.0.1:1/0", right) == ["convstate.E011"]
        for wrong in (["127.0.0.1:26379"], "127.0.0.1:26379", [("127.0.0.1",)], 5):
            assert ids(service, {**right, "SENTINELS": wrong}) == ["convstate.E010"], wrong

    def test_options_that_contradict_each_other(self, settings: Any) -> None:
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

    def test_options_that_cannot_be_read(self, settings: Any) -> None:
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

    def test_a_timeout_that_is_none_at_run_time(self, settings: Any) -> None:
        backend = on(settings, "redis://127.0.0.1:1/0", SOCKET_TIMEOUT="0.25")
        with pytest.raises(InvalidBackend, match="SOCKET_TIMEOUT must be a number of seconds"):
            backend.exists("a")

    def test_a_missing_alias_at_run_time(self) -> None:
        with pytest.raises(InvalidBackend, match="nowhere"):
            RedisBackend(cache_alias="nowhere").exists("a")

    def test_servers(self, settings: Any, server: Server) -> None:
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

    def test_a_server_that_keeps_info_to_itself(self, settings: Any, server: Server) -> None:
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
