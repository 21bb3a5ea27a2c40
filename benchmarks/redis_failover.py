"""What the failover costs while the server is well."""

import statistics
import time

from benchmarks.measure import Spread
from benchmarks.report import Report
from benchmarks.turns import stored, turn
from django_convstate import ConversationStore

TURNS, ROUNDS, CONVERSATIONS = 64, 80, 8
RENEWED = 10  # rounds, after which long conversations are made anew
GOAL = 3  # percent


def run(report: Report, url: str) -> None:
    """Compare turns with and without the failover, in turns: a total of many each, because what
    the failover has put off is a part of them."""
    stores = {
        "without failover": ConversationStore("redis", window=20, fallback=None),
        "with failover": ConversationStore("redis", window=20),
    }
    rows = []
    for count in (20, 2_000):
        times: dict[str, list[float]] = {name: [] for name in stores}
        rounds = range(report.rounds(ROUNDS))
        for number in report.track(rounds, f"Failover, {count:,} messages"):
            if count == 20 or number % RENEWED == 0:
                ids = {name: conversations(store, count) for name, store in stores.items()}
            for name, total in one_round(stores, ids).items():
                times[name].append(total / TURNS * 1e6)
        ratios = [after / before for before, after in zip(*times.values(), strict=True)]
        low, ratio, high = Spread.of(ratios)
        spreads = (str(Spread.of(taken)) for taken in times.values())
        rows.append([f"{count:,}", *spreads, f"{ratio:.3f} [{low:.3f}, {high:.3f}]"])
        what = f"failover while all is well, {count:,} messages"
        report.goal(what, (statistics.median(ratios) - 1) * 100, GOAL, "%")
    for store in stores.values():
        store.close()
    columns = ("messages stored", *(f"{name} (µs)" for name in stores), "ratio, pair by pair")
    title = f"Failover while all is well: {TURNS} turns each, {report.rounds(ROUNDS)} times"
    report.table("failover", title, columns, rows)


def conversations(store: ConversationStore, count: int) -> list[str]:
    return [stored(store, count).id for _ in range(CONVERSATIONS)]


def one_round(stores: dict[str, ConversationStore], ids: dict[str, list[str]]) -> dict[str, float]:
    """Return the seconds that the turns of each store took."""
    total = dict.fromkeys(stores, 0.0)
    for number in range(TURNS):
        for name, store in stores.items():
            started = time.perf_counter()
            turn(store, ids[name][number % CONVERSATIONS])
            total[name] += time.perf_counter() - started
    return total
