"""redis-py's clients, made so that every wait is finite and nothing is tried ten times."""

from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel
from redis.utils import HIREDIS_AVAILABLE

from .config import ServerConfig
from .deadline import Deadline, DeadlineParser


def make_client(config: ServerConfig) -> Any:
    """Return a client for sync code. It connects when it is first used; a cluster's, at once."""
    retry = Retry(NoBackoff(), 0)
    parser = {"parser_class": DeadlineParser} if HIREDIS_AVAILABLE else {}
    # To connect is a part of the operation that needs it.
    connect = min(config.kwargs["socket_connect_timeout"], config.timeout)
    kwargs: dict[str, Any] = parser | config.kwargs | {"socket_connect_timeout": connect}
    if config.is_cluster:
        others = [ClusterNode(*address) for address in _other_nodes(config)]  # type: ignore[no-untyped-call]
        with Deadline(config.discovery_timeout):
            return DeadlineCluster.from_url(config.url, startup_nodes=others, retry=retry, **kwargs)
    if not config.sentinels:
        return redis.Redis.from_url(config.url, retry=retry, **kwargs)
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        config.sentinels, sentinel_kwargs=_sentinel_kwargs(config, retry), retry=retry, **kwargs
    )
    for each in sentinel.sentinels:  # of which the constructor takes no parser
        each.connection_pool.connection_kwargs.update(parser)
    return sentinel.master_for(config.service, **_login(config))  # type: ignore[no-untyped-call]


def make_async_client(config: ServerConfig) -> Any:
    """Return a client for one event loop. It connects when it is first used."""
    retry = AsyncRetry(NoBackoff(), 0)
    # The caller keeps the time for an operation: redis-py would keep it for each read and each
    # write, and start a task for the latter.
    kwargs = config.kwargs | {"socket_timeout": None}
    if config.is_cluster:
        return _make_async_cluster(config, retry, kwargs)
    if not config.sentinels:
        return redis.asyncio.Redis.from_url(config.url, retry=retry, **kwargs)
    sentinel = AsyncSentinel(  # type: ignore[no-untyped-call]
        config.sentinels, sentinel_kwargs=_sentinel_kwargs(config, retry), retry=retry, **kwargs
    )
    return sentinel.master_for(config.service, **_login(config))


def sentinels_of(client: Any) -> list[Any]:
    """Return the clients that ask sentinels on behalf of `client`, which does not close them."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


class DeadlineCluster(redis.RedisCluster):
    """A client of a cluster that keeps deadlines: it takes no parser as an option."""

    def on_connect(self, connection: Any) -> None:
        """Give a new connection our parser, and log in."""
        if HIREDIS_AVAILABLE:
            connection.set_parser(DeadlineParser)
        super().on_connect(connection)  # type: ignore[no-untyped-call]


def _make_async_cluster(config: ServerConfig, retry: Any, kwargs: dict[str, Any]) -> Any:
    # Else the client closes all its connections at every fifth redirection, those that other tasks
    # are reading from, too. A redirection mends its map of slots anyway.
    client = redis.asyncio.RedisCluster.from_url(
        config.url,
        startup_nodes=[AsyncClusterNode(*address) for address in _other_nodes(config)],
        retry=retry,
        reinitialize_steps=0,
        **kwargs,
    )
    # A silent one is given up in time for the next one. Only while nodes are being discovered:
    # those that are found have no such limit.
    nodes = client.nodes_manager.startup_nodes.values()
    each = min(config.timeout, config.discovery_timeout / (len(nodes) + 1))
    for node in nodes:
        node.connection_kwargs["socket_timeout"] = each
    return client


def _sentinel_kwargs(config: ServerConfig, retry: Any) -> dict[str, Any]:
    # If all but one are silent, that one is asked in time, and first from then on.
    each = config.timeout / (len(config.sentinels) + 1)
    limits = {"socket_timeout": each, "socket_connect_timeout": each}
    return {**limits, "retry": retry, **config.sentinel_kwargs}


def _other_nodes(config: ServerConfig) -> list[tuple[str, int]]:
    addresses = [urlsplit(url) for url in config.urls[1:]]
    return [(each.hostname or "localhost", each.port or 6379) for each in addresses]


def _login(config: ServerConfig) -> dict[str, Any]:
    found = parse_url(config.url)  # type: ignore[no-untyped-call]
    login = {name: found[name] for name in ("username", "password", "db") if name in found}
    # Else what is meant for TLS, the password too, would go out in plain text.
    return {**login, "ssl": True} if urlsplit(config.url).scheme == "rediss" else login
