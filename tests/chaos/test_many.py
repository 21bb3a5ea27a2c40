"""Many processes, and many conversations."""

import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.chaos.world import World
from tests.support.servers import wait_until

ROOT = Path(__file__).parents[2]
PROCESSES = 64
BUSY_PATIENCE = 120  # seconds for all of them, on a machine that has other work


@contextmanager
def workers(world: World, directory: Path, count: int, journal_bytes: int = 2**26) -> Iterator[Any]:
    directory.mkdir()
    url = f"{world.url}?socket_timeout={world.limit}"
    command = [sys.executable, "-m", "tests.chaos.worker", url, str(directory)]
    process = subprocess.Popen([*command, str(count), str(journal_bytes)], cwd=ROOT)
    try:
        yield process
    finally:
        (directory / "stop").touch()
        process.wait()


def notes(directory: Path) -> list[tuple[int, str, str, int]]:
    """Return what the workers wrote down: which of them, what became of it, id and number."""
    found = []
    for file in directory.iterdir():
        for line in file.read_text().splitlines():
            kind, id, said = line.split()
            found.append((int(file.name), kind, id, int(said)))
    return found


def take_down(world: World, directory: Path, *acknowledged: str) -> None:
    """Put into the model what the workers said, and what of it is to be there."""
    for worker, kind, id, said in notes(directory):
        if kind == "said":
            world.model.said[id].add((worker, said))
        elif kind in acknowledged:
            world.model.acknowledged[id].add((worker, said))


def kinds(directory: Path) -> Counter[str]:
    return Counter(kind for _, kind, _, _ in notes(directory))


class Monitor:
    """What reaches the server, from its first answer on: when, from whom, and which command."""

    def __init__(self, client: Any) -> None:
        self.seen: list[tuple[float, str, str]] = []
        self._client = client
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="chaos-monitor")

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.close()

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            while not self._stopped.is_set():
                try:
                    command = monitor.next_command()
                except redis.TimeoutError:
                    continue
                name = command["command"].split()[0]
                if command["client_type"] != "lua":
                    self.seen.append((command["time"], command["client_port"], name))


@pytest.mark.chaos
def test_replay_of_many_processes_is_spread(world: World, tmp_path: Path) -> None:
    directory = tmp_path / "workers"
    with workers(world, directory, PROCESSES) as process:
        wait_until(lambda: len(stored_by(directory)) == PROCESSES, BUSY_PATIENCE)
        world.server.kill()
        time.sleep(5)
        world.server.start()
        with Monitor(world.server.client()) as monitor:
            wait_until(lambda: len(carriers(monitor)) >= PROCESSES, BUSY_PATIENCE)
            time.sleep(1)
        (directory / "stop").touch()
        assert process.wait(60) == 0
    first = min(moment for moment, _, _ in monitor.seen)
    replays = carriers(monitor)
    probes = [  # and not what a client looks at when it has replayed it
        moment - first
        for moment, port, name in monitor.seen
        if name == "EVALSHA_RO" and moment < replays.get(port, math.inf)
    ]
    early = sum(moment < 1 for moment in probes)
    homes = sorted(moment - first for moment in replays.values())
    at_once = max(sum(a <= b < a + 0.1 for b in homes) for a in homes)
    world.note(
        f"{early} probes in the first second, {len(probes)} in all; replay began between "
        f"{homes[0]:.2f} and {homes[-1]:.2f} s, at most {at_once} processes in any 100 ms"
    )
    assert early <= PROCESSES
    assert at_once <= PROCESSES / 4, "replay is spread"
    assert kinds(directory)["refused"] == 0
    take_down(world, directory, "stored", "degraded")
    world.check()


def stored_by(directory: Path) -> set[int]:
    """Return the workers that have had something stored."""
    return {int(file.name) for file in directory.iterdir() if "\nstored " in file.read_text()}


def carriers(monitor: Monitor) -> dict[str, float]:
    """Return when each client first told something after its probe, by its port."""
    told: dict[str, list[float]] = {}
    for moment, port, name in list(monitor.seen):
        if name in ("EVALSHA", "EVAL"):
            told.setdefault(port, []).append(moment)
    # The first two of a connection are the commit and the deletion of its probe.
    return {port: moments[2] for port, moments in told.items() if len(moments) > 2}


def test_a_killed_worker_loses_its_own_journal_only(world: World, tmp_path: Path) -> None:
    """Lost is what that process had accepted in the outage, and nothing else."""
    killed, spared = tmp_path / "killed", tmp_path / "spared"
    with workers(world, killed, 1, journal_bytes=10_000) as doomed, workers(world, spared, 1):
        wait_until(lambda: killed.joinpath("0").exists() and spared.joinpath("0").exists())
        wait_until(lambda: kinds(killed)["stored"] and kinds(spared)["stored"])
        world.server.kill()
        wait_until(lambda: kinds(killed)["refused"] and kinds(spared)["degraded"])
        doomed.kill()
        doomed.wait()
        world.restart()
        (spared / "stop").touch()
    lost = kinds(killed)
    world.note(f"{lost['degraded']} accepted in memory and lost, {lost['refused']} refused")
    assert lost["degraded"] > 0
    take_down(world, spared, "stored", "degraded")
    take_down(world, killed, "stored")
    world.check()
