"""An export from PostgreSQL to a file, and an import of it, each in a process of its own: how fast,
and how much memory it takes.

    python -m benchmarks.moving export FILE

is such a process. It prints how many conversations are done, line by line, and at last the seconds
that it took, and the most memory that it had, in MiB.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings_db")

import django

if __name__ == "__main__":
    django.setup()

from django.db import connection
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.filling import MESSAGES, fill
from django_convstate import ConversationStore
from django_convstate.transfer import (
    export_to,
    import_from,
    open_to_read,
    open_to_write,
)

MOVED = (5_000, 50_000)
STEP = 100  # conversations from one line of progress to the next


class Moved(NamedTuple):
    """How fast conversations were moved, and the most memory of the process, in MiB."""

    rate: float
    memory: float


def bench_moving(scale: float, store: ConversationStore, console: Console) -> None:
    """Export and import few and many conversations."""
    counts = [max(1, round(count * scale)) for count in MOVED]
    table = Table(
        *("", f"{counts[0]:,}", f"{counts[1]:,}", "goal"),
        title=f"Export and import of conversations of {MESSAGES} messages",
    )
    exported, imported, sizes = [], [], []
    for count in counts:
        empty()
        fill(count, store, console, expires_in=24 * 3600)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "conversations.jsonl")
            exported.append(move("export", path, count, console))
            sizes.append(path.stat().st_size / 2**20)
            empty()
            imported.append(move("import", path, count, console))
    empty()
    table.add_row("the file", *(f"{size:,.1f} MiB" for size in sizes), "")
    for name, moved in (("export", exported), ("import", imported)):
        table.add_row(f"{name}, conversations a second", *(f"{m.rate:,.0f}" for m in moved), "")
        table.add_row(f"{name}, memory", *(f"{m.memory:.1f} MiB" for m in moved), "flat")
    console.print(table, "")


def empty() -> None:
    """Delete all conversations."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE convstate_database_conversation CASCADE")


def move(what: str, path: Path, count: int, console: Console) -> Moved:
    """Export or import so many conversations in another process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.moving", what, str(path)]
    with (
        Progress(console=console, transient=True) as bar,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        task, line = bar.add_task(f"{what.capitalize()} of {count:,}", total=count), ""
        for line in process.stdout or ():
            bar.update(task, completed=int(line.split()[0]))
    if process.returncode:
        raise RuntimeError(f"The {what} has failed.")
    done, seconds, memory = line.split()
    if int(done) != count:
        raise RuntimeError(f"The {what} was of {done} conversations, and not of {count}.")
    return Moved(count / float(seconds), float(memory))


def main(what: str, path: Path) -> None:
    store = ConversationStore("database", ttl=24 * 3600)

    def show(done: int, total: int | None) -> None:
        if done % STEP == 0:
            print(done, flush=True)  # noqa: T201

    started = time.perf_counter()
    if what == "export":
        with open_to_write(path) as file:
            done = export_to(file, store=store, progress=show).exported
    else:
        with open_to_read(path) as file:
            done = import_from(file, store=store, progress=show).imported
    print(done, time.perf_counter() - started, peak())  # noqa: T201


def peak() -> float:
    """Return the most memory that this process has had, in MiB. What getrusage says would include
    the process that began this."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
