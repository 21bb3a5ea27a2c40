"""redis-py's clients, made so that every wait is finite and nothing is tried ten times."""

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from .config import ServerConfig
from .options import CONNECTION_CLASSES
from .retrying import Deadline, DeadlineParser


def make_client(config: ServerConfig) -> Any:
    """Return a client for sync code. It connects when it is first used; a cluster's, at once."""
    retry = Retry(NoBackoff(), 0)
    # To connect is a part of the operation that needs it.
    connect = min(config.kwargs["socket_connect_timeout"], config.timeout)
    kwargs = config.kwargs | {"socket_connect_timeout": connect}
    if config.is_cluster:
        others = [ClusterNode(*address) for address in config.other_nodes]  # type: ignore[no-untyped-call]
        with Deadline(config.discovery_timeout, each=_start_node_timeout(config)):
            return DeadlineCluster(startup_nodes=others, retry=retry, **kwargs)
    kwargs |= {"retry": retry, "parser_class": DeadlineParser}
    if not config.sentinels:
        kind, _ = CONNECTION_CLASSES[config.scheme]
        return redis.Redis.from_pool(redis.ConnectionPool(kind, **kwargs))
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        config.sentinels, sentinel_kwargs=_sentinel_kwargs(config, retry), **kwargs
    )
    for each in sentinel.sentinels:  # of which the constructor takes no parser
        each.connection_pool.connection_kwargs["parser_class"] = DeadlineParser
    return sentinel.master_for(config.service)  # type: ignore[no-untyped-call]


def make_async_client(config: ServerConfig) -> Any:
    """Return a client for one event loop. It connects when it is first used."""
    retry = AsyncRetry(NoBackoff(), 0)
    # The caller keeps the time for an operation: redis-py would keep it for each read and each
    # write, and start a task for the latter.
    kwargs = config.kwargs | {"socket_timeout": None, "retry": retry}
    if config.is_cluster:
        # Else the client closes all its connections at every fifth redirection, those that other
        # tasks are reading from, too. A redirection mends its map of slots anyway.
        kwargs["reinitialize_steps"] = 0
        others = [AsyncClusterNode(*address) for address in config.other_nodes]
        client = redis.asyncio.RedisCluster(startup_nodes=others, **kwargs)
        # A silent node is given up in time for the next one. Only while nodes are being discovered:
        # those that are found have no such limit.
        for node in client.nodes_manager.startup_nodes.values():
            node.connection_kwargs["socket_timeout"] = _start_node_timeout(config)
        return client
    if not config.sentinels:
        _, kind = CONNECTION_CLASSES[config.scheme]
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(kind, **kwargs))
    sentinel = AsyncSentinel(  # type: ignore[no-untyped-call]
        config.sentinels, sentinel_kwargs=_sentinel_kwargs(config, retry), **kwargs
    )
    return sentinel.master_for(config.service)


def with_sentinels(client: Any) -> list[Any]:
    """Return `client` and those that ask sentinels on its behalf, which it does not close."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [client] if manager is None else [client, *manager.sentinels]


class DeadlineCluster(redis.RedisCluster):
    """A client of a cluster that keeps deadlines: it takes no parser as an option."""

    def on_connect(self, connection: Any) -> None:
        """Give a new connection our parser, and log in."""
        connection.set_parser(DeadlineParser)
        super().on_connect(connection)  # type: ignore[no-untyped-call]


def _start_node_timeout(config: ServerConfig) -> float:
    # If all but one are silent, that one is asked in time.
    return min(config.timeout, config.discovery_timeout / (len(config.other_nodes) + 2))


def _sentinel_kwargs(config: ServerConfig, retry: Any) -> dict[str, Any]:
    # If all but one are silent, that one is asked in time, and first from then on.
    each = config.timeout / (len(config.sentinels) + 1)
    limits = {"socket_timeout": each, "socket_connect_timeout": each}
    return {**limits, "retry": retry, **config.sentinel_kwargs}
