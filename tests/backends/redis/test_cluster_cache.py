"""One entry of CACHES serves the cache and the conversations, on a cluster, too."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.core.cache import caches
from redis.exceptions import RedisClusterException

from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.cluster import ClusterConnectionFactory
from tests.support.messages import bodies, pairs
from tests.support.servers import Server

VALUES = {f"key{number}": number for number in range(50)}  # in all three parts of the cluster


@pytest.fixture
def cache(cluster: list[Server]) -> Iterator[Any]:
    cache = caches["cluster"]
    cache.clear()
    yield cache
    cache.clear()


def test_get_many_set_many_and_delete_many_span_the_nodes(cache: Any) -> None:
    cache.set_many(VALUES)
    assert cache.get_many([*VALUES, "absent"]) == VALUES
    cache.delete_many(list(VALUES)[:20])
    assert cache.get_many(VALUES) == dict(list(VALUES.items())[20:])


def test_keys_and_delete_pattern_span_the_nodes(cache: Any) -> None:
    cache.set_many({**VALUES, "other": 1})
    assert sorted(cache.keys("key*")) == sorted(VALUES)
    assert sorted(cache.iter_keys("key*")) == sorted(VALUES)
    assert cache.delete_pattern("key*") == len(VALUES)
    assert cache.keys("*") == ["other"]


def test_single_key_methods_work(cache: Any) -> None:
    assert cache.add("counter", 1, timeout=100)
    assert not cache.add("counter", 1)
    assert cache.incr("counter", 5) == 6
    assert 50 < cache.ttl("counter") <= 100
    assert cache.touch("counter", 1000)
    assert cache.ttl("counter") > 500
    assert cache.persist("counter")
    assert cache.incr_version("counter") == 2
    assert cache.get("counter", version=2) == 6
    with cache.lock("lock", timeout=5):
        assert "lock" in cache
    assert cache.get_or_set("made", lambda: 5) == 5
    assert cache.delete("made")


def test_clear_empties_all_nodes(cache: Any) -> None:
    cache.set_many(VALUES)
    cache.clear()
    assert cache.keys("*") == []


def test_the_cache_and_conversations_use_one_entry_side_by_side(cache: Any) -> None:
    backend = RedisBackend(cache_alias="cluster")
    backend.commit("beside", Change(append=pairs(b"{}")))
    cache.set("beside", 1)
    assert bodies(backend.read_messages("beside", 0, 1)) == [b"{}"]
    assert cache.get("beside") == 1
    cache.close()
    assert cache.get("beside") == 1
    backend.close()


def test_each_login_has_a_client_of_its_own(cluster: list[Server]) -> None:
    url = f"redis://127.0.0.1:{cluster[0].port}"
    for node in cluster:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", "guest", "reset", "on", ">pw", "~*", "+@all")
    ours = ClusterConnectionFactory({"SOCKET_TIMEOUT": 5})
    guest = ClusterConnectionFactory({"SOCKET_TIMEOUT": 5, "USERNAME": "guest", "PASSWORD": "pw"})
    clients = ours.connect(url), guest.connect(url)
    assert [client.acl_whoami(target_nodes=client.RANDOM) for client in clients] == [
        "default",
        "guest",
    ]
    assert ClusterConnectionFactory({"SOCKET_TIMEOUT": 5}).connect(url) is clients[0]
    for factory, client in zip((ours, guest), clients, strict=True):
        factory.disconnect(client)
    for node in cluster:
        with node.client() as client:
            client.acl_deluser("guest")


def test_a_client_that_is_disconnected_has_no_open_connection(cluster: list[Server]) -> None:
    factory = ClusterConnectionFactory({"SOCKET_TIMEOUT": 6})  # as no other client here
    client = factory.connect(f"redis://127.0.0.1:{cluster[0].port}")
    for key in VALUES:
        client.get(key)
    pools = [node.redis_connection.connection_pool for node in client.get_primaries()]
    assert any(open_sockets(pool) for pool in pools)
    factory.disconnect(client)
    assert not any(open_sockets(pool) for pool in pools)


def open_sockets(pool: Any) -> list[Any]:
    connections = [*pool._available_connections, *pool._in_use_connections]
    return [connection for connection in connections if connection.is_connected]


def test_connecting_to_a_silent_cluster_does_not_block_other_threads(
    cluster: list[Server], server: Server
) -> None:
    """While one thread connects to what does not answer, others get their client."""
    server.freeze()
    away = ClusterConnectionFactory({"SOCKET_TIMEOUT": 30})

    def connect() -> None:
        with suppress(RedisClusterException):
            away.connect(f"redis://127.0.0.1:{server.port}")

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        there = ClusterConnectionFactory({"SOCKET_TIMEOUT": 5})
        client = there.connect(f"redis://127.0.0.1:{cluster[0].port}")
        assert client.ping()
        assert thread.is_alive()
        there.disconnect(client)
    finally:
        server.thaw()
        server.kill()
        thread.join()
