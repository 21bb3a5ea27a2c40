"""A thousand websockets on one process: what bench_live.py serves there, and how it is measured."""

import asyncio
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from websockets.asyncio.client import connect

SOCKETS = 1000
PAUSE = 10.0  # seconds between two things that a client says
SECONDS = float(os.environ.get("BENCH_SECONDS", "120"))
SERVER = "uvicorn --log-level error --port {port} benchmarks.live_asgi:application"


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process has to itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(
        int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")
    )


async def idle_bytes(port: int, pid: int, path: str) -> float:
    """Return what a socket takes on which nothing is said, in bytes of the server."""
    async with connect(f"ws://127.0.0.1:{port}/{path}") as first:  # everything is imported then
        await first.ping()
        await asyncio.sleep(1)
        before = memory_of(pid)
        sockets = await open_all(port, path)
        await asyncio.sleep(2)
        after = memory_of(pid)
        await asyncio.gather(*(each.close() for each in sockets))
    return (after - before) / SOCKETS


async def open_all(port: int, path: str) -> list[Any]:
    sockets: list[Any] = []
    for _ in range(0, SOCKETS, 50):  # a few at a time, as people come
        sockets += await asyncio.gather(
            *(connect(f"ws://127.0.0.1:{port}/{path}", max_queue=4) for _ in range(50))
        )
    return sockets


async def converse(port: int, console: Console) -> dict[str, Any]:
    """Let each client say something every ten seconds, and time each turn to its answer, which
    comes after the commit. Returns the turns in milliseconds, and what went wrong."""
    sockets = await open_all(port, "chat")
    until = time.perf_counter() + SECONDS
    turns: list[float] = []
    wrong: list[str] = []
    answered = [0] * SOCKETS

    async def client(number: int, progress: Progress, task: Any) -> None:
        await asyncio.sleep(random.uniform(0, PAUSE))
        try:
            while time.perf_counter() < until:
                started = time.perf_counter()
                await sockets[number].send('{"text": "hello again"}')
                answer = json.loads(await sockets[number].recv())
                turns.append((time.perf_counter() - started) * 1000)
                answered[number] += 1
                if answer["count"] != 2 * answered[number]:
                    wrong.append(f"{answer['count']} messages after {answered[number]} turns")
                progress.advance(task)
                await asyncio.sleep(PAUSE)
        except Exception as error:
            wrong.append(repr(error))

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Turns", total=SOCKETS * SECONDS / PAUSE)
        await asyncio.gather(*(client(number, progress, task) for number in range(SOCKETS)))
    await asyncio.gather(*(each.close() for each in sockets))
    return {
        "turns": len(turns),
        "median": statistics.median(turns),
        "p99": statistics.quantiles(turns, n=100)[98],
        "worst": max(turns),
        "wrong": wrong,
    }
