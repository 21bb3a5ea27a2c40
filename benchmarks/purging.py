"""A purge on PostgreSQL beside bare DELETEs, and the turns that others take meanwhile."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from django.db import connection
from rich.console import Console
from rich.table import Table

from benchmarks.filling import MESSAGES, fill
from django_convstate import ConversationStore

EXPIRED = 200_000


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


def bench_purge(scale: float, store: ConversationStore, console: Console) -> None:
    count = round(EXPIRED * scale)
    with live_turns() as usual:
        time.sleep(max(2.0, 20 * scale))
    fill(count, store, console)
    with live_turns() as beside_deletes:
        started = time.perf_counter()
        deleted = bare_deletes()
        bare = deleted / (time.perf_counter() - started)
    fill(count, store, console)
    memory = peak()
    with live_turns() as beside:
        steps = [time.perf_counter()]
        report = store.purge(progress=lambda *_: steps.append(time.perf_counter()))
    rate = report.deleted / (steps[-1] - steps[0])
    longest = max(end - start for start, end in pairwise(steps))
    title = f"A purge of {count:,} conversations of {MESSAGES} messages, and turns beside it"
    table = Table("", "measured", "goal", title=title)
    table.add_row("two bare DELETEs, conversations a second", f"{bare:,.0f}", "")
    table.add_row("purge, conversations a second", f"{rate:,.0f}", f"{bare / 2:,.0f}")
    table.add_row("its longest transaction, at most", f"{longest:.2f} s", "1 s")
    table.add_row("its memory has grown by", f"{peak() - memory:.1f} MiB", "flat")
    table.add_row("a turn usually, p99", milliseconds(usual), "")
    table.add_row("a turn beside the DELETEs, p99", milliseconds(beside_deletes), "")
    table.add_row(
        "a turn beside the purge, p99",
        milliseconds(beside),
        f"{2 * p99(usual) * 1000:.1f} ms",
    )
    console.print(table, "")


@contextmanager
def live_turns() -> Iterator[list[float]]:
    """Have another process take turns meanwhile. What is yielded has the seconds of each, then."""
    times: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.live_turns"],
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
