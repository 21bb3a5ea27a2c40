"""redis-py's clients, made so that every wait is finite and nothing is tried ten times."""

import inspect
from functools import cache
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from .config import ServerConfig
from .connections import (
    AsyncPatientSentinel,
    PatientSentinel,
    PatientTLS,
    SentinelPatientTLS,
)
from .deadline import Deadline, DeadlineParser, alog_in, log_in
from .options import CONNECTION_CLASSES

# Connections of a pool. Our own limit is that of operations; redis-py's default, of a hundred in
# some versions, would refuse what that allows.
_NO_LIMIT: Final = 2**31


def make_client(config: ServerConfig) -> Any:
    """Return a client for sync code. It connects when it is first used; a cluster's, at once."""
    retry = Retry(NoBackoff(), 0)
    # A server that does not even accept the connection is silent, too.
    connect = min(config.kwargs["socket_connect_timeout"], config.timeout)
    kwargs = quiet(config, redis)
    kwargs |= {"socket_connect_timeout": connect, "max_connections": _NO_LIMIT}
    if config.is_cluster:
        others = [ClusterNode(*address) for address in config.other_nodes]  # type: ignore[no-untyped-call]
        with Deadline(config.discovery_timeout, each=_start_node_timeout(config)):
            return DeadlineCluster(startup_nodes=others, retry=retry, **kwargs)
    kwargs |= {"retry": retry, "parser_class": DeadlineParser, "redis_connect_func": log_in}
    if not config.sentinels:
        kind, _ = CONNECTION_CLASSES[config.scheme]
        return redis.Redis.from_pool(redis.ConnectionPool(kind, **kwargs))
    of_sentinels = _sentinel_kwargs(config, redis, retry) | {"redis_connect_func": log_in}
    sentinel = PatientSentinel(  # type: ignore[no-untyped-call]
        config.sentinels, sentinel_kwargs=of_sentinels, **kwargs
    )
    for each in sentinel.sentinels:  # of which the constructor takes no parser
        each.connection_pool.connection_kwargs["parser_class"] = DeadlineParser
    return sentinel.master_for(config.service)  # type: ignore[no-untyped-call]


def make_async_client(config: ServerConfig) -> Any:
    """Return a client for one event loop. It connects when it is first used."""
    retry = AsyncRetry(NoBackoff(), 0)
    # The caller keeps the time for an operation: redis-py would keep it for each read and each
    # write, and start a task for the latter.
    kwargs = quiet(config, redis.asyncio) | {"socket_timeout": None, "retry": retry}
    kwargs |= {"max_connections": _NO_LIMIT}
    if config.is_cluster:
        # Else the client closes all its connections at every fifth redirection, those that other
        # tasks are reading from, too. A redirection mends its map of slots anyway.
        kwargs["reinitialize_steps"] = 0
        others = [AsyncClusterNode(*address) for address in config.other_nodes]
        client = redis.asyncio.RedisCluster(startup_nodes=others, **kwargs)
        # It takes neither as an option.
        made: dict[str, Any] = {"redis_connect_func": alog_in}
        if config.kwargs["ssl"]:
            made["connection_class"] = PatientTLS
        client.nodes_manager.connection_kwargs.update(made)
        # A silent node is given up in time for the next one. Only while nodes are being discovered:
        # those that are found have no such limit.
        for node in client.nodes_manager.startup_nodes.values():
            node.connection_kwargs["socket_timeout"] = _start_node_timeout(config)
        return client
    kwargs["redis_connect_func"] = alog_in
    if not config.sentinels:
        _, kind = CONNECTION_CLASSES[config.scheme]
        if config.scheme == "rediss":
            kind = PatientTLS
        return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(kind, **kwargs))
    if config.kwargs["ssl"]:
        kwargs["connection_class"] = SentinelPatientTLS
    of_sentinels = _sentinel_kwargs(config, redis.asyncio, retry)
    of_sentinels["redis_connect_func"] = alog_in
    sentinel = AsyncPatientSentinel(  # type: ignore[no-untyped-call]
        config.sentinels, sentinel_kwargs=of_sentinels, **kwargs
    )
    return sentinel.master_for(config.service)


def quiet(config: ServerConfig, module: Any) -> dict[str, Any]:
    """Return the options for redis-py's connections, so that a new one takes no round trip but the
    login, unless CACHES says otherwise: not to tell its name and its version, which asyncio's looks
    up on the disk each time, and not to ask for what only Redis Enterprise has.

    Args:
        module: `redis` or `redis.asyncio`, of which older ones do not know all of it.
    """
    options, given = _silence(module, config.is_cluster), config.kwargs
    if given.keys() & {"driver_info", "lib_name", "lib_version"}:
        options = {n: value for n, value in options.items() if n == "maint_notifications_config"}
    return options | given


@cache
def _silence(module: Any, is_cluster: bool = False) -> dict[str, Any]:
    of_server = inspect.signature(module.Redis).parameters
    silence: dict[str, Any]
    if "driver_info" in of_server:
        silence = {"driver_info": None}
    else:
        silence = {"lib_name": None, "lib_version": None}
    known = inspect.signature(module.RedisCluster).parameters if is_cluster else of_server
    if "maint_notifications_config" in known:
        from redis.maint_notifications import MaintNotificationsConfig

        silence["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return silence


def with_sentinels(client: Any) -> list[Any]:
    """Return `client` and those that ask sentinels on its behalf, which it does not close."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [client] if manager is None else [client, *manager.sentinels]


class DeadlineCluster(redis.RedisCluster):
    """A client of a cluster that keeps deadlines: it takes no parser as an option."""

    def on_connect(self, connection: Any) -> None:
        """Give a new connection our parser, and log in. Conversations are on primaries only, so
        that there is nothing else to be said to a node."""
        connection.set_parser(DeadlineParser)
        log_in(connection)


def _start_node_timeout(config: ServerConfig) -> float:
    # If all but one are silent, that one is asked in time.
    return min(config.timeout, config.discovery_timeout / (len(config.other_nodes) + 2))


def _sentinel_kwargs(config: ServerConfig, module: Any, retry: Any) -> dict[str, Any]:
    # If all but one are silent, that one is asked nevertheless, and first from then on.
    limits = {"socket_timeout": config.timeout, "socket_connect_timeout": config.timeout}
    ours = {**limits, **_silence(module), "retry": retry, **config.sentinel_kwargs}
    return ours | {"max_connections": _NO_LIMIT}
