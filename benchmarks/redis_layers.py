"""Where the time of a turn at 20 messages goes: the same two commands sent by ever more of us."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import redis
import redis.asyncio

from benchmarks.measure import (
    CALLS,
    WARM,
    Spread,
    amicroseconds,
    difference,
    microseconds,
    pair_by_pair,
)
from benchmarks.redis_turns import FLOOR, AsyncBatch, Batch, apings, pings
from benchmarks.report import Report
from benchmarks.turns import aturn, stored, turn
from django_convstate import ConversationStore
from django_convstate.backends.records import Change, Committed, Record
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.operations import Operations

ROUNDS = 120
CONNECTION, PACKING = "redis-py's Connection, packed before", "redis-py's Connection"
BACKEND = "RedisBackend"
STORE, WHOLE = "Conversation on RedisBackend", "Conversation, with failover as by default"
BACKEND_GOAL, CONVERSATION_GOAL = 1.15, 40  # times; microseconds
Times = dict[str, list[float]]


class Capturing(RedisBackend):
    """Keeps the change that it should commit, and commits nothing."""

    def commit(self, id: str, change: Change) -> Committed:
        raise Captured(change)


class Captured(Exception):
    def __init__(self, change: Change) -> None:
        self.change = change


class FromMemory(RedisBackend):
    """Answers at once what Redis has answered before."""

    def __init__(self, record: Record, committed: Committed) -> None:
        super().__init__()
        self._record, self._committed = record, committed

    def load(self, *args: Any, **kwargs: Any) -> Record:
        return replace(self._record, state=dict(self._record.state))

    def commit(self, id: str, change: Change) -> Committed:
        return replace(self._committed)


class Layers:
    """Each layer takes turns whose changes are ready, on conversations that it has not seen."""

    def __init__(self) -> None:
        self.plain = RedisBackend()
        self.store = ConversationStore(self.plain, window=20)
        self.whole = ConversationStore("redis", window=20)
        self._elsewhere = ConversationStore("redis", window=20)
        self._capturing = ConversationStore(Capturing(), window=20)
        self._operations = Operations("convstate", None)

    def conversation(self) -> str:
        return stored(self._elsewhere, 20).id

    def change(self, id: str) -> Change:
        """Return what a turn on a conversation would commit."""
        try:
            turn(self._capturing, id)
        except Captured as captured:
            return captured.change
        raise RuntimeError("A turn has committed nothing.")

    def conversations(self) -> list[str]:
        """Store the conversations of a batch, before it begins."""
        return [self.conversation() for _ in range(WARM + CALLS)]

    def planned(self) -> list[tuple[str, Change]]:
        """Return the changes of a batch, too."""
        return [(id, self.change(id)) for id in self.conversations()]

    def commands(self) -> list[tuple[Any, Any]]:
        """Return the commands of the load and the commit of each turn of a batch."""
        return [
            (self._operations.load(id, 20).command, self._operations.commit(id, change).command)
            for id, change in self.planned()
        ]

    def close(self) -> None:
        for store in (self.store, self.whole, self._elsewhere, self._capturing):
            store.close()


def over_connection(layers: Layers, connection: Any) -> Batch:
    def send(*packed: Any) -> None:
        for command in packed:
            connection.send_packed_command(command)
            connection.read_response()

    for commands in layers.commands():
        yield partial(send, *(connection.pack_command(*command) for command in commands))


def packing(layers: Layers, connection: Any) -> Batch:
    def send(*commands: Any) -> None:
        for command in commands:
            connection.send_command(*command)
            connection.read_response()

    for commands in layers.commands():
        yield partial(send, *commands)


async def aover_connection(layers: Layers, connection: Any) -> AsyncBatch:
    async def send(*packed: Any) -> None:
        for command in packed:
            await connection.send_packed_command(command)
            await connection.read_response()

    for commands in layers.commands():
        yield partial(send, *(connection.pack_command(*command) for command in commands))


async def apacking(layers: Layers, connection: Any) -> AsyncBatch:
    async def send(*commands: Any) -> None:
        for command in commands:
            await connection.send_command(*command)
            await connection.read_response()

    for commands in layers.commands():
        yield partial(send, *commands)


def on_backend(layers: Layers, backend: RedisBackend) -> Batch:
    def load_and_commit(id: str, change: Change) -> None:
        backend.load(id, 20)
        backend.commit(id, change)

    for id, change in layers.planned():
        yield partial(load_and_commit, id, change)


async def aon_backend(layers: Layers, backend: RedisBackend) -> AsyncBatch:
    async def load_and_commit(id: str, change: Change) -> None:
        await backend.aload(id, 20)
        await backend.acommit(id, change)

    for id, change in layers.planned():
        yield partial(load_and_commit, id, change)


def in_store(layers: Layers, store: ConversationStore) -> Batch:
    for id in layers.conversations():
        yield partial(turn, store, id)


async def ain_store(layers: Layers, store: ConversationStore) -> AsyncBatch:
    for id in layers.conversations():
        yield partial(aturn, store, id)


def measure(report: Report, url: str) -> Times:
    layers, client = Layers(), redis.Redis.from_url(url)
    options = client.connection_pool.connection_kwargs
    connection: Any = redis.Connection(**options)  # type: ignore[no-untyped-call]
    contestants: dict[str, Callable[[], Batch]] = {
        FLOOR: partial(pings, client, 20),
        CONNECTION: partial(over_connection, layers, connection),
        PACKING: partial(packing, layers, connection),
        BACKEND: partial(on_backend, layers, layers.plain),
        STORE: partial(in_store, layers, layers.store),
        WHOLE: partial(in_store, layers, layers.whole),
    }
    times: Times = {name: [] for name in contestants}
    for _ in report.track(range(report.rounds(ROUNDS)), "Layers"):
        for name, batch in contestants.items():
            times[name] += microseconds(batch())
    connection.disconnect()
    client.close()
    layers.close()
    return times


async def ameasure(report: Report, url: str) -> Times:
    layers, client = Layers(), redis.asyncio.from_url(url)
    options = client.connection_pool.connection_kwargs
    connection: Any = redis.asyncio.Connection(**options)
    await connection.connect()
    contestants: dict[str, Callable[[], AsyncBatch]] = {
        FLOOR: partial(apings, client, 20),
        CONNECTION: partial(aover_connection, layers, connection),
        PACKING: partial(apacking, layers, connection),
        BACKEND: partial(aon_backend, layers, layers.plain),
        STORE: partial(ain_store, layers, layers.store),
        WHOLE: partial(ain_store, layers, layers.whole),
    }
    times: Times = {name: [] for name in contestants}
    for _ in report.track(range(report.rounds(ROUNDS)), "Layers, asyncio"):
        for name, batch in contestants.items():
            times[name] += await amicroseconds(batch())
    await connection.disconnect()
    await client.aclose()
    layers.close()
    return times


def from_memory(report: Report) -> Spread:
    """Measure a turn on a backend that answers at once: what is our own in Conversation, State and
    Messages, with the processor's caches warm."""
    backend = RedisBackend()
    id = stored(ConversationStore(backend, window=20), 20).id
    record = backend.load(id, 20)
    if record is None:
        raise RuntimeError("The conversation is gone.")
    layers = Layers()
    committed = backend.commit(id, layers.change(id))
    store = ConversationStore(FromMemory(record, committed), window=20)
    times: list[float] = []
    for _ in range(report.rounds(ROUNDS)):
        times += microseconds(partial(turn, store, id) for _ in range(WARM + CALLS))
    backend.close()
    layers.close()
    return Spread.of(times)


def rows(times: Times, atimes: Times) -> Iterator[list[str]]:
    """Yield each layer with what it takes more than the one below it."""
    below = ""
    for name in times:
        row = [name]
        for taken in (times, atimes):
            more = f"{difference(taken[name], taken[below]).median:+.0f}" if below else ""
            row += [str(Spread.of(taken[name])), more]
        yield row
        below = name


def run(report: Report, url: str) -> None:
    times, atimes = measure(report, url), asyncio.run(ameasure(report, url))
    memory = ["Conversation on a backend in memory", str(from_memory(report)), "", "", ""]
    columns = ("load and commit by", "sync (µs)", "more", "asyncio (µs)", "more")
    title = "Where a turn at 20 messages goes, first in this process"
    report.table("layers", title, columns, [*rows(times, atimes), memory])
    for kind, taken in (("sync", times), ("asyncio", atimes)):
        ratio = pair_by_pair(taken[BACKEND], taken[CONNECTION]).median
        report.goal(f"{BACKEND} beside {CONNECTION}, {kind}", ratio, BACKEND_GOAL)
    # Beside what is just below it: the store without failover beside its backend.
    own = difference(times[STORE], times[BACKEND]).median
    report.goal("Conversation, State, Messages at 20 messages", own, CONVERSATION_GOAL, "µs")
