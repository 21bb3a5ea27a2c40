"""What a turn sends and receives, which commands the server runs for it, and what it keeps."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis

from benchmarks.redis_turns import LENGTHS, Ours
from benchmarks.report import Report
from benchmarks.turns import say, stored, turn
from django_convstate import Conversation, ConversationStore

SAMPLES = 25
RECEIVED_GOAL = 300  # bytes


def net(client: redis.Redis) -> tuple[int, int]:
    """Return the bytes that the server has received and sent."""
    stats: Any = client.info("stats")
    return stats["total_net_input_bytes"], stats["total_net_output_bytes"]


def on_the_wire(client: redis.Redis, act: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes to the server and from it for `act`, without those of the question."""
    nothing, before = net(client), net(client)
    act()
    after = net(client)
    sent, received = ((after[way] - before[way]) - (before[way] - nothing[way]) for way in (0, 1))
    return sent, received


def bench_bytes(report: Report, client: redis.Redis) -> None:
    ours, rows = Ours(), []
    for count in report.track(LENGTHS, "Bytes"):
        id = stored(ours.elsewhere, count).id
        turn(ours.store, id)
        first, served = [], []
        for _ in range(report.rounds(SAMPLES)):
            served.append(on_the_wire(client, partial(turn, ours.store, id)))
            id = ours.moved(id)
            first.append(on_the_wire(client, partial(turn, ours.store, id)))
        # The median, because what INFO says of itself has now a digit more and then one less.
        medians = [
            [round(statistics.median(way)) for way in zip(*found, strict=True)]
            for found in (first, served)
        ]
        rows.append([f"{count:,}", *(f"{each:,}" for found in medians for each in found)])
        what = f"bytes from the server for a turn served here last, {count:,} messages"
        report.goal(what, medians[1][1], RECEIVED_GOAL, "bytes")
    ours.close()
    columns = ("messages stored", "first here: sent", "received", "served here: sent", "received")
    report.table("wire", "Bytes of a turn on the wire", columns, rows)


def commands_of(client: redis.Redis, acts: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Return the calls of each command that the server ran for one act, and under "µs" the time."""
    client.config_resetstat()
    for act in acts:
        act()
    stats: Any = client.info("commandstats")
    found, usec = {}, 0.0
    for key, each in stats.items():
        name = key.removeprefix("cmdstat_")
        if name in ("config|resetstat", "info", "client|setinfo", "hello", "select"):
            continue
        found[name.upper()] = each["calls"] / len(acts)
        if name.startswith("eval"):  # what a script calls is a part of its time
            usec += each["usec"]
    return found | {"µs of the server": usec / len(acts)}


def load_into(known: list[Conversation], store: ConversationStore, id: str) -> None:
    known.append(store.get(id))


def bench_commands(report: Report, client: redis.Redis) -> None:
    """Count what the server runs for loads and commits of conversations of 22 messages."""
    ours = Ours()
    ids = [stored(ours.elsewhere, 20).id for _ in range(report.rounds(200))]
    for id in ids:  # so that all is there that comes with a first turn
        turn(ours.store, id)
    ours.store.close()
    ours = Ours()  # one that has served none of them
    for id in ids:  # the server's caches are to be warm in each stage
        ours.elsewhere.get(id)
    stages: dict[str, dict[str, float]] = {}
    stages["load, first here"] = commands_of(client, [partial(ours.store.get, id) for id in ids])
    known: list[Conversation] = []
    loads = [partial(load_into, known, ours.store, id) for id in ids]
    stages["load, served here"] = commands_of(client, loads)
    for conversation in known:
        say(conversation)
    stages["commit"] = commands_of(client, [conversation.save for conversation in known])
    ours.close()
    names = sorted({name for found in stages.values() for name in found} - {"µs of the server"})
    rows = [
        [name, *(f"{found.get(name, 0):.2f}" for found in stages.values())]
        for name in (*names, "µs of the server")
    ]
    report.table("commands", "What the server runs (INFO commandstats)", ("", *stages), rows)


def bench_memory(report: Report, client: redis.Redis) -> None:
    store, number = ConversationStore("redis", window=20), report.rounds(500)
    client.flushall()
    time.sleep(2)  # memory is given back a little later
    info: Any = client.info("memory")
    before = info["used_memory"]
    for _ in report.track(range(number), "Memory"):
        id = stored(store, 0).id
        for _ in range(10):
            turn(store, id)
    info = client.info("memory")
    used = (info["used_memory"] - before) / number
    size = sum(summary.size for summary in store.list()) / number
    rows = [["its JSON", f"{size:,.0f}"], ["in Redis", f"{used:,.0f}"]]
    report.table("memory", "Memory of a conversation of 20 messages", ("", "bytes"), rows)
    report.goal("memory of a conversation of 20 messages", used, round(1.35 * size + 700), "bytes")
    store.close()


def run(report: Report, url: str) -> None:
    client = redis.Redis.from_url(url)
    bench_bytes(report, client)
    bench_commands(report, client)
    bench_memory(report, client)
    client.close()
