"""Clients for the server that an entry of CACHES names, with limits of our own.

django-redis's entry says where the server is and how to get in. What it does not say, the client
would take from defaults that let a request hang for a minute: here every wait is finite, nothing is
tried ten times, and a process never has more than so many operations under way at once.
"""

import asyncio
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import redis
import redis.asyncio
from django.conf import settings
from django.utils.module_loading import import_string
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.exceptions import SlotNotCoveredError
from redis.retry import Retry
from redis.sentinel import Sentinel
from redis.utils import HIREDIS_AVAILABLE

from ....exceptions import BackendUnavailable, InvalidBackend
from . import config as reading
from .deadline import Deadline, PunctualParser

TIMEOUT: Final = 0.25  # seconds for one answer, unless CACHES says otherwise
AT_ONCE: Final = 50  # operations under way in this process, unless CACHES says otherwise
PUNCTUAL: Final = 0.95  # of that time an answer is waited for; the rest is for giving up
PATIENCE: Final = 5.0  # seconds that one more may wait for its turn
SILENT: Final = 2  # timeouts without any answer, after which nobody waits for a turn any more
STARTING: Final = 1.0  # seconds at least to find out where the nodes of a cluster are


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is and how to get in, as an entry of CACHES says."""

    urls: tuple[str, ...]
    sentinels: tuple[tuple[str, int], ...]
    sentinel_kwargs: dict[str, Any]
    is_cluster: bool
    at_once: int
    kwargs: dict[str, Any]

    @property
    def url(self) -> str:
        """The first one: of others a cluster alone makes use."""
        return next(iter(self.urls), "")

    @property
    def timeout(self) -> float:
        """How long an answer is waited for, in seconds, so that an operation takes no longer than
        its time."""
        return PUNCTUAL * float(self.kwargs["socket_timeout"])

    @property
    def starting(self) -> float:
        """How long a cluster may take to tell where its nodes are, in seconds: that is not a part
        of an operation."""
        return max(STARTING, self.timeout)

    @property
    def tries(self) -> int:
        """How often a command is sent while its connection breaks. On a cluster, an error in one
        task or thread breaks the connections of others, and a topology may change twice."""
        return 5 if self.is_cluster else 2

    @classmethod
    def of(cls, alias: str) -> "Place":
        """Return the place of CACHES[alias].

        Raises:
            InvalidBackend: there is no such entry, or it cannot be read.
        """
        config: Any = settings.CACHES.get(alias)
        if config is None:
            raise InvalidBackend(f"CACHES has no entry {alias!r}.")
        options = reading.dictionary(config, "OPTIONS")
        read = [reading.read_url(url) for url in reading.urls(config.get("LOCATION"))]
        url, in_query = read[0]
        cluster = is_cluster(options)
        pool_kwargs = reading.dictionary(options, "CONNECTION_POOL_KWARGS")
        sentinel_kwargs = reading.for_clients(reading.dictionary(options, "SENTINEL_KWARGS"))
        at_once = _or((pool_kwargs | in_query).get("max_connections"), AT_ONCE)
        kwargs = {
            "socket_timeout": _or(options.get("SOCKET_TIMEOUT"), TIMEOUT),
            "socket_connect_timeout": _or(options.get("SOCKET_CONNECT_TIMEOUT"), TIMEOUT),
            "username": options.get("USERNAME"),
            "password": options.get("PASSWORD"),
            **reading.dictionary(options, "REDIS_CLIENT_KWARGS"),
            **pool_kwargs,
            **in_query,
        }
        reading.check_seconds(kwargs, "socket_timeout", "socket_connect_timeout")
        kwargs = reading.for_clients(
            {name: value for name, value in kwargs.items() if value is not None}
        )
        reading.check_names(kwargs, in_query, url, cluster)
        reading.check_numbers(kwargs)
        reading.check_sentinel_kwargs(sentinel_kwargs)
        if cluster:
            reading.check_cluster(url, kwargs)
            kwargs.pop("db", None)  # 0, which its client does not want to hear
        return cls(
            urls=tuple(url for url, _ in read),
            sentinels=_pairs(options.get("SENTINELS") or ()),
            sentinel_kwargs=sentinel_kwargs,
            is_cluster=cluster,
            at_once=reading.whole(at_once, "max_connections"),
            kwargs=kwargs,
        )

    def client(self) -> Any:
        """Return a client for sync code. Connects when it is first used; a cluster's, at once."""
        retry = Retry(NoBackoff(), 0)
        parser = {"parser_class": PunctualParser} if HIREDIS_AVAILABLE else {}
        # To connect is a part of the operation that needs it.
        connect = min(self.kwargs["socket_connect_timeout"], self.timeout)
        kwargs: dict[str, Any] = parser | self.kwargs | {"socket_connect_timeout": connect}
        if self.is_cluster:
            others = [ClusterNode(*address) for address in self._other_nodes()]  # type: ignore[no-untyped-call]
            with Deadline(self.starting):
                return PunctualCluster.from_url(
                    self.url, startup_nodes=others, retry=retry, **kwargs
                )
        if not self.sentinels:
            return redis.Redis.from_url(self.url, retry=retry, **kwargs)
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            self.sentinels,
            sentinel_kwargs=self._sentinel_kwargs(retry),
            retry=retry,
            **kwargs,
        )
        for each in sentinel.sentinels:  # of which the constructor takes no parser
            each.connection_pool.connection_kwargs.update(parser)
        return sentinel.master_for(*self._service(), **self._login())  # type: ignore[no-untyped-call]

    def async_client(self) -> Any:
        retry = AsyncRetry(NoBackoff(), 0)
        # The time for an operation is kept by who calls it: the client would keep that for each
        # read and each write, and start a task for the latter.
        kwargs = self.kwargs | {"socket_timeout": None}
        if self.is_cluster:
            # Else the client closes all its connections at every fifth redirection, those that
            # other tasks are reading from, too. A redirection mends its map of slots anyway.
            client = redis.asyncio.RedisCluster.from_url(
                self.url,
                startup_nodes=[AsyncClusterNode(*address) for address in self._other_nodes()],
                retry=retry,
                reinitialize_steps=0,
                **kwargs,
            )
            # One that is silent, so that the next is asked. Once they are known, others are used.
            nodes = client.nodes_manager.startup_nodes.values()
            for node in nodes:
                node.connection_kwargs["socket_timeout"] = min(
                    self.timeout, self.starting / (len(nodes) + 1)
                )
            return client
        if not self.sentinels:
            return redis.asyncio.Redis.from_url(self.url, retry=retry, **kwargs)
        sentinel = AsyncSentinel(  # type: ignore[no-untyped-call]
            self.sentinels, sentinel_kwargs=self._sentinel_kwargs(retry), retry=retry, **kwargs
        )
        return sentinel.master_for(*self._service(), **self._login())

    def _sentinel_kwargs(self, retry: Any) -> dict[str, Any]:
        # If all but one are silent, that one is asked in time, and first from then on.
        each = self.timeout / (len(self.sentinels) + 1)
        limits = {"socket_timeout": each, "socket_connect_timeout": each}
        return {**limits, "retry": retry, **self.sentinel_kwargs}

    def _other_nodes(self) -> list[tuple[str, int]]:
        addresses = [urlsplit(url) for url in self.urls[1:]]
        return [(each.hostname or "localhost", each.port or 6379) for each in addresses]

    def _service(self) -> tuple[str]:
        # With Sentinel, the host in the URL is the name of the service.
        return (urlsplit(self.url).hostname or "",)

    def _login(self) -> dict[str, Any]:
        found = parse_url(self.url)  # type: ignore[no-untyped-call]
        login = {name: found[name] for name in ("username", "password", "db") if name in found}
        # Else what is meant for TLS, the password too, would go out in plain text.
        return {**login, "ssl": True} if urlsplit(self.url).scheme == "rediss" else login


class PunctualCluster(redis.RedisCluster):
    """A client of a cluster that keeps a deadline: it takes no parser by a name."""

    def on_connect(self, connection: Any) -> None:
        if HIREDIS_AVAILABLE:
            connection.set_parser(PunctualParser)
        super().on_connect(connection)  # type: ignore[no-untyped-call]


def is_cluster(options: dict[str, Any]) -> bool:
    from ..cluster import ClusterConnectionFactory

    return issubclass(factory_of(options), ClusterConnectionFactory)


def factory_of(options: dict[str, Any]) -> type:
    """Return the class that makes the connections of the cache itself."""
    from django_redis.pool import ConnectionFactory

    name = options.get("CONNECTION_FACTORY") or getattr(
        settings, "DJANGO_REDIS_CONNECTION_FACTORY", None
    )
    try:
        factory = ConnectionFactory if name is None else import_string(name)
    except (AttributeError, ImportError) as error:
        raise InvalidBackend(f"CONNECTION_FACTORY, {name!r}, cannot be imported.") from error
    if not isinstance(factory, type):
        raise InvalidBackend(f"CONNECTION_FACTORY is {name!r}, which is no class.")
    return factory


def _pairs(sentinels: Any) -> tuple[tuple[str, int], ...]:
    try:
        return tuple((str(host), int(port)) for host, port in sentinels)
    except (TypeError, ValueError):
        raise InvalidBackend("SENTINELS must be a list of pairs (host, port).") from None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


class Clients:
    """One client for all threads, and one for each event loop; new ones after a fork."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._guard = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._place: Place | None = None
        self._of_threads: SyncClient | None = None
        self._of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def place(self) -> Place:
        if self._place is None or self._pid != os.getpid():
            # A socket must not be shared with the parent process: what it held, it keeps.
            place = Place.of(self._alias)
            with self._guard:
                if self._place is None or self._pid != os.getpid():
                    self._begin()
                    self._place = place
        return self._place

    def turn(self) -> "SyncClient":
        """Return the client of this process's threads, to be entered with `with`."""
        place = self.place
        if self._of_threads is None:
            made = SyncClient(place)  # not under the lock: a cluster's asks where its nodes are
            with self._guard:
                self._of_threads = self._of_threads or made
            if self._of_threads is not made:
                made.close()
        return self._of_threads

    async def aturn(self) -> "LoopClient":
        """Return the client of the running event loop, to be entered with `async with`."""
        place, loop = self.place, asyncio.get_running_loop()
        client = self._of_loops.get(loop)
        if client is None:
            self._let_go_of_closed_loops()
            client = self._of_loops[loop] = LoopClient(place)
        if not client.is_open:
            await client.open()
        return client

    def _let_go_of_closed_loops(self) -> None:
        # Of those that were closed without their async generators, which closes our clients else.
        for loop, client in list(self._of_loops.items()):
            if loop.is_closed():
                self._of_loops.pop(loop, None)
                client.abandon()

    def node_of(self, key: str) -> str:
        """Name the node of a cluster that `key` is on; "" as long as that is not known."""
        known = self._of_threads or next(iter(list(self._of_loops.values())), None)
        if known is None:
            return ""
        with suppress(SlotNotCoveredError):
            return str(known.redis.get_node_from_key(key).name)
        return ""

    def close(self) -> None:
        client, self._of_threads = self._of_threads, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        client = self._of_loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


class Patience:
    """For how long it is worth waiting for a turn: while the server answers others, or may."""

    def __init__(self, place: Place) -> None:
        self.slice = place.timeout
        self._at_once = place.at_once
        self._answered_at = 0.0

    def note(self, error: object) -> None:
        """Take note of how an operation has ended."""
        if not isinstance(error, (redis.RedisError, OSError)):
            self._answered_at = time.monotonic()

    def check(self, began: float) -> None:
        """Raise `BackendUnavailable` if somebody who waits since `began` has waited for enough."""
        now = time.monotonic()
        silent = now - max(self._answered_at, began) > SILENT * self.slice
        if silent or now - began > PATIENCE:
            raise _busy(self._at_once, now - began)


class SyncClient:
    """The client of all threads, and their turns: `with` waits for one and gives the client."""

    def __init__(self, place: Place) -> None:
        self.redis = place.client()
        self._patience = Patience(place)
        # A semaphore, whose items are the turns: in C, and so ten times faster than threading's.
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(place.at_once):
            self._turns.put(None)

    def __enter__(self) -> Any:
        began = time.monotonic()
        while True:
            try:
                self._turns.get(timeout=self._patience.slice)
            except queue.Empty:
                self._patience.check(began)
            else:
                return self.redis

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._turns.put(None)
        self._patience.note(error)

    def close(self) -> None:
        for each in (self.redis, *_sentinels(self.redis)):
            each.close()


class LoopClient:
    """The client of one event loop, and the turns of its tasks."""

    def __init__(self, place: Place) -> None:
        self.redis = place.async_client()
        self.is_open = False
        self._starting = place.starting
        self._patience = Patience(place)
        self._turns = asyncio.Semaphore(place.at_once)
        self._closer: AsyncIterator[None] | None = None

    async def __aenter__(self) -> Any:
        if not self._turns.locked():
            await self._turns.acquire()  # which needs no waiting, and so no timeout
            return self.redis
        # The place in the line is kept while we look up from time to time.
        began, waiting = time.monotonic(), asyncio.ensure_future(self._turns.acquire())
        try:
            while not (await asyncio.wait([waiting], timeout=self._patience.slice))[0]:
                self._patience.check(began)
        except BaseException:
            waiting.cancel()
            if waiting.done() and not waiting.cancelled():
                self._turns.release()
            raise
        return self.redis

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._turns.release()
        self._patience.note(error)

    async def open(self) -> None:
        """See to it that no connection outlives its loop.

        Before a loop is closed, whoever runs it (asyncio.run, an ASGI server) closes the async
        generators that were begun in it, and so this one.
        """
        if self._closer is None:
            self._closer = self._close_when_closed()
            await anext(self._closer)
        if isinstance(self.redis, redis.asyncio.RedisCluster):
            # Now, because to ask where the nodes are may take longer than an operation.
            try:
                async with asyncio.timeout(self._starting):
                    await self.redis.initialize()
            except TimeoutError as error:
                raise redis.TimeoutError("No node told in time where the others are.") from error
        self.is_open = True

    async def _close_when_closed(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        for each in (self.redis, *_sentinels(self.redis)):
            await each.aclose()

    def abandon(self) -> None:
        """Close the connections of a loop that is closed, and so cannot."""
        for each in (self.redis, *_sentinels(self.redis)):
            for connection in _connections(each):
                _cut(connection)


def target_of(client: Any, key: Any) -> dict[str, Any]:
    """Return how to tell the client of a cluster where `key` is, as far as it knows.

    Else it works that out by itself, from every key of a script, twice.
    """
    if not isinstance(client, (redis.RedisCluster, redis.asyncio.RedisCluster)):
        return {}
    with suppress(SlotNotCoveredError):
        return {"target_nodes": client.get_node_from_key(key)}
    return {}


def drop_idle(client: Any) -> None:
    """Close the connections that nobody uses: one broke, so the others may have, too."""
    if (pool := getattr(client, "connection_pool", None)) is not None:  # a cluster has none
        pool.disconnect(inuse_connections=False)


async def adrop_idle(client: Any) -> None:
    if (pool := getattr(client, "connection_pool", None)) is not None:
        await pool.disconnect(inuse_connections=False)


def _sentinels(client: Any) -> list[Any]:
    """Return the clients that ask sentinels on behalf of `client`, which does not close them."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def _connections(client: Any) -> list[Any]:
    if isinstance(client, redis.asyncio.RedisCluster):
        manager = client.nodes_manager
        nodes = {*manager.nodes_cache.values(), *manager.startup_nodes.values()}
        return [connection for node in nodes for connection in node._connections]
    pool = client.connection_pool
    return [*pool._available_connections, *pool._in_use_connections]


def _cut(connection: Any) -> None:
    writer, connection._writer, connection._reader = connection._writer, None, None
    if writer is None:
        return
    with suppress(RuntimeError):  # as far as a transport gets by itself
        writer.transport.close()
    # What the loop would call, if it could. Not every kind of transport has it.
    if (lost := getattr(writer.transport, "_call_connection_lost", None)) is not None:
        lost(None)
    elif (its_socket := writer.get_extra_info("socket")) is not None:
        with suppress(OSError):
            its_socket.shutdown(socket.SHUT_RDWR)


def _busy(at_once: int, waited: float) -> BackendUnavailable:
    return BackendUnavailable(
        f"{at_once} operations on Redis were under way for {waited:.1f} s. If it does answer, "
        "raise max_connections in CONNECTION_POOL_KWARGS."
    )
