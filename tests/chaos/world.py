"""What every scenario happens in: a Valkey with an append-only file behind a proxy, backends on it
with memory to fall back to, and, at the end, the same questions to all of them."""

import asyncio
import gc
import json
import logging
import os
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_convstate import ConversationStore, get_backend
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.toolkit.packed import data_of
from tests.chaos.proxy import Proxy
from tests.support.ruler import Ruler, limit
from tests.support.servers import Server, free_ports, running, wait_until

PASSWORD = "pass-8f3a91"
TEXT = "text-5d02c7"
SETTLING = 240  # seconds for everything to be replayed, on a machine that has other work
LOST_SIGHT = "Conversations go on in the memory of this process"
# Everything is written before it is acknowledged, and so outlives the process. Under "everysec" a
# disk that is busy would put that off, and tests kill no machine for which fsync would matter.
AOF = ("--appendonly", "yes", "--appendfsync", "no")


class Model:
    """What was said, and what was acknowledged, by id; and how long that took."""

    def __init__(self) -> None:
        self.said: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self.acknowledged: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self.deleted: set[str] = set()
        self.refused = 0
        # When something was acknowledged that the server had not got yet, by id.
        self.degraded: dict[str, list[float]] = defaultdict(list)
        # Of each operation when it began, by time.monotonic(), and how many seconds it took.
        self.operations: list[tuple[float, float]] = []
        self.of_tasks: list[tuple[float, float]] = []  # of a crowd, apart from its threads'

    def forget(self, id: str) -> None:
        """It was deleted. What is said from now on is the first of it."""
        self.said[id].clear()
        self.acknowledged[id].clear()

    @staticmethod
    def text(id: str, writer: int, number: int) -> str:
        return f"{TEXT}/{id}/{writer}/{number}"


class World:
    """A server, a proxy before it, and an entry of CACHES for both."""

    def __init__(
        self,
        directory: Path,
        settings: Any,
        caplog: pytest.LogCaptureFixture,
        note: Callable[[str], None],
    ) -> None:
        asyncio.run(sync_to_async(int)())  # the one thread that asgiref keeps for good
        self._threads = threads()
        self._sockets = open_sockets()
        self.note = note  # takes what was measured, to be shown at the end
        self.server = Server(directory, free_ports(1)[0], *AOF, password=PASSWORD)
        self.proxy = Proxy(self.server.port)
        self.limit = self.proxy.limit = limit(0.25)  # seconds for an operation
        self.model = Model()
        self.client: Callable[[], Any] = self.server.client  # past the proxy
        self.alias = f"chaos-{self.server.port}"  # the default store remembers those it was given
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.proxy.port}/0"
        self.settings = settings
        self._caplog = caplog
        self._exits = ExitStack()
        self._backends: list[FailoverBackend] = []
        self.point_at(self.url)
        caplog.set_level(logging.INFO)  # at DEBUG, the client for a cluster tells every command
        caplog.set_level(logging.DEBUG, "django_convstate")

    def __enter__(self) -> "World":
        self._exits.enter_context(running([self.server]))
        self._exits.enter_context(self.proxy)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for backend in self._backends:
            backend.close()
        self._exits.close()

    def point_at(self, url: str, **options: Any) -> None:
        """Make that the entry of CACHES, not patient as in other tests: here time is tested."""
        options = {"SOCKET_TIMEOUT": self.limit, "SOCKET_CONNECT_TIMEOUT": self.limit} | options
        backend = "django_redis.cache.RedisCache"
        entry = {"BACKEND": backend, "LOCATION": url, "OPTIONS": options}
        self.settings.CACHES = {**self.settings.CACHES, self.alias: entry}

    def backend(self) -> FailoverBackend:
        """Return a new one, as another process has."""
        backend = get_backend("redis", cache_alias=self.alias)
        assert isinstance(backend, FailoverBackend)
        return self.adopt(backend)

    def adopt(self, backend: FailoverBackend) -> FailoverBackend:
        self._backends.append(backend)
        return backend

    def restart(self) -> float:
        """Start the server again and return when it answered first, by time.monotonic()."""
        self.server.start()
        return time.monotonic()

    def settle(self) -> float:
        """Wait until everything is home, and return when that was."""
        wait_until(lambda: not any(b.health().using_fallback for b in self._backends), SETTLING)
        return time.monotonic()

    def ruler(self) -> Ruler:
        """Return one for this process, in which the proxy is, and the server."""
        process = self.server.process
        return Ruler(process.pid) if process else Ruler()

    def slowest(self, ruler: Ruler) -> float:
        """Return and note how long the slowest operation took, in seconds."""
        slowest = max(ruler.fair(*one) for one in self.model.operations)
        self.note(f"slowest operation {slowest * 1000:.1f} ms")
        return slowest

    def check_times_of_crowd(self, ruler: Ruler, replies: int = 1) -> None:
        """Each of so many replies of the server has the time for an operation: one, and where it is
        slow and answers, that to the login on a new connection."""
        limit = replies * self.limit
        assert self.slowest(ruler) <= limit
        # Where the event loop itself was late, the time of an operation is granted once more: the
        # answer may have been lying there. So it is on a machine that others use, too.
        slowest = max(ruler.fair(*one) for one in self.model.of_tasks)
        self.note(f"slowest operation of a task {slowest * 1000:.1f} ms")
        assert slowest <= 2 * limit

    @property
    def outages_told(self) -> int:
        return sum(LOST_SIGHT in record.getMessage() for record in self._caplog.records)

    def check(self) -> None:
        """Everything that has to hold after every scenario."""
        self.settle()
        with self.client() as client:
            self._check_keys(client)
            for id in self.model.said:
                self._check_stored(client, id)
        self._check_by_another()
        self._check_log()
        for backend in self._backends:
            backend.close()
        self._exits.close()
        self._check_leaks()

    def _check_keys(self, client: Any) -> None:
        for key in client.scan_iter(count=1000):
            assert client.pttl(key) != -1, "a key without a time to live"

    def _check_stored(self, client: Any, id: str) -> None:
        stem = f"convstate:{{{id}}}"
        if id in self.model.deleted:
            assert client.hkeys(f"{stem}:meta") in ([], [b"gone"]), "more than that it was deleted"
            assert client.exists(f"{stem}:state", f"{stem}:messages", f"{stem}:ids") == 0
            return
        stored = client.lrange(f"{stem}:messages", 0, -1)
        texts = [json.loads(data_of(packed))["content"] for packed in stored]
        self.check_texts(id, texts)
        turns = client.hget(f"{stem}:state", "turns")
        assert int(turns or 0) == len(texts), "a counter adds up as messages do"

    def _check_by_another(self) -> None:
        backend = RedisBackend(cache_alias=self.alias)
        store = ConversationStore(backend)
        for id in self.model.said:
            if id in self.model.deleted:
                assert not store.exists(id)
            elif self.model.acknowledged[id] or store.exists(id):
                self.check_texts(id, [str(m["content"]) for m in store.get(id).messages.all()])
        backend.close()

    def check_texts(self, id: str, texts: list[str]) -> None:
        """All that was acknowledged, once and in its writers' order, and nothing never said."""
        found = []
        for text in texts:
            secret, whose, by, nth = text.split("/")
            assert (secret, whose) == (TEXT, id), "somebody else's"
            found.append((int(by), int(nth)))
        assert len(found) == len(set(found)), "something is there twice"
        assert self.model.acknowledged[id] <= set(found), "something is lost"
        assert set(found) <= self.model.said[id], "something nobody has said"
        for writer in {writer for writer, _ in found}:
            own = [number for who, number in found if who == writer]
            assert own == sorted(own), "a writer's messages out of order"

    def _check_log(self) -> None:
        logged = self._caplog.text
        assert PASSWORD not in logged
        assert TEXT not in logged
        assert not any(id in logged for id in self.model.said)

    def _check_leaks(self) -> None:
        gc.collect()  # the client for a cluster leaves rings of objects behind
        wait_until(lambda: not threads() - self._threads)
        wait_until(lambda: open_sockets() <= self._sockets)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def open_sockets() -> int:
    count = 0
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not files
        try:
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
        except OSError:  # that of the listing itself
            continue
    return count
