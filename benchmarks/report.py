"""What a benchmark prints, and writes as JSON: tables, and what was measured beside each goal."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track
from rich.table import Table

T = TypeVar("T")
GOAL = ("", "measured", "goal", "reached")
PACKAGES = ("django", "redis", "hiredis", "django-redis", "aiogram", "starsessions")


class Report:
    """The tables and goals of one benchmark, which are printed as they come."""

    def __init__(self, name: str, description: str | None) -> None:
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
        parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
        options = parser.parse_args()
        self.quick: bool = options.quick
        self.console = Console(width=150)
        self._file: Path | None = options.json
        self._found: dict[str, Any] = {
            "benchmark": name,
            "machine": _machine(),
            "tables": {},
            "goals": [],
            "series": {},
        }

    def rounds(self, count: int) -> int:
        """Return how many rounds to go instead of `count`."""
        return max(2, count // 10) if self.quick else count

    def track(self, values: Iterable[T], title: str) -> Iterator[T]:
        """Yield the values, and show how far we are."""
        values = list(values)
        yield from track(values, title, console=self.console, transient=True)

    @contextmanager
    def progress(self, total: float, title: str) -> Iterator[Callable[[], None]]:
        """Show how far we are, and yield what is to be called for each step."""
        with Progress(console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda: progress.advance(task)

    def table(
        self, name: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
    ) -> None:
        """Print a table, and keep it under `name`."""
        rows = [list(row) for row in rows]
        self._found["tables"][name] = {"title": title, "columns": list(columns), "rows": rows}
        shown = Table(*map(escape, columns), title=escape(title))
        for row in rows:
            shown.add_row(*map(escape, row))
        self.console.print(shown, "")

    def goal(
        self, what: str, value: float, limit: float, unit: str = "x", *, at_least: bool = False
    ) -> None:
        """Note what was measured beside its goal: at most `limit`, or at least."""
        reached = value >= limit if at_least else value <= limit
        self._found["goals"].append(
            {
                "what": what,
                "measured": f"{value:,.{0 if abs(value) >= 20 else 2}f} {unit}",
                "goal": f"at {'least' if at_least else 'most'} {limit:,} {unit}",
                "reached": "yes" if reached else "no",
            }
        )

    def series(self, name: str, values: Any) -> None:
        """Keep figures for a plot."""
        self._found["series"][name] = values

    def finish(self) -> None:
        """Print the goals, and write the file."""
        goals = self._found["goals"]
        if goals:
            rows = ([each[key] for key in ("what", *GOAL[1:])] for each in goals)
            self.table("goals", "Goals", GOAL, rows)
        self._found["machine"]["load afterwards"] = _load()
        self.console.print(", ".join(f"{k}: {v}" for k, v in self._found["machine"].items()))
        if self._file is not None:
            self._file.write_text(json.dumps(self._found, indent=1, ensure_ascii=False) + "\n")


def _machine() -> dict[str, str]:
    found = {
        "processors": f"{os.cpu_count()} ({platform.machine()})",
        "load before": _load(),
        "Python": sys.version.split()[0],
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"
