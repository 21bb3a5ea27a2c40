"""Connections of an event loop that was closed without its async generators.

Neither redis-py nor asyncio has a public way to close them: whatever closes a connection schedules
that in its loop. Left to the garbage collector they would stay open for a while, and then each
raise a `ResourceWarning`. All that we touch of the inside of others is touched here, but for the
transport in exchange.py.
"""

import socket
from contextlib import suppress
from typing import Any

import redis.asyncio


def disconnect_now(client: Any) -> None:
    """Close the connections of a client whose event loop is closed."""
    for connection in _connections_of(client):
        writer, connection._writer = connection._writer, None
        if writer is not None:
            _close_transport(writer.transport)


def _connections_of(client: Any) -> list[Any]:
    if isinstance(client, redis.asyncio.RedisCluster):
        manager = client.nodes_manager
        nodes = {*manager.nodes_cache.values(), *manager.startup_nodes.values()}
        return [connection for node in nodes for connection in node._connections]
    pool = client.connection_pool
    return [*pool._available_connections, *pool._in_use_connections]


def _close_transport(transport: Any) -> None:
    with suppress(RuntimeError):  # it gets as far as to schedule the rest
        transport.close()
    if (finish := getattr(transport, "_call_connection_lost", None)) is not None:
        finish(None)
    elif (its_socket := transport.get_extra_info("socket")) is not None:  # with TLS
        with suppress(OSError):
            its_socket.shutdown(socket.SHUT_RDWR)
