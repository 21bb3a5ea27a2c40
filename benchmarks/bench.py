"""`make bench`: a chat turn, a request that has nothing to do with it, and memory, each beside what
Django offers today."""

import asyncio
import os
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.contrib.sessions.middleware import SessionMiddleware  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import RequestFactory  # noqa: E402

from benchmarks import rivals  # noqa: E402
from benchmarks.measure import Prepare, Spread, in_turn, pair_by_pair  # noqa: E402
from benchmarks.report import Report  # noqa: E402
from benchmarks.turns import stored, turn  # noqa: E402
from django_convstate import ConversationStore, get_backend  # noqa: E402
from django_convstate.backends.locmem import LocMemBackend  # noqa: E402
from django_convstate.middleware import ConversationMiddleware  # noqa: E402

LENGTHS = (20, 200, 2_000, 20_000)


def our_turn(count: int) -> Prepare:
    def prepare() -> Callable[[], object]:
        store = ConversationStore(get_backend("locmem"))
        return partial(turn, store, stored(store, count).id)

    return prepare


def session_turn(count: int) -> Prepare:
    return partial(rivals.django_session(""), count)


def bench_turns(report: Report) -> None:
    rows, ours = [], {}
    for count in report.track(LENGTHS, "Turns"):
        contestants = {"ours": our_turn(count), "sessions": session_turn(count)}
        batches = report.rounds(60 if count <= 2_000 else 20)
        times = in_turn(contestants, batches=batches, calls=10)
        spreads = [Spread.of(taken) for taken in times.values()]
        ours[count] = spreads[0].median
        ratio = pair_by_pair(times["ours"], times["sessions"], calls=1).median
        rows.append([f"{count:,}", *map(str, spreads), f"{1 / ratio:.2f}"])
        if count == 20:
            report.goal("locmem turn at 20 beside Django's session on LocMemCache", ratio, 1.0)
    columns = ("messages stored", "locmem (µs)", "Django's session (µs)", "session / ours")
    report.table("locmem", "A chat turn in memory", columns, rows)
    flat = max(ours.values()) / min(ours.values())
    report.goal("locmem turn: slowest length beside fastest", flat, 1.1)


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing to do with it")


async def aview(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing to do with it")


def bench_untouched(report: Report) -> None:
    request = RequestFactory().get("/")
    stacks: dict[str, Callable[[HttpRequest], Any]] = {
        "the view alone": view,
        "SessionMiddleware": SessionMiddleware(view),
        "ConversationMiddleware": ConversationMiddleware(view),
    }
    calls = {name: partial(partial, call, request) for name, call in stacks.items()}
    found = in_turn(calls, batches=report.rounds(100), calls=500)
    afound = asyncio.run(untouched_async(report.rounds(50)))
    rows = [
        [name, *(f"{Spread.of(each[name]).median:.2f}" for each in (found, afound))]
        for name in stacks
    ]
    title = "A request that does not touch its conversation"
    report.table("untouched", title, ("", "sync (µs)", "async (µs)"), rows)


async def untouched_async(rounds: int) -> dict[str, list[float]]:
    """As above, in an event loop; here SessionMiddleware hops through a thread."""
    request, loop = RequestFactory().get("/"), asyncio.get_running_loop()
    stacks: dict[str, Any] = {
        "the view alone": aview,
        "SessionMiddleware": SessionMiddleware(aview),
        "ConversationMiddleware": ConversationMiddleware(aview),
    }
    times: dict[str, list[float]] = {name: [] for name in stacks}
    for _ in range(rounds):
        for name, call in stacks.items():
            started = loop.time()
            for _ in range(50):
                await call(request)
            times[name].append((loop.time() - started) / 50 * 1e6)
    return times


def bench_memory(report: Report) -> None:
    count = report.rounds(1000)
    backend = LocMemBackend()
    store = ConversationStore(backend)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in report.track(range(count), "Memory"):
        id = stored(store, 0).id
        for _ in range(10):
            turn(store, id)
    used = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    json_bytes = sum(summary.size for summary in backend.scan()) / count
    rows = [["its JSON", f"{json_bytes:,.0f}"], ["in memory", f"{used:,.0f}"]]
    report.table("locmem-memory", "A conversation of 20 messages on locmem", ("", "bytes"), rows)
    goal = round(1.3 * json_bytes + 1024)
    report.goal("memory of 20 messages on locmem: 1.3 x JSON + 1 KiB", used, goal, "bytes")


if __name__ == "__main__":
    report = Report("locmem", __doc__)
    bench_turns(report)
    bench_untouched(report)
    bench_memory(report)
    report.finish()
