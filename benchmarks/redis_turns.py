"""A turn over the length of the history, sync and in asyncio, beside two PINGs by redis-py's
default client and what others pay (see rivals.py).

Ours is measured twice: "first in this process", by a store that knows nothing of the conversation,
as another worker has served it until now; and "served here before", by one that has.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import redis
import redis.asyncio

from benchmarks import rivals
from benchmarks.measure import CALLS, WARM, Spread, amicroseconds, microseconds, pair_by_pair
from benchmarks.report import Report
from benchmarks.rivals import Begin
from benchmarks.turns import aturn, stored, turn
from django_convstate import ConversationStore
from django_convstate.ids import new_id

T = TypeVar("T")
Batch = Iterator[Callable[[], object]]
AsyncBatch = AsyncIterator[Callable[[], Awaitable[object]]]
Times = dict[int, dict[str, list[float]]]

LENGTHS = (20, 200, 2_000, 20_000)
ASYNC_LENGTHS = (20, 60, 200, 2_000, 20_000)
LONG = 20_000  # where one turn of the others may take a quarter of a second
ROUNDS, LONG_ROUNDS, OTHERS_LONG_ROUNDS = 60, 20, 3
FLOOR, FIRST, SERVED = "two PINGs", "ours, first in this process", "ours, served here before"
SESSION = "Django session (django-redis)"
FLAT, SYNC_FLOOR, ASYNC_FLOOR = 1.10, 2.8, 2.0
BLOBS = ("aiogram", "starsessions")


class Ours:
    """Conversations of each length, and the stores that take turns on them."""

    def __init__(self) -> None:
        self.store = ConversationStore("redis", window=20)
        self.elsewhere = ConversationStore("redis", window=20)
        self._long: dict[str, str] = {}

    def conversation(self, count: int, use: str) -> str:
        """Return the id of one of so many messages: a new one, for "20" are never to be many more;
        where they are many, the same for each use."""
        if count < LONG:
            return stored(self.elsewhere, count).id
        return self._long.get(use) or self.keep(count, use, stored(self.elsewhere, count).id)

    def keep(self, count: int, use: str, id: str) -> str:
        """Note where the conversation is by now."""
        if count >= LONG:
            self._long[use] = id
        return id

    def moved(self, id: str) -> str:
        """Move a conversation to another id, elsewhere: so our store does not know it."""
        self.elsewhere.backend.rename(id, new := new_id())
        return new

    def first(self, count: int) -> Batch:
        warm = self.conversation(count, "warm")
        for _ in range(WARM):
            yield partial(turn, self.store, warm)
        id = self.conversation(count, "first")
        for _ in range(CALLS):
            id = self.keep(count, "first", self.moved(id))
            turn(self.store, warm)
            yield partial(turn, self.store, id)

    def served(self, count: int) -> Batch:
        for use in ("warm", "served"):
            id = self.conversation(count, use)
            turn(self.store, id)
            for _ in range(WARM if use == "warm" else CALLS):
                yield partial(turn, self.store, id)

    async def afirst(self, count: int) -> AsyncBatch:
        warm = self.conversation(count, "warm")
        for _ in range(WARM):
            yield partial(aturn, self.store, warm)
        id = self.conversation(count, "first")
        for _ in range(CALLS):
            id = self.keep(count, "first", self.moved(id))
            await aturn(self.store, warm)
            yield partial(aturn, self.store, id)

    async def aserved(self, count: int) -> AsyncBatch:
        for use in ("warm", "served"):
            id = self.conversation(count, use)
            await aturn(self.store, id)
            for _ in range(WARM if use == "warm" else CALLS):
                yield partial(aturn, self.store, id)

    def close(self) -> None:
        self.store.close()
        self.elsewhere.close()


def pings(client: redis.Redis, count: int) -> Batch:
    def both() -> None:
        client.ping()
        client.ping()

    for _ in range(WARM + CALLS):
        yield both


async def apings(client: redis.asyncio.Redis, count: int) -> AsyncBatch:
    async def both() -> None:
        await client.ping()
        await client.ping()

    for _ in range(WARM + CALLS):
        yield both


def rival(begin: Begin, count: int) -> Batch:
    for calls in (WARM if count < LONG else 1, CALLS):
        call = begin(count)
        for _ in range(calls):
            yield call


async def arival(begin: rivals.AsyncBegin, count: int) -> AsyncBatch:
    for calls in (WARM if count < LONG else 1, CALLS):
        call = await begin(count)
        for _ in range(calls):
            yield call


def schedule(report: Report, lengths: tuple[int, ...], title: str) -> Iterator[tuple[int, bool]]:
    """Yield the length of each round, all lengths in turn, and whether the others take part."""
    long_rounds, others = report.rounds(LONG_ROUNDS), report.rounds(OTHERS_LONG_ROUNDS)
    rounds = [
        (count, count < LONG or number < others)
        for number in range(report.rounds(ROUNDS))
        for count in lengths
        if count < LONG or number < long_rounds
    ]
    yield from report.track(rounds, title)


def available(url: str, rivals: Mapping[str, Callable[[str], T]]) -> Iterator[tuple[str, T]]:
    for name, make in rivals.items():
        with contextlib.suppress(ImportError):
            yield name, make(url)


def measure(report: Report, url: str) -> Times:
    """Return how long each turn of each contestant took, by length, in microseconds."""
    ours, client = Ours(), redis.Redis.from_url(url)
    own: dict[str, Callable[[int], Batch]] = {
        FLOOR: partial(pings, client),
        FIRST: ours.first,
        SERVED: ours.served,
    }
    others = {name: partial(rival, begin) for name, begin in available(url, rivals.SYNC)}
    times: Times = {count: defaultdict(list) for count in LENGTHS}
    for count, with_others in schedule(report, LENGTHS, "Sync turns"):
        for name, batch in (own | others if with_others else own).items():
            times[count][name] += microseconds(batch(count))
    ours.close()
    client.close()
    return times


async def ameasure(report: Report, url: str) -> Times:
    """See `measure`."""
    ours, client = Ours(), redis.asyncio.from_url(url)
    own: dict[str, Callable[[int], AsyncBatch]] = {
        FLOOR: partial(apings, client),
        FIRST: ours.afirst,
        SERVED: ours.aserved,
    }
    others = {name: partial(arival, begin) for name, begin in available(url, rivals.ASYNC)}
    times: Times = {count: defaultdict(list) for count in ASYNC_LENGTHS}
    for count, with_others in schedule(report, ASYNC_LENGTHS, "asyncio turns"):
        for name, batch in (own | others if with_others else own).items():
            times[count][name] += await amicroseconds(batch(count))
    ours.close()
    await client.aclose()
    return times


def show(report: Report, name: str, title: str, times: Times) -> None:
    """Print the quartiles, each with its multiple of the PINGs of the same rounds."""
    rows = [
        [contestant, *(cell(times[count], contestant) for count in times)]
        for contestant in times[20]
    ]
    columns = ("messages stored", *(f"{count:,}" for count in times))
    report.table(name, f"{title}: µs, median [quartiles], multiple of two PINGs", columns, rows)
    medians = {
        contestant: [[count, Spread.of(times[count][contestant]).median] for count in times]
        for contestant in times[20]
    }
    report.series(name, medians)


def cell(times: dict[str, list[float]], name: str) -> str:
    return f"{Spread.of(times[name])}, {pair_by_pair(times[name], times[FLOOR]).median:.2f} x"


def goals(report: Report, kind: str, times: Times, floor_limit: float) -> None:
    """Compare each length with the PINGs, and with the turns at 20 messages."""
    for name in (FIRST, SERVED):
        which = f"{kind} turn, {name.removeprefix('ours, ')}"
        floors = [pair_by_pair(taken[name], taken[FLOOR]).median for taken in times.values()]
        report.goal(f"{which}: beside two PINGs, the worst length", max(floors), floor_limit)
        lengths = [pair_by_pair(taken[name], times[20][name]).median for taken in times.values()]
        report.goal(f"{which}: slowest length beside fastest", max(lengths) / min(lengths), FLAT)


def session_goals(report: Report, times: Times) -> None:
    for name, limit in ((FIRST, 1.0), (SERVED, 0.85)):
        ratio = pair_by_pair(times[20][name], times[20][SESSION]).median
        what = f"sync turn at 20, {name.removeprefix('ours, ')}: beside Django's session"
        report.goal(what, ratio, limit)


def blob_goals(report: Report, times: Times) -> None:
    for count in (20, 60, 200, 2_000):
        taken = times[count]
        for name in (FIRST, SERVED):
            ratios = [pair_by_pair(taken[name], taken[b]).median for b in BLOBS if b in taken]
            if not ratios:
                continue  # they are not installed
            what = f"asyncio turn at {count:,}, {name.removeprefix('ours, ')}"
            limit = 1.1 if count == 20 else 1.0
            report.goal(f"{what}: beside the faster of aiogram, starsessions", max(ratios), limit)


def run(report: Report, url: str) -> None:
    times = measure(report, url)
    show(report, "sync-turn", "A chat turn, sync", times)
    session_goals(report, times)
    atimes = asyncio.run(ameasure(report, url))
    show(report, "asyncio-turn", "A chat turn, asyncio, one at a time", atimes)
    blob_goals(report, atimes)
    goals(report, "sync", times, SYNC_FLOOR)
    goals(report, "asyncio", atimes, ASYNC_FLOOR)
