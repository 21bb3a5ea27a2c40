"""`make bench`: a chat turn, a request that has nothing to do with it, and memory, each beside what
Django offers today.

A chat turn is: load the conversation with its last 20 messages, change one state value, append two
messages, save. A message has 200 bytes of text.
"""

import asyncio
import os
import statistics
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
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks import rivals  # noqa: E402
from benchmarks.measure import Prepare, medians  # noqa: E402
from benchmarks.rivals import TEXT, messages  # noqa: E402
from django_convstate import ConversationStore, get_backend  # noqa: E402
from django_convstate.backends.locmem import LocMemBackend  # noqa: E402
from django_convstate.middleware import ConversationMiddleware  # noqa: E402

LENGTHS = (20, 200, 2_000, 20_000)
console = Console(width=100)


def our_turn(count: int) -> Prepare:
    def prepare() -> Callable[[], object]:
        store = ConversationStore(get_backend("locmem"))
        conversation = store.create()
        conversation["city"] = "Jaipur"
        conversation["preferences"] = {"pace": "relaxed", "interests": ["food", "forts"]}
        for message in messages(count):
            conversation.messages.append(**message)
        conversation.save()

        def turn() -> None:
            known = store.get(conversation.id)
            known.messages.window(20)
            known["lastQuery"] = TEXT
            known.messages.append("user", TEXT)
            known.messages.append("assistant", TEXT)
            known.save()

        return turn

    return prepare


def session_turn(count: int) -> Prepare:
    return partial(rivals.django_session(""), count)


def bench_turns() -> None:
    table = Table(
        "messages stored",
        "ours (µs)",
        "django sessions (µs)",
        "sessions / ours",
        title="A chat turn",
    )
    ours: dict[int, float] = {}
    for count in track(LENGTHS, "Turns", console=console, transient=True):
        contestants = {"ours": our_turn(count), "sessions": session_turn(count)}
        found = medians(contestants, batches=60 if count <= 2_000 else 20, calls=10)
        ours[count] = found["ours"]
        table.add_row(
            f"{count:,}",
            f"{found['ours']:.1f}",
            f"{found['sessions']:.1f}",
            f"{found['sessions'] / found['ours']:.1f}",
        )
    console.print(table)
    spread = max(ours.values()) / min(ours.values()) - 1
    console.print(f"Ours, slowest length over fastest: +{spread:.0%}\n")


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing to do with it")


async def aview(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing to do with it")


def bench_untouched() -> None:
    request = RequestFactory().get("/")
    stacks: dict[str, Callable[[HttpRequest], Any]] = {
        "the view alone": view,
        "SessionMiddleware": SessionMiddleware(view),
        "ConversationMiddleware": ConversationMiddleware(view),
    }
    found = medians(
        {name: partial(partial, call, request) for name, call in stacks.items()},
        batches=100,
        calls=500,
    )
    table = Table("", "a request (µs)", "overhead (µs)", title="A request that does not touch it")
    for name, taken in found.items():
        table.add_row(name, f"{taken:.2f}", f"{taken - found['the view alone']:.2f}")
    for name, taken in asyncio.run(untouched_async()).items():
        table.add_row(f"async, {name}", f"{taken:.2f}", "")
    console.print(table, "")


async def untouched_async() -> dict[str, float]:
    """As above, in an event loop; here SessionMiddleware hops through a thread."""
    request, loop = RequestFactory().get("/"), asyncio.get_running_loop()
    stacks: dict[str, Any] = {
        "the view alone": aview,
        "SessionMiddleware": SessionMiddleware(aview),
        "ConversationMiddleware": ConversationMiddleware(aview),
    }
    times: dict[str, list[float]] = {name: [] for name in stacks}
    for _ in range(50):
        for name, call in stacks.items():
            started = loop.time()
            for _ in range(50):
                await call(request)
            times[name].append((loop.time() - started) / 50 * 1e6)
    return {name: statistics.median(taken) for name, taken in times.items()}


def bench_memory() -> None:
    count = 1000
    backend = LocMemBackend()
    store = ConversationStore(backend)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in track(range(count), "Memory", console=console, transient=True):
        conversation = store.create()
        conversation["city"] = "Jaipur"
        conversation["preferences"] = {"pace": "relaxed", "interests": ["food", "forts"]}
        conversation.save()
        for _ in range(10):
            turn = store.get(conversation.id)
            turn["lastQuery"] = TEXT
            turn.messages.append("user", TEXT)
            turn.messages.append("assistant", TEXT)
            turn.save()
    used = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    json_bytes = sum(summary.size for summary in backend.scan()) / count
    table = Table("", "bytes", title="Memory of a conversation of 20 messages on LocMem")
    table.add_row("its JSON", f"{json_bytes:,.0f}")
    table.add_row("in memory", f"{used:,.0f}")
    table.add_row("bound: 1.3 x JSON + 1 KiB", f"{1.3 * json_bytes + 1024:,.0f}")
    console.print(table)


if __name__ == "__main__":
    bench_turns()
    bench_untouched()
    bench_memory()
