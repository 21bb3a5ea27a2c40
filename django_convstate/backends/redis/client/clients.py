"""The clients of a process for the server of one entry of CACHES."""

import asyncio
import os
import threading
import weakref
from contextlib import suppress

from redis.exceptions import SlotNotCoveredError

from .closed_loops import disconnect_now
from .config import ServerConfig
from .factory import sentinels_of
from .loop_client import LoopClient
from .sync_client import SyncClient


class Clients:
    """One client for all threads, and one for each event loop; new ones after a fork."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._guard = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._config: ServerConfig | None = None
        self._sync: SyncClient | None = None
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient] = (
            weakref.WeakKeyDictionary()
        )
        self._pid = os.getpid()  # last: what sees it sees the others

    @property
    def config(self) -> ServerConfig:
        """What CACHES says. Raises `InvalidBackend` where that cannot be read."""
        if self._pid == os.getpid() and (known := self._config) is not None:
            return known
        config = ServerConfig.from_alias(self._alias)
        with self._guard:
            # A socket must not be shared with the parent process: what it had, it keeps.
            if self._pid != os.getpid():
                self._begin()
            self._config = self._config or config
            return self._config

    def sync(self) -> SyncClient:
        """Return the client of this process's threads, to be entered with `with`."""
        if self._pid == os.getpid() and (known := self._sync) is not None:
            return known
        made = SyncClient(self.config)  # not under the lock: a cluster's discovers its nodes
        with self._guard:
            client = self._sync = self._sync or made
        if client is not made:
            made.close()
        return client

    async def for_loop(self) -> LoopClient:
        """Return the client of the running event loop, to be entered with `async with`."""
        config, loop = self.config, asyncio.get_running_loop()
        client = self._by_loop.get(loop)
        if client is None:
            self._forget_closed_loops()
            client = self._by_loop[loop] = LoopClient(config)
        if not client.is_open:
            await client.open()
        return client

    def node_of(self, key: str) -> str:
        """Name the node of a cluster that has `key`; "" as long as that is not known."""
        known = self._sync or next(iter(list(self._by_loop.values())), None)
        if known is None:
            return ""
        with suppress(SlotNotCoveredError):
            return str(known.redis.get_node_from_key(key).name)
        return ""

    def close(self) -> None:
        """Close the client of this process's threads."""
        client, self._sync = self._sync, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the client of the running event loop."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _forget_closed_loops(self) -> None:
        for loop, client in list(self._by_loop.items()):
            if loop.is_closed():
                self._by_loop.pop(loop, None)
                for each in (client.redis, *sentinels_of(client.redis)):
                    disconnect_now(each)
