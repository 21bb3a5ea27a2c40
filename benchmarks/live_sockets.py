"""Websockets on one process: thousands on which nothing is said, and a thousand that talk."""

import asyncio
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from benchmarks.live_servers import allow_many_sockets, serving
from benchmarks.report import Report

IDLE, TALKING = 5_000, 1_000
OPENED_AT_ONCE = 50
PAUSE = 10.0  # seconds between two things that a client says
SECONDS, QUICK_SECONDS = 90.0, 15.0
SERVER = "uvicorn --log-level error --no-access-log --port {port} benchmarks.live_asgi:application"
P99_GOAL, IDLE_GOAL = 50, 4  # milliseconds; KiB


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process has to itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(
        int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")
    )


async def open_all(port: int, path: str, count: int) -> list[Any]:
    """Open so many websockets, a few at a time, as people come. They are not compressed: a client
    keeps 300 KiB for that."""
    sockets: list[Any] = []
    for _ in range(0, count, OPENED_AT_ONCE):
        opening = (
            connect(
                f"ws://127.0.0.1:{port}/{path}",
                compression=None,
                max_queue=4,
                ping_interval=None,
                open_timeout=60,
            )
            for _ in range(OPENED_AT_ONCE)
        )
        sockets += await asyncio.gather(*opening)
    return sockets


async def idle_bytes(port: int, pid: int, path: str, count: int) -> float:
    """Return what a socket takes on which nothing is said, in bytes of the server."""
    await close_all(await open_all(port, path, OPENED_AT_ONCE))  # everything is imported then
    await asyncio.sleep(1)
    before = memory_of(pid)
    sockets = await open_all(port, path, count)
    await asyncio.sleep(2)
    after = memory_of(pid)
    await close_all(sockets)
    return (after - before) / count


async def close_all(sockets: list[Any]) -> None:
    for start in range(0, len(sockets), OPENED_AT_ONCE):
        await asyncio.gather(*(each.close() for each in sockets[start : start + OPENED_AT_ONCE]))


class Talk:
    """What became of the turns of all clients."""

    def __init__(self, seconds: float) -> None:
        self.times: list[float] = []  # milliseconds, from the question to the answer
        self.wrong: list[str] = []
        self.until = time.perf_counter() + seconds

    async def client(self, socket: Any, advance: Callable[[], None]) -> None:
        """Say something every ten seconds. An answer comes after the commit."""
        answered = 0
        await asyncio.sleep(random.uniform(0, PAUSE))
        try:
            while time.perf_counter() < self.until:
                started = time.perf_counter()
                await socket.send('{"text": "hello again"}')
                answer = json.loads(await socket.recv())
                self.times.append((time.perf_counter() - started) * 1000)
                answered += 1
                if answer["count"] != 2 * answered:
                    self.wrong.append(f"{answer['count']} messages after {answered} turns")
                advance()
                await asyncio.sleep(PAUSE)
        except Exception as error:
            self.wrong.append(repr(error))


async def converse(report: Report, port: int) -> tuple[Talk, float]:
    """Have all clients talk; return that, and the processors that the clients took."""
    sockets = await open_all(port, "chat", TALKING)
    gc.collect()
    gc.freeze()  # so that no collection of the clients' is taken for the server's time
    seconds = QUICK_SECONDS if report.quick else SECONDS
    talk, cpu, started = Talk(seconds), time.process_time(), time.perf_counter()
    with report.progress(TALKING * seconds / PAUSE, "Websockets that talk") as advance:
        await asyncio.gather(*(talk.client(socket, advance) for socket in sockets))
    used = (time.process_time() - cpu) / (time.perf_counter() - started)
    await close_all(sockets)
    return talk, used


def run(report: Report, url: str) -> None:
    allow_many_sockets()
    idle, count = {}, report.rounds(IDLE)
    for name in report.track(("plain", "chat"), f"{count:,} idle websockets"):
        with serving(SERVER) as (port, pid):
            idle[name] = asyncio.run(idle_bytes(port, pid, name, count)) / 1024
    beyond = idle["chat"] - idle["plain"]
    rows = [
        ["a consumer of Channels alone", f"{idle['plain']:.1f} KiB"],
        ["a conversation", f"{idle['chat']:.1f} KiB"],
        ["beyond Channels' own", f"{beyond:.1f} KiB"],
    ]
    title = f"{count:,} idle websockets on one process, each"
    report.table("idle-sockets", title, ("", "memory"), rows)
    report.goal("an idle websocket beyond Channels' own", beyond, IDLE_GOAL, "KiB")
    with serving(SERVER) as (port, _):
        talk, used = asyncio.run(converse(report, port))
    p99 = statistics.quantiles(talk.times, n=100)[98]
    rows = [
        ["turns", f"{len(talk.times):,}"],
        ["errors, or messages lost", str(len(talk.wrong))],
        ["a turn, median", f"{statistics.median(talk.times):.1f} ms"],
        ["a turn, p99", f"{p99:.1f} ms"],
        ["a turn, the worst", f"{max(talk.times):.1f} ms"],
        ["the clients themselves take", f"{used:.0%} of a processor"],
    ]
    title = f"{TALKING:,} websockets on one process, each talking every {PAUSE:.0f} s"
    report.table("sockets", title, ("", "measured"), rows)
    report.goal(f"a turn over one of {TALKING:,} websockets, p99", p99, P99_GOAL, "ms")
    for each in talk.wrong[:5]:
        report.console.print(each)
