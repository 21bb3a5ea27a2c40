"""`make bench`: a chat turn, a request that has nothing to do with it, and memory, each beside what
Django offers today."""

import asyncio
import os
import tracemalloc
from collections import defaultdict
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
ROUNDS, LONG_ROUNDS = 60, 20  # fewer of the longest, where a turn of a session takes 15 ms
OURS, SESSION = "ours", "session"


def our_turn(count: int) -> Prepare:
    def prepare() -> Callable[[], object]:
        store = ConversationStore(get_backend("locmem"))
        return partial(turn, store, stored(store, count).id)

    return prepare


def session_turn(count: int) -> Prepare:
    return partial(rivals.django_session(""), count)


def measure_turns(report: Report) -> dict[int, dict[str, list[float]]]:
    """Return how long a turn took in each batch, by length and contestant; all lengths in each
    round, because they are compared, too."""
    contestants = {
        count: {OURS: our_turn(count), SESSION: session_turn(count)} for count in LENGTHS
    }
    times: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in LENGTHS}
    for number in report.track(range(report.rounds(ROUNDS)), "Turns"):
        for count in LENGTHS if number < report.rounds(LONG_ROUNDS) else LENGTHS[:-1]:
            for name, taken in in_turn(contestants[count], batches=1, calls=10).items():
                times[count][name] += taken
    return times


def bench_turns(report: Report) -> None:
    times, rows = measure_turns(report), []
    for count, taken in times.items():
        ratio = pair_by_pair(taken[OURS], taken[SESSION], calls=1).median
        spreads = (str(Spread.of(taken[name])) for name in (OURS, SESSION))
        rows.append([f"{count:,}", *spreads, f"{1 / ratio:.2f}"])
        if count == 20:
            report.goal("locmem turn at 20 beside Django's session on LocMemCache", ratio, 1.0)
    columns = ("messages stored", "locmem (µs)", "Django's session (µs)", "session / ours")
    report.table("locmem", "A chat turn in memory", columns, rows)
    ours = [pair_by_pair(taken[OURS], times[20][OURS], calls=1).median for taken in times.values()]
    report.goal("locmem turn: slowest length beside fastest", max(ours) / min(ours), 1.1)


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
