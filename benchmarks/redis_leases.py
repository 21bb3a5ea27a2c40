"""`turn()`, uncontended beside a plain turn, and 64 threads that want the same conversation."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import redis

from benchmarks.measure import CALLS, WARM, Spread, amicroseconds, microseconds, pair_by_pair
from benchmarks.report import Report
from benchmarks.turns import aturn, say, stored, turn
from django_convstate import ConversationStore

ROUNDS, THREADS = 60, 64
APART = 0.02  # seconds from thread to thread, so that they come in order on a busy machine, too
GOAL = 1.7  # for sync code
PLAIN, LEASED = "load, save", "load, turn()"


def leased(store: ConversationStore, id: str) -> None:
    with store.get(id).turn() as conversation:
        say(conversation)


async def aleased(store: ConversationStore, id: str) -> None:
    async with (await store.aget(id)).aturn() as conversation:
        say(conversation)


def batch(store: ConversationStore, act: Callable[..., Any]) -> Iterator[Callable[[], object]]:
    for calls in (WARM, CALLS):
        id = stored(store, 20).id
        for _ in range(calls):
            yield partial(act, store, id)


async def abatch(
    store: ConversationStore, act: Callable[..., Awaitable[None]]
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    for calls in (WARM, CALLS):
        id = stored(store, 20).id
        for _ in range(calls):
            yield partial(act, store, id)


def scripts(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    names = ("evalsha", "eval")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names)


def bench_uncontended(report: Report, url: str) -> None:
    store, client = ConversationStore("redis", window=20), redis.Redis.from_url(url)
    acts, sent = {PLAIN: turn, LEASED: leased}, {}
    for name, act in acts.items():
        id = stored(store, 20).id
        act(store, id)
        before = scripts(client)
        act(store, id)
        sent[name] = scripts(client) - before
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in report.track(range(report.rounds(ROUNDS)), "Turns"):
        for name, act in acts.items():
            times[name] += microseconds(batch(store, act))
    atimes = asyncio.run(ameasure(report, store))
    columns = ("", "round trips", "sync (µs)", "asyncio (µs)")
    rows = [
        [name, str(sent[name]), *(str(Spread.of(taken[name])) for taken in (times, atimes))]
        for name in acts
    ]
    ratios = [pair_by_pair(taken[LEASED], taken[PLAIN]).median for taken in (times, atimes)]
    rows.append(["pair by pair", "", *(f"{ratio:.2f} x" for ratio in ratios)])
    report.table("leases", "turn(), uncontended, 20 messages stored", columns, rows)
    report.goal("turn() uncontended beside a plain turn, sync", ratios[0], GOAL)
    store.close()
    client.close()


async def ameasure(report: Report, store: ConversationStore) -> dict[str, list[float]]:
    acts: dict[str, Callable[..., Awaitable[None]]] = {PLAIN: aturn, LEASED: aleased}
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in report.track(range(report.rounds(ROUNDS)), "Turns, asyncio"):
        for name, act in acts.items():
            times[name] += await amicroseconds(abatch(store, act))
    await store.aclose()
    return times


def bench_queue(report: Report, url: str) -> None:
    """Have many threads wait for one conversation, whose turn the first holds until all do."""
    store, client = ConversationStore("redis", window=20), redis.Redis.from_url(url)
    id, order, all_wait = stored(store, 20).id, list[int](), threading.Event()

    def contend(number: int) -> None:
        with store.get(id).turn() as conversation:
            order.append(number)
            all_wait.wait()
            say(conversation)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(THREADS)]
    before = scripts(client)
    for thread in threads:
        thread.start()
        time.sleep(APART)
    started = time.perf_counter()
    all_wait.set()
    for thread in threads:
        thread.join()
    rows = [
        ["then all were served in", f"{time.perf_counter() - started:.2f} s"],
        ["in the order in which they came", "yes" if order == sorted(order) else "no"],
        ["round trips of each", f"{(scripts(client) - before) / THREADS:.1f}"],
    ]
    report.table("queue", f"{THREADS} threads for one conversation", ("", ""), rows)
    store.close()
    client.close()


def run(report: Report, url: str) -> None:
    bench_uncontended(report, url)
    bench_queue(report, url)
