"""The clients of a process for the server of one entry of CACHES, each of which limits how many
operations are under way at once."""

import asyncio
import os
import queue
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.exceptions import RedisError, SlotNotCoveredError

from ....exceptions import BackendUnavailable
from ..command import Operation
from .closed_loops import disconnect_now
from .config import ServerConfig
from .deadline import Deadline, LoopDeadline, in_time
from .factory import make_async_client, make_client, with_sentinels
from .loop_slots import LoopSlots
from .paths import apath, path
from .retrying import aretrying, retrying
from .watch import Watch

SLOT_TIMEOUT: Final = 5.0  # seconds that an operation may wait for a slot
NO_ANSWER: Final = (RedisError, OSError)
SILENT_TIMEOUTS: Final = 2  # timeouts without any answer, after which no operation waits any more

T = TypeVar("T")


class Clients:
    """One client for all threads, and one for each event loop; new ones after a fork."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._config: ServerConfig | None = None
        self._answered_in = 0  # the process in which a client that is closed by now had an answer
        # By the id of the process: a socket must not be shared with the parent process.
        self._sync: dict[int, SyncClient] = {}
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def config(self) -> ServerConfig:
        """What CACHES says. Raises `InvalidBackend` where that cannot be read."""
        if self._config is None:
            self._config = ServerConfig.from_alias(self.alias)
        return self._config

    def sync(self) -> "SyncClient":
        """Return the client of this process's threads, to be entered with `with`."""
        pid = os.getpid()
        if (known := self._sync.get(pid)) is not None:
            return known
        made = SyncClient(self.config)
        client = self._sync.setdefault(pid, made)
        if client is not made:
            made.close()
        for other in self._sync.keys() - {pid}:
            self._sync.pop(other, None)  # the parent keeps it; our copy of its sockets is closed
        return client

    async def for_loop(self) -> "LoopClient":
        """Return the client of the running event loop, to be entered with `async with`."""
        loop = asyncio.get_running_loop()
        client = self._by_loop.get(loop)
        if client is None or client.pid != os.getpid():  # a loop may be begun before a fork
            config = self.config
            self._forget_closed_loops()
            client = self._by_loop[loop] = LoopClient(config)
        if not client.is_open:
            await client.open()
        return client

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered this process."""
        pid = os.getpid()
        clients = (self._sync.get(pid), *self._by_loop.values())
        return self._answered_in == pid or any(
            client is not None and client.pid == pid and client.has_answered for client in clients
        )

    def node_of(self, key: str) -> str:
        """Name the node of a cluster that has `key`; "" as long as that is not known."""
        for known in (self._sync.get(os.getpid()), *self._by_loop.values()):
            if known is not None:
                with suppress(SlotNotCoveredError):
                    return str(known.redis.get_node_from_key(key).name)
        return ""

    def close(self) -> None:
        """Close the client of this process's threads."""
        client = self._sync.pop(os.getpid(), None)
        if client is not None:
            self._note_closed(client)
            client.close()

    async def aclose(self) -> None:
        """Close the client of the running event loop."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            self._note_closed(client)
            await client.close()

    def _note_closed(self, client: "SyncClient | LoopClient") -> None:
        if client.has_answered:
            self._answered_in = client.pid

    def _forget_closed_loops(self) -> None:
        for loop, client in list(self._by_loop.items()):
            if loop.is_closed():
                self._by_loop.pop(loop, None)
                self._note_closed(client)
                for each in with_sentinels(client.redis):
                    disconnect_now(each)


class SyncClient:
    """redis-py's client for all threads of a process: `with` waits for a slot."""

    def __init__(self, config: ServerConfig) -> None:
        self.redis = make_client(config)
        self.pid = os.getpid()
        self._path = path(self.redis, config)
        self._config = config
        self._wait = SlotWait(config)
        self._deadline = Deadline(
            config.timeout,
            connecting=config.connect_timeout,
            connected=self._wait.note_connection,
        )
        # A semaphore, whose items are the slots: in C, and so ten times faster than threading's.
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(config.max_concurrency):
            self._slots.put(None)

    def __enter__(self) -> "SyncClient":
        began = time.monotonic()
        while True:
            try:
                self._slots.get(timeout=self._wait.interval)
            except queue.Empty:
                self._wait.check(began)
            else:
                return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._slots.put(None)
        if not isinstance(error, NO_ANSWER):
            self._wait.answered_at = time.monotonic()

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered once."""
        return self._wait.has_answered

    def execute(self, operation: Operation[Any]) -> Any:
        """Return the server's reply: `send` with a slot, in one call."""
        try:
            self._slots.get_nowait()
        except queue.Empty:
            self.__enter__()
        try:
            attempt, tries = self._path.execute, self._config.tries
            reply = retrying(self.redis, tries, self._deadline, attempt, operation)
        finally:
            self._slots.put(None)
        self._wait.answered_at = time.monotonic()
        return reply

    def send(self, operation: Operation[Any]) -> Any:
        """Return the server's reply. Needs a slot."""
        attempt = self._path.execute
        return retrying(self.redis, self._config.tries, self._deadline, attempt, operation)

    def pooled(self) -> Any:
        """Return redis-py's client for other commands, which takes connections out of its pool.
        One that is idle is left to it, so that there are no more of them than slots."""
        self._path.lend()
        return self.redis

    def close(self) -> None:
        """Close all connections."""
        for each in with_sentinels(self.redis):
            each.close()


class LoopClient:
    """redis-py's client for one event loop: `async with` waits for a slot."""

    def __init__(self, config: ServerConfig) -> None:
        self.redis = make_async_client(config)
        self.pid = os.getpid()
        self.is_open = False
        self._path = apath(self.redis, config)
        self._config = config
        self._wait = SlotWait(config)
        self._watch = Watch()
        self._slots = LoopSlots(config.max_concurrency)
        self._closer: AsyncIterator[None] | None = None

    async def __aenter__(self) -> "LoopClient":
        if not self._slots.take():
            await self._wait_for_slot()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._slots.give_back()
        if not isinstance(error, NO_ANSWER):
            self._wait.answered_at = time.monotonic()

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered once."""
        return self._wait.has_answered

    async def execute(self, make: Callable[[], Operation[T]]) -> tuple[Operation[T], Any]:
        """Return an operation and the server's reply to it.

        It is made when there is a slot, and not before: of ten thousand tasks only those that have
        one may keep the loop busy, or a connection is not made in time.
        """
        if not self._slots.take():
            await self._wait_for_slot()
        try:
            operation = make()
            reply = await self.send(operation)
        finally:
            self._slots.give_back()
        self._wait.answered_at = time.monotonic()
        return operation, reply

    async def send(self, operation: Operation[Any]) -> Any:
        """Return the server's reply. Needs a slot."""
        config = self._config
        connected = self._wait.note_connection
        deadline = LoopDeadline(config.timeout, config.connect_timeout, connected, self._watch)
        attempt = self._path.execute
        return await aretrying(self.redis, config.tries, deadline, attempt, operation)

    async def pooled(self) -> Any:
        """See `SyncClient.pooled`."""
        await self._path.lend()
        return self.redis

    async def _wait_for_slot(self) -> None:
        # The place in the queue is kept while the wait is checked from time to time.
        began, slot = time.monotonic(), self._slots.reserve()
        try:
            while not (await asyncio.wait([slot], timeout=self._wait.interval))[0]:
                self._wait.check(began)
        except BaseException:
            self._slots.resign(slot)
            raise

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
            await in_time(self.redis.initialize(), self._config.discovery_timeout)
        self.is_open = True

    async def close(self) -> None:
        """Close all connections."""
        for each in with_sentinels(self.redis):
            await each.aclose()

    async def _close_with_loop(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.close()


class SlotWait:
    """Whether it is worth waiting on for a slot: while the server answers others, or may."""

    def __init__(self, config: ServerConfig) -> None:
        self.interval = config.timeout  # seconds until it is asked again
        self._max_concurrency = config.max_concurrency
        self.answered_at = 0.0  # by time.monotonic()
        self._connected_at = 0.0

    @property
    def has_answered(self) -> bool:
        """Whether an operation had an answer."""
        return self.answered_at > 0

    def note_connection(self) -> None:
        """Record that a connection is there: an answer may still take as long."""
        self._connected_at = time.monotonic()

    def check(self, began: float) -> None:
        """Raise `BackendUnavailable` if an operation that waits since `began`, by
        `time.monotonic()`, has waited long enough."""
        now = time.monotonic()
        heard_at = max(self.answered_at, self._connected_at, began)
        silent = now - heard_at > SILENT_TIMEOUTS * self.interval
        if silent or now - began > SLOT_TIMEOUT:
            raise BackendUnavailable(
                f"{self._max_concurrency} operations on Redis were under way for "
                f"{now - began:.1f} s. If it does answer, raise max_connections in "
                "CONNECTION_POOL_KWARGS."
            )
