"""Commands that are killed half way and run again; and how much memory they take."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from django_convstate import clock
from django_convstate.backends.records import Record
from django_convstate.transfer import open_to_read, open_to_write
from django_convstate.transfer.lines import Whole, line_of
from tests.support.messages import pairs
from tests.support.servers import Server, wait_until

ROOT = Path(__file__).parents[2]
COUNT = 500


class Site:
    """A project with a Redis and an SQLite file."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": str(ROOT),
            "CONVSTATE_TEST_REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
        }

    def make_tables(self, *backends: str) -> None:
        if "database" in backends:
            self.run("migrate", "--verbosity=0")

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.transferring", str(self.folder), *command],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str) -> tuple[str, int]:
        """Return what a command prints, and the most memory that it took, in KiB, on Linux."""
        process = self.start(*command)
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        return " ".join(out.split()), int(err.split()[-1])

    def kill(self, is_due: Callable[[], bool], *command: str) -> None:
        """Start a command, and kill it as soon as it is due."""
        process = self.start(*command)
        with process:
            wait_until(lambda: is_due() or process.poll() is not None)
            assert process.poll() is None, "it was too fast"
            process.kill()
        assert process.returncode == -9

    def count(self, backend: str) -> int:
        if backend == "redis":
            with self.server.client() as client:
                return sum(1 for _ in client.scan_iter("convstate:{*}:meta", count=10_000))
        with closing(sqlite3.connect(self.folder / "conversations.sqlite3", timeout=60)) as found:
            rows = found.execute("SELECT count(*) FROM convstate_database_conversation")
            return int(rows.fetchone()[0])


@pytest.fixture
def site(tmp_path: Path, server: Server) -> Site:
    with server.client() as client:
        client.config_set("appendonly", "no")
    return Site(tmp_path, server)


def write(path: Path, count: int, size: int = 200) -> list[bytes]:
    """Write a file of conversations with messages of so many bytes, and return its lines."""
    now = float(int(clock.time()))
    with open_to_write(path) as file:
        for number in range(count):
            messages = pairs(*(b'{"content":"%s %d"}' % (b"x" * size, n) for n in range(5)))
            record = Record(
                id=f"conversation-{number}",
                version=3,
                owner=f"u{number % 10}",
                created_at=now - 9,
                modified_at=now - number % 7,
                last_accessed=now,
                expires_at=now + 86400,
                ttl=86400.0,
                state={"title": b'"number %d"' % number},
                messages=(),
                message_count=5,
                last_key=bytes.fromhex(messages[-1][0]),
            )
            file.write(line_of(Whole(record, messages)))
    return lines_of(path)


def lines_of(path: Path) -> list[bytes]:
    with open_to_read(path) as file:
        return sorted(file)


@pytest.mark.parametrize("backend", ["redis", pytest.param("database", marks=pytest.mark.slow)])
def test_an_import_that_was_killed_is_run_again(site: Site, backend: str) -> None:
    site.make_tables(backend)
    path, out = site.folder / "in.jsonl.gz", site.folder / "out.jsonl"
    lines = write(path, COUNT)
    command = ("import_sessions", str(path), f"--backend={backend}", "--on-conflict=skip")
    site.kill(lambda: site.count(backend) > COUNT // 10, *command)
    site.run("export_sessions", str(out), f"--backend={backend}")
    found = lines_of(out)
    assert COUNT // 10 < len(found) < COUNT
    assert set(found) < set(lines), "each is whole"
    told, _ = site.run(*command)
    assert told.startswith(f"{COUNT - len(found):,} conversations imported; {len(found):,} skipped")
    site.run("export_sessions", str(out), f"--backend={backend}")
    assert lines_of(out) == lines


def test_an_export_that_was_killed_is_run_again(site: Site) -> None:
    path, out = site.folder / "in.jsonl", site.folder / "out.jsonl"
    lines = write(path, COUNT)
    site.run("import_sessions", str(path), "--backend=redis")
    part = site.folder / "out.jsonl.part"
    command = ("export_sessions", str(out), "--backend=redis")
    site.kill(lambda: part.exists() and part.stat().st_size > 50_000, *command)
    assert not out.exists()
    assert part.exists()
    site.run(*command)
    assert lines_of(out) == lines
    assert not part.exists()


def test_one_that_is_interrupted_says_how_far_it_came(site: Site) -> None:
    path, out = site.folder / "in.jsonl", site.folder / "out.jsonl"
    write(path, COUNT)
    site.run("import_sessions", str(path), "--backend=redis")
    with site.start("export_sessions", str(out), "--backend=redis") as process:
        part = site.folder / "out.jsonl.part"
        wait_until(lambda: part.exists() and part.stat().st_size > 50_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=280)
    assert process.returncode == 130
    assert re.fullmatch(r"Interrupted\. \d+ conversations written\.\n", err)
    assert not part.exists()
    assert not out.exists()


@pytest.mark.parametrize(
    ("source", "target"),
    [("redis", "database"), pytest.param("database", "redis", marks=pytest.mark.slow)],
)
def test_a_migration_that_was_killed_is_run_again(site: Site, source: str, target: str) -> None:
    site.make_tables(source, target)
    path, out = site.folder / "in.jsonl", site.folder / "out.jsonl"
    lines = write(path, COUNT)
    site.run("import_sessions", str(path), f"--backend={source}")
    command = ("migrate_sessions", f"--from={source}", f"--to={target}")
    site.kill(lambda: site.count(target) > COUNT // 10, *command)
    told, _ = site.run(*command)
    assert told.endswith(f"conversations copied; {COUNT:,} of {COUNT:,} verified.")
    assert not told.startswith(f"{COUNT:,} ")
    site.run("export_sessions", str(out), f"--backend={target}")
    assert lines_of(out) == lines


def grown(site: Site, small: int, large: int, *backends: str) -> dict[str, int]:
    """Return by how many KiB each command takes more memory for many conversations."""
    taken: dict[str, list[int]] = {}
    for count in (small, large):
        path, out = site.folder / "in.jsonl.gz", str(site.folder / "out.jsonl.gz")
        write(path, count, size=2000)
        source, target = backends
        commands = {
            "import": ("import_sessions", str(path), f"--backend={source}", "--on-conflict=skip"),
            "export": ("export_sessions", out, f"--backend={source}"),
            "migrate": ("migrate_sessions", f"--from={source}", f"--to={target}"),
            "erase": ("erase_owner", "u1", "--no-input", f"--backend={source}"),
        }
        for name, command in commands.items():
            taken.setdefault(name, []).append(site.run(*command)[1])
    return {name: after - before for name, (before, after) in taken.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc/self/status")
@pytest.mark.parametrize("backends", [("redis", "database"), ("database", "redis")])
def test_memory_does_not_grow_with_the_store(site: Site, backends: tuple[str, str]) -> None:
    site.make_tables(*backends)
    growth = grown(site, 300, 3000, *backends)  # of 10 KB each
    assert max(growth.values()) < 8 * 1024, growth
