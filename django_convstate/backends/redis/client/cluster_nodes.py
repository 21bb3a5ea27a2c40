"""Operations on a cluster: sent to the node that has the key, on a connection that is there.

What a node does not answer as it should is sent once more by redis-py's client, which follows
redirections and asks the nodes who has which keys.
"""

from typing import Any, Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)

from ..command import Operation
from ..errors import is_retryable
from .connection_stack import ConnectionStack
from .deadline import aput_off_no_more, put_off_no_more
from .retrying import execute

_REDIRECTED: Final = (AskError, ClusterDownError, TryAgainError)  # MOVED is an AskError, too


class ClusterNodes:
    """Sends operations of threads to a cluster, on connections that it keeps for each node."""

    def __init__(self) -> None:
        self._doubtful: set[str] = set()
        self._stacks: dict[Any, ConnectionStack] = {}

    def execute(self, client: Any, operation: Operation[Any], full: bool) -> Any:
        """See `ConnectionStack.execute`."""
        node = None if full else _node_of(client, operation)
        if node is None or node.name in self._doubtful:
            return self._by_redis_py(client, operation, full, node)
        try:
            return self._ask(client, node, operation)
        except ResponseError as error:
            if not isinstance(error, _REDIRECTED):
                raise
        except BaseException as error:
            # Until it has answered redis-py is to look who has taken its place.
            self._doubtful.add(node.name)
            if not (isinstance(error, ConnectionError) and is_retryable(error)):
                raise
            put_off_no_more()
        return self._by_redis_py(client, operation, full, node)

    def lend(self) -> None:
        """See `ConnectionStack.lend`."""
        for stack in list(self._stacks.values()):
            stack.lend()

    def _ask(self, client: Any, node: Any, operation: Operation[Any]) -> Any:
        pool = client.get_redis_connection(node).connection_pool
        stack = self._stacks.get(pool) or self._stacks.setdefault(pool, ConnectionStack(pool))
        return stack.execute(client, operation, False)

    def _by_redis_py(self, client: Any, operation: Operation[Any], full: bool, node: Any) -> Any:
        reply = execute(client, operation, full)
        if node is not None:
            self._doubtful.discard(node.name)
            self._forget_former_nodes(client)
        return reply

    def _forget_former_nodes(self, client: Any) -> None:
        nodes = client.get_nodes()
        pools = {client.get_redis_connection(node).connection_pool for node in nodes}
        for pool in list(self._stacks):
            if pool not in pools:
                self._stacks.pop(pool, None)
                pool.disconnect()


class AsyncClusterNodes:
    """Sends operations of an event loop's tasks to a cluster. In async code redis-py's nodes keep
    their connections themselves."""

    def __init__(self) -> None:
        self._doubtful: set[str] = set()

    async def execute(self, client: Any, operation: Operation[Any], full: bool) -> Any:
        """See `ConnectionStack.execute`."""
        node = None if full else _node_of(client, operation)
        if node is None or node.name in self._doubtful:
            return await self._by_redis_py(client, operation, full, node)
        try:
            return await self._ask(client, node, operation)
        except ResponseError as error:
            if not isinstance(error, _REDIRECTED):
                raise
        except BaseException as error:
            self._doubtful.add(node.name)
            if not (isinstance(error, ConnectionError) and is_retryable(error)):
                raise
            aput_off_no_more()
        return await self._by_redis_py(client, operation, full, node)

    async def lend(self) -> None:
        """See `ConnectionStack.lend`: there is nothing to be done."""

    async def _ask(self, client: Any, node: Any, operation: Operation[Any]) -> Any:
        return await node.execute_command(*operation.command)

    async def _by_redis_py(
        self, client: Any, operation: Operation[Any], full: bool, node: Any
    ) -> Any:
        reply = await execute(client, operation, full)
        if node is not None:
            self._doubtful.discard(node.name)
        return reply


def _node_of(client: Any, operation: Operation[Any]) -> Any:
    """Return the node that has the key; None as long as that is not known."""
    try:
        return client.get_node_from_key(operation.key)
    except SlotNotCoveredError:
        return None
