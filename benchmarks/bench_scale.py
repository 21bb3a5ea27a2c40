"""`make bench-scale`: several processes against one Valkey, and what a conversation and a turn take
of it; from that what a million conversations an hour need, checked against a measured point."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

import redis

from benchmarks.measure import Spread
from benchmarks.report import Report
from benchmarks.scale_model import Constants, Inputs, Needs, needs
from benchmarks.valkey import on_valkey

PROCESSES, ROUNDS, SECONDS, QUICK_SECONDS = (1, 2, 4), 5, 3.0, 0.5
# Two populations tell what a conversation takes and what a message; a third, with other messages,
# checks that.
SHORT_TURNS, LONG_TURNS, POPULATION, TEXT_BYTES = 2, 20, 2_000, 200
CHECK_TURNS, CHECK_POPULATION, CHECK_TEXT_BYTES = 6, 5_000, 420


class Client:
    """A process that takes turns."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("The process has no pipes.")
        self._stdin, self._stdout = process.stdin, process.stdout

    def begin(self, *act: Any) -> None:
        self._stdin.write(json.dumps(act) + "\n")
        self._stdin.flush()

    def answer(self) -> Any:
        return json.loads(self._stdout.readline())


@contextmanager
def clients(count: int) -> Iterator[list[Client]]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scale_client"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(count)
        ]
        yield [Client(process) for process in processes]  # Popen closes their input, so they end


def server_seconds(server: redis.Redis) -> float:
    """Return how long the server has had a processor."""
    info: Any = server.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def memory(server: redis.Redis) -> int:
    info: Any = server.info("memory")
    return int(info["used_memory"])


def bench_processes(report: Report, server: redis.Redis, all_clients: list[Client]) -> None:
    seconds = QUICK_SECONDS if report.quick else SECONDS
    for client in all_clients:  # which makes their conversations
        client.begin("talk", 0.2)
        client.answer()
    found: dict[int, dict[str, list[float]]] = {
        count: {"rate": [], "p50": [], "p99": [], "load": [], "each": []} for count in PROCESSES
    }
    rounds = [count for _ in range(report.rounds(ROUNDS)) for count in PROCESSES]
    for count in report.track(rounds, "Processes"):
        before = server_seconds(server)
        for client in all_clients[:count]:
            client.begin("talk", seconds)
        times = [each for client in all_clients[:count] for each in client.answer()]
        used = server_seconds(server) - before
        quantiles = statistics.quantiles(times, n=100)
        found[count]["rate"].append(len(times) / seconds)
        found[count]["p50"].append(quantiles[49])
        found[count]["p99"].append(quantiles[98])
        found[count]["load"].append(used / seconds * 100)
        found[count]["each"].append(used / len(times) * 1e6)
    columns = ("processes", "turns a second", "p50 (µs)", "p99 (µs)", "server (% of a processor)")
    rows = [
        [f"{count}", *(str(Spread.of(taken[key])) for key in taken)]
        for count, taken in found.items()
    ]
    title = "Processes against one server, served here before"
    report.table("processes", title, (*columns, "server, a turn (µs)"), rows)


def populate(
    report: Report, server: redis.Redis, all_clients: list[Client], size: tuple[int, int, int]
) -> tuple[float, float]:
    """Make conversations, each of whose turns is another process's than the one before.

    Args:
        size: how many conversations, how many turns of each, and the bytes of a message's text.

    Returns:
        bytes of memory and seconds of a processor that the server took.
    """
    count, turns, text_bytes = size
    bytes_before, seconds_before = memory(server), server_seconds(server)
    for number in report.track(range(turns), f"{count:,} conversations of {turns} turns"):
        client = all_clients[number % len(all_clients)]
        client.begin("fill", f"{count} {turns} {text_bytes}", count, text_bytes)
        client.answer()
    return memory(server) - bytes_before, server_seconds(server) - seconds_before


def json_bytes(text_bytes: int) -> float:
    """Return the bytes of the JSON of a message with so much text, of the two roles' mean."""
    from django_convstate import ConversationStore

    conversation = ConversationStore("locmem").create()
    for role in ("user", "assistant"):
        conversation.messages.append(role, "x" * text_bytes)
    return statistics.mean(
        len(json.dumps(dict(each), separators=(",", ":"))) for each in conversation.messages
    )


def measure_constants(report: Report, server: redis.Redis, all_clients: list[Client]) -> Constants:
    count = report.rounds(POPULATION)
    short = populate(report, server, all_clients, (count, SHORT_TURNS, TEXT_BYTES))
    long = populate(report, server, all_clients, (count, LONG_TURNS, TEXT_BYTES))
    more = LONG_TURNS - SHORT_TURNS
    message = (long[0] - short[0]) / count / (2 * more)
    constants = Constants(
        conversation_bytes=round(short[0] / count - 2 * SHORT_TURNS * message),
        beside_message_bytes=round(message - json_bytes(TEXT_BYTES)),
        turn_us=round((long[1] - short[1]) / count / more * 1e6),
    )
    report.table("scale-constants", "Measured constants", *named(constants))
    return constants


def check(
    report: Report, server: redis.Redis, all_clients: list[Client], constants: Constants
) -> None:
    """Predict what other conversations take, and measure it."""
    count = report.rounds(CHECK_POPULATION)
    inputs = Inputs(
        conversations_per_hour=count,
        turns=CHECK_TURNS,
        message_bytes=json_bytes(CHECK_TEXT_BYTES),
        duration=3600,
        ttl=0,  # all within the hour are there
    )
    predicted = needs(inputs, constants)
    cpu = predicted.processors * 3600
    size = (count, CHECK_TURNS, CHECK_TEXT_BYTES)
    measured = populate(report, server, all_clients, size)
    rows = [
        [
            "memory (MB)",
            f"{predicted.memory / 1e6:.1f}",
            f"{measured[0] / 1e6:.1f}",
            f"{measured[0] / predicted.memory:.2f} x",
        ],
        ["server's CPU (s)", f"{cpu:.2f}", f"{measured[1]:.2f}", f"{measured[1] / cpu:.2f} x"],
    ]
    title = f"{count:,} conversations of {CHECK_TURNS} turns, {inputs.message_bytes:.0f} bytes each"
    report.table("scale-check", title, ("", "predicted", "measured", "ratio"), rows)


def calculate(report: Report, constants: Constants) -> None:
    inputs = Inputs()
    report.table("scale-inputs", "Inputs", *named(inputs))
    report.table("scale-needs", "What they need", *named(needs(inputs, constants)))


def named(values: Inputs | Constants | Needs) -> tuple[Sequence[str], list[list[str]]]:
    """Return the columns and the rows of a table of what has names in docs/scale.md."""
    rows = [
        [f"`{each.name}`", each.metadata["meaning"], number(getattr(values, each.name))]
        for each in fields(values)
    ]
    return ("", "what it is", "value"), rows


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.2f}"


def main() -> None:
    report = Report("scale", __doc__)
    with on_valkey("settings_redis") as url, clients(max(PROCESSES)) as all_clients:
        server = redis.Redis.from_url(url)
        bench_processes(report, server, all_clients)
        constants = measure_constants(report, server, all_clients)
        check(report, server, all_clients, constants)
        calculate(report, constants)
        server.close()
    report.finish()


if __name__ == "__main__":
    main()
