"""A purge on PostgreSQL beside bare DELETEs, and the turns that others take meanwhile."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from django.db import connection
from rich.console import Console
from rich.table import Table

from benchmarks.filling import MESSAGES, fill
from django_convstate import ConversationStore

EXPIRED = 200_000
# Of the turns beside it, in turns a second; None: as fast as they come, 5 ms apart.
PACES = {"5 ms apart": None, "100 a second": 100.0}


def bare_deletes() -> int:
    """Delete what has expired with one statement for each table."""
    expired = "expires_at <= now()"
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM convstate_database_message WHERE conversation_id IN "
            f"(SELECT id FROM convstate_database_conversation WHERE {expired})"
        )
        cursor.execute(f"DELETE FROM convstate_database_conversation WHERE {expired}")
        return int(cursor.rowcount)


class Measured(NamedTuple):
    """What was measured beside turns of one pace: conversations a second, the longest step (s), how
    much more memory there was (MiB), and the seconds of turns."""

    bare: float
    rate: float
    longest: float
    memory: float
    usual: list[float]
    beside_deletes: list[float]
    beside_purge: list[float]


def bench_purge(scale: float, store: ConversationStore, console: Console) -> None:
    """Purge beside turns of each pace."""
    count = round(EXPIRED * scale)
    found = [measure(rate, scale, store, console) for rate in PACES.values()]
    table = Table(
        *("beside turns", *PACES, "goal"),
        title=f"A purge of {count:,} conversations of {MESSAGES} messages, and turns beside it",
    )

    def row(name: str, show: Callable[[Measured], str], goal: str = "") -> None:
        table.add_row(name, *map(show, found), goal)

    row("two bare DELETEs, conversations a second", lambda one: f"{one.bare:,.0f}")
    row("purge, conversations a second", lambda one: f"{one.rate:,.0f}", "half of it")
    row("its longest transaction, at most", lambda one: f"{one.longest:.2f} s", "1 s")
    row("its memory has grown by", lambda one: f"{one.memory:.1f} MiB", "flat")
    row("a turn usually, p99", lambda one: milliseconds(one.usual))
    row("a turn beside the DELETEs, p99", lambda one: milliseconds(one.beside_deletes))
    row("a turn beside the purge, p99", lambda one: milliseconds(one.beside_purge), "twice usual")
    console.print(table, "")


def measure(
    rate: float | None, scale: float, store: ConversationStore, console: Console
) -> Measured:
    """Delete and purge beside turns of one pace."""
    count = round(EXPIRED * scale)
    with live_turns(rate) as usual:
        time.sleep(max(2.0, 20 * scale))
    fill(count, store, console)
    with live_turns(rate) as beside_deletes:
        started = time.perf_counter()
        deleted = bare_deletes()
        bare = deleted / (time.perf_counter() - started)
    fill(count, store, console)
    memory = peak()
    with live_turns(rate) as beside_purge:
        steps = [time.perf_counter()]
        report = store.purge(progress=lambda *_: steps.append(time.perf_counter()))
    return Measured(
        bare=bare,
        rate=report.deleted / (steps[-1] - steps[0]),
        longest=max(end - start for start, end in pairwise(steps)),
        memory=peak() - memory,
        usual=usual,
        beside_deletes=beside_deletes,
        beside_purge=beside_purge,
    )


@contextmanager
def live_turns(rate: float | None) -> Iterator[list[float]]:
    """Have another process take turns meanwhile. What is yielded has the seconds of each, then."""
    pace = () if rate is None else (str(rate),)
    times: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.live_turns", *pace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout is not None:
            process.stdout.readline()  # it begins
        yield times
        times += json.loads(process.communicate()[0])


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def milliseconds(times: list[float]) -> str:
    return f"{p99(times) * 1000:.1f} ms, of {len(times):,}"


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
