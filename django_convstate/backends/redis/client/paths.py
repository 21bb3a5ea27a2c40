"""Which class sends operations: one of ours, or redis-py's client where its pool has work to do."""

from typing import Any, TypeAlias

from redis.credentials import StreamingCredentialProvider

from .cluster_nodes import AsyncClusterNodes, ClusterNodes
from .config import ServerConfig
from .connection_stack import AsyncConnectionStack, ConnectionStack
from .retrying import execute


class RedisPy:
    """Sends each operation by redis-py's client, whose pool does something between two of them."""

    execute = staticmethod(execute)

    def lend(self) -> None:
        """See `ConnectionStack.lend`: the pool has them all."""


class AsyncRedisPy:
    """See `RedisPy`."""

    execute = staticmethod(execute)

    async def lend(self) -> None:
        """See `ConnectionStack.lend`."""


Path: TypeAlias = ConnectionStack | ClusterNodes | RedisPy
AsyncPath: TypeAlias = AsyncConnectionStack | AsyncClusterNodes | AsyncRedisPy


def path(client: Any, config: ServerConfig) -> Path:
    """Return what sends the operations of a client for sync code."""
    if _needs_pool(config):
        return RedisPy()
    if config.is_cluster:
        return ClusterNodes()
    return ConnectionStack(client.connection_pool)


def apath(client: Any, config: ServerConfig) -> AsyncPath:
    """Return what sends the operations of a client for async code."""
    if _needs_pool(config):
        return AsyncRedisPy()
    if config.is_cluster:
        return AsyncClusterNodes()
    return AsyncConnectionStack(client.connection_pool)


def _needs_pool(config: ServerConfig) -> bool:
    """Tell whether redis-py's pool has something to do with connections between two uses: to give
    them a new token, or to take them to another server before maintenance."""
    told, login = map(config.kwargs.get, ("maint_notifications_config", "credential_provider"))
    return getattr(told, "enabled", False) or isinstance(login, StreamingCredentialProvider)
