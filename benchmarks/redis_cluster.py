"""A turn on a cluster of three primaries beside one server, and how evenly its keys are spread."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from django.test import override_settings

from benchmarks.measure import CALLS, WARM, Spread, microseconds, pair_by_pair
from benchmarks.report import Report
from benchmarks.settings_redis import CACHES
from benchmarks.turns import stored, turn
from django_convstate import ConversationStore
from tests.support.servers import cluster_setup, free_ports

ROUNDS, CONVERSATIONS = 60, 30_000
RATIO_GOAL, SPREAD_GOAL = 1.5, 5  # times; percent


def batch(store: ConversationStore) -> Iterator[Callable[[], object]]:
    id = stored(store, 20).id
    for _ in range(WARM + CALLS):
        yield partial(turn, store, id)


def measure(report: Report, nodes: Any) -> None:
    stores = {
        "one server": ConversationStore("redis", window=20),
        "cluster": ConversationStore("redis", window=20, cache_alias="cluster"),
    }
    times: dict[str, list[float]] = {name: [] for name in stores}
    for _ in report.track(range(report.rounds(ROUNDS)), "Cluster"):
        for name, store in stores.items():
            times[name] += microseconds(batch(store))
    found = {name: Spread.of(each) for name, each in times.items()}
    ratio = pair_by_pair(times["cluster"], times["one server"]).median
    count = report.rounds(CONVERSATIONS)
    for _ in report.track(range(count), "Keys"):
        stored(stores["cluster"], 1)
    keys = [node.client().dbsize() for node in nodes[:3]]
    uneven = (max(keys) / (sum(keys) / 3) - 1) * 100
    rows = [
        ["a turn on one server", f"{found['one server']} µs"],
        ["a turn on the cluster", f"{found['cluster']} µs"],
        [f"keys of {count:,} conversations", ", ".join(f"{each:,}" for each in keys)],
    ]
    report.table("cluster", "Three primaries beside one server", ("", ""), rows)
    report.goal("a turn on a cluster beside one server", ratio, RATIO_GOAL)
    report.goal("keys of a primary over an even share", uneven, SPREAD_GOAL, "%")
    for store in stores.values():
        store.close()


def run(report: Report, url: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ports = free_ports(6)
        with cluster_setup(Path(directory), ports) as nodes:
            entry: dict[str, Any] = {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"redis://127.0.0.1:{ports[0]}",
                "OPTIONS": {
                    "CONNECTION_FACTORY": (
                        "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
                    ),
                    "SOCKET_TIMEOUT": 5,
                },
            }
            with override_settings(CACHES={**CACHES, "cluster": entry}):
                measure(report, nodes)
