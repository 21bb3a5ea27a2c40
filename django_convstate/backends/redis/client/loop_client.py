"""The client of one event loop."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio

from ..operations import Operation
from .config import ServerConfig
from .factory import make_async_client, sentinels_of
from .retrying import aretrying, execute, execute_in_cluster, in_time
from .slots import SlotWait


class LoopClient:
    """redis-py's client, with a limit of operations that are under way at once: `async with` waits
    for a slot."""

    def __init__(self, config: ServerConfig) -> None:
        self.redis = make_async_client(config)
        self.is_open = False
        self._timeout = config.timeout
        self._discovery_timeout = config.discovery_timeout
        self._tries = config.tries
        self._execute = execute_in_cluster if config.is_cluster else execute
        self._wait = SlotWait(config)
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._closer: AsyncIterator[None] | None = None

    async def __aenter__(self) -> "LoopClient":
        if not self._slots.locked():
            await self._slots.acquire()  # which needs no waiting, and so no timeout
            return self
        # The place in the queue is kept while the wait is checked from time to time.
        began, waiting = time.monotonic(), asyncio.ensure_future(self._slots.acquire())
        try:
            while not (await asyncio.wait([waiting], timeout=self._wait.interval))[0]:
                self._wait.check(began)
        except BaseException:
            waiting.cancel()
            if waiting.done() and not waiting.cancelled():
                self._slots.release()
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._slots.release()
        self._wait.note(error)

    async def send(self, operation: Operation[Any]) -> Any:
        """Return the server's reply. Needs a slot."""
        return await aretrying(self.redis, self._tries, self._timeout, self._execute, operation)

    async def open(self) -> None:
        """See to it that no connection outlives the loop, and discover the nodes of a cluster.

        Before a loop is closed, what runs it (asyncio.run, an ASGI server) closes the async
        generators that were begun in it, and so this one.
        """
        if self._closer is None:
            self._closer = self._close_with_loop()
            await anext(self._closer)
        if isinstance(self.redis, redis.asyncio.RedisCluster):
            # Now, because to ask where the nodes are may take longer than an operation.
            await in_time(self.redis.initialize(), self._discovery_timeout)
        self.is_open = True

    async def close(self) -> None:
        """Close all connections."""
        for each in (self.redis, *sentinels_of(self.redis)):
            await each.aclose()

    async def _close_with_loop(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.close()
