"""Requests that say something, on real servers: a conversation beside Django's session."""

import asyncio
import time
from collections import defaultdict

from django.contrib.sessions.backends.cache import SessionStore

from benchmarks.live_servers import serving
from benchmarks.measure import Spread, pair_by_pair
from benchmarks.report import Report
from benchmarks.rivals import messages
from benchmarks.turns import stored
from django_convstate import ConversationStore

CLIENTS, SECONDS, WARM_SECONDS, ROUNDS = 16, 2.0, 0.3, 6
LENGTHS = (20, 2_000)
KEEPS = ("conversation", "session")
SERVERS = {
    "sync": "gunicorn --log-level error --threads 4 -b 127.0.0.1:{port} benchmarks.live_urls:wsgi",
    "async": "uvicorn --log-level error --no-access-log --port {port} benchmarks.live_urls:asgi",
}
NAMES = {"sync": "gunicorn, 4 threads", "async": "uvicorn, async"}
GOALS = {("sync", 20): 1.1, ("sync", 2_000): 2.2, ("async", 20): 1.4, ("async", 2_000): 3.2}


def cookies(keeps: str, count: int) -> list[str]:
    """Store a conversation, or a session, of so many messages for each client."""
    made, store = [], ConversationStore("redis", window=20)
    for _ in range(CLIENTS):
        if keeps == "conversation":
            made.append(f"conversation={stored(store, count).token}")
        else:
            session = SessionStore()
            session["messages"] = messages(count)
            session.save()
            made.append(f"sessionid={session.session_key}")
    store.close()
    return made


class Client(asyncio.Protocol):
    """Asks again as soon as it is answered. A protocol, not streams: of the two processors that
    server and Valkey have, the load must take little."""

    def __init__(self, path: str, cookie: str) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        self._request = head.encode()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self.answered = 0
        self.error = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.error = head.decode()
            return
        self.answered += 1
        self._received.clear()
        if self._transport is not None:
            self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def close(self) -> None:
        if self._transport is None:
            self.error = self.error or "The server has closed the connection."
        else:
            self._transport.abort()


def _length(head: bytes | bytearray) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


async def requests_per_second(port: int, path: str, cookies: list[str]) -> tuple[float, float]:
    """Ask for so many seconds; return the rate, and the processors that asking took."""
    loop, clients = asyncio.get_running_loop(), [Client(path, cookie) for cookie in cookies]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(WARM_SECONDS)
    before, cpu, started = _answered(clients), time.process_time(), time.perf_counter()
    await asyncio.sleep(SECONDS)
    seconds = time.perf_counter() - started
    rate = (_answered(clients) - before) / seconds
    used = (time.process_time() - cpu) / seconds
    for client in clients:
        client.close()
        if client.error:
            raise RuntimeError(client.error)
    return rate, used


def _answered(clients: list[Client]) -> int:
    return sum(client.answered for client in clients)


def measure(report: Report, kind: str) -> tuple[dict[int, dict[str, list[float]]], list[float]]:
    """Return the rates by length and by what is kept; and the load's share of a processor. Both
    servers run all the time: one that is not asked does nothing."""
    rates: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in LENGTHS}
    shares = []
    with serving(SERVERS[kind], KEEPS[0]) as (ours, _), serving(SERVERS[kind], KEEPS[1]) as other:
        ports = dict(zip(KEEPS, (ours, other[0]), strict=True))
        rounds = [count for _ in range(report.rounds(ROUNDS)) for count in LENGTHS]
        for count in report.track(rounds, f"Requests, {NAMES[kind]}"):
            for keeps, port in ports.items():
                path, known = f"/{kind}/{keeps}", cookies(keeps, count)
                rate, share = asyncio.run(requests_per_second(port, path, known))
                rates[count][keeps].append(rate)
                shares.append(share)
    return rates, shares


def run(report: Report, url: str) -> None:
    rows, shares = [], []
    for kind, name in NAMES.items():
        rates, used = measure(report, kind)
        shares += used
        for count, taken in rates.items():
            ratio = pair_by_pair(taken[KEEPS[0]], taken[KEEPS[1]], calls=1).median
            spreads = (str(Spread.of(taken[keeps])) for keeps in KEEPS)
            rows.append([name, f"{count:,}", *spreads, f"{ratio:.2f} x"])
            what = f"requests a second beside Django's session, {name}, {count:,} messages"
            report.goal(what, ratio, GOALS[kind, count], at_least=True)
    columns = ("server", "messages stored", *(f"{each} (requests/s)" for each in KEEPS), "ratio")
    title = f"A request that says something: {CLIENTS} clients, one process, served here before"
    report.table("requests", title, columns, rows)
    report.table(
        "load",
        "What the load itself takes",
        ("", "of a processor"),
        [["the clients", f"{Spread.of(shares).median:.0%}, at most {max(shares):.0%}"]],
    )
