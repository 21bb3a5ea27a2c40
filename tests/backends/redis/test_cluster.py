"""The redis backend on a cluster: nodes die and slots move while all write."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from django_convstate import BackendUnavailable, get_backend
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.redis import index_of
from tests.support.ruler import Stopwatch
from tests.support.servers import (
    PATIENCE,
    Server,
    cluster_setup,
    free_ports,
    wait_until,
)

# Seconds for all writers to go on after a node has died. On a busy machine a replica may lose its
# election, and it waits for 8 s before the next one.
FAILOVER_PATIENCE = 4 * PATIENCE


def kill_node(node: Server, written: dict[str, list[bytes]]) -> None:
    """Kill a node of a cluster while all write, and wait until all go on."""

    def all_go_on_from(before: dict[str, int]) -> bool:
        return all(len(mine) > before[id] + 50 for id, mine in written.items())

    wait_until(lambda: all_go_on_from(dict.fromkeys(written, 0)))
    node.kill()
    killed = {id: len(mine) for id, mine in written.items()}
    wait_until(lambda: all_go_on_from(killed), FAILOVER_PATIENCE)


class TestCluster:
    def test_conversations_spread_over_the_nodes(self, cluster: list[Server]) -> None:
        backend = get_backend("redis", cache_alias="cluster")
        ids = [new_id() for _ in range(3000)]
        for id in ids:
            backend.commit(id, Change(append=pairs(b"{}")))
        counts = []
        for node in cluster[:3]:
            with node.client() as client:
                counts.append(client.dbsize())
        assert max(counts) / min(counts) < 1.2
        assert f"{sum(counts)} keys" in backend.health().detail, "those of all nodes"
        assert f"{sum(counts)} keys" in asyncio.run(backend.ahealth()).detail
        backend.purge(Selection(everything=True))
        backend.close()

    def test_the_cache_works_with_the_same_entry(self, cluster: list[Server]) -> None:
        cache = caches["cluster"]
        cache.set("key", "value")
        assert cache.get("key") == "value"
        cache.delete("key")
        cache.close()

    def test_a_node_that_dies_under_threads_costs_other_slots_nothing(
        self, tmp_path: Path, settings: Any
    ) -> None:
        """Slots of other nodes go on; those of the dead one come back with its replica."""
        with cluster_setup(tmp_path, free_ports(6)) as nodes:
            factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
            url = f"redis://127.0.0.1:{nodes[1].port}"
            backend = on(settings, url, CONNECTION_FACTORY=factory)
            ids = [new_id() for _ in range(30)]
            written: dict[str, list[bytes]] = {id: [] for id in ids}
            stop = threading.Event()

            def write(id: str) -> None:
                while not stop.is_set():
                    message = b"%d" % len(written[id])
                    change = Change(ttl=600.0, append=pairs(message))
                    while not stop.is_set():
                        try:
                            backend.commit(id, change)
                            written[id].append(message)
                            break
                        except BackendUnavailable:
                            time.sleep(0.02)
                    time.sleep(0.01)

            def goes_on(id: str) -> bool:
                return len(written[id]) > before[id] + 5

            with ThreadPoolExecutor(30) as pool:
                writing = [pool.submit(write, id) for id in ids]
                try:
                    wait_until(lambda: all(len(written[id]) > 5 for id in ids))
                    before = {id: len(written[id]) for id in ids}
                    nodes[0].kill()
                    with Stopwatch() as watch:
                        wait_until(lambda: sum(goes_on(id) for id in ids) > 10)
                    assert watch.seconds < 1, "two thirds of the slots have nothing to do with it"
                    wait_until(
                        lambda: all(len(written[id]) > before[id] + 50 for id in ids),
                        FAILOVER_PATIENCE,
                    )
                finally:
                    stop.set()
                    nodes_gone = [future.exception(timeout=30) for future in writing]
            assert nodes_gone == [None] * 30
            for id in ids:
                stored = bodies(backend.read_messages(id, 0, 10**6))
                assert len(stored) == len(set(stored)), "none is there twice"
                # Replication is asynchronous: what the dead node alone had is gone with it.
                assert len(set(written[id]) - set(stored)) <= 2
            backend.close()

    def test_a_node_that_dies_under_tasks_loses_nothing_replicated(
        self, tmp_path: Path, settings: Any
    ) -> None:
        ids = [new_id() for _ in range(30)]
        written: dict[str, list[bytes]] = {id: [] for id in ids}

        async def write(id: str) -> None:
            while True:
                change = Change(ttl=600.0, append=pairs(b"%d" % len(written[id])))
                while True:
                    try:
                        await backend.acommit(id, change)
                        break
                    except BackendUnavailable:
                        await asyncio.sleep(0.02)
                written[id].extend(bodies(change.append))
                await asyncio.sleep(0.01)

        async def visit(node: Server) -> None:
            tasks = [asyncio.create_task(write(id)) for id in ids]
            try:
                await asyncio.to_thread(kill_node, node, written)
            finally:
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {asyncio.CancelledError}
            for id in ids:
                stored = bodies(await backend.aread_messages(id, 0, 10**6))
                assert len(stored) == len(set(stored)), "none is there twice"
                # Replication is asynchronous: what the dead node alone had is gone with it.
                assert len(set(written[id]) - set(stored)) <= 2
            await backend.aclose()

        with cluster_setup(tmp_path, free_ports(6)) as nodes:
            factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
            url = f"redis://127.0.0.1:{nodes[1].port}"
            backend = on(settings, url, CONNECTION_FACTORY=factory)
            asyncio.run(visit(nodes[0]))
            backend.close()

    def test_a_slot_moved_under_a_thread_loses_nothing(self, cluster: list[Server]) -> None:
        backend, id = get_backend("redis", cache_alias="cluster", fallback=None), new_id()
        backend.commit(id, Change(ttl=600.0, append=pairs(b"0")))
        stop, written = threading.Event(), [b"0"]

        def write() -> None:
            while not stop.is_set():
                change = Change(append=pairs(b"%d" % len(written)))
                while True:
                    try:
                        backend.commit(id, change)
                        break
                    except BackendUnavailable:
                        time.sleep(0.01)
                written.append(b"%d" % len(written))

        with Slot(cluster, id) as slot, ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                slot.move(written)
            finally:
                stop.set()
            writing.result(timeout=30)
        assert bodies(backend.read_messages(id, 0, 10**6)) == written
        assert len(written) > 10
        backend.close()

    def test_a_slot_moved_under_a_task_loses_nothing(self, cluster: list[Server]) -> None:
        backend, id, written = (
            get_backend("redis", cache_alias="cluster", fallback=None),
            new_id(),
            [b"0"],
        )

        async def write(moving: asyncio.Future[None]) -> None:
            while not moving.done():
                change = Change(append=pairs(b"%d" % len(written)))
                while True:
                    try:
                        await backend.acommit(id, change)
                        break
                    except BackendUnavailable:
                        await asyncio.sleep(0.01)
                written.append(b"%d" % len(written))

        async def visit() -> None:
            await backend.acommit(id, Change(ttl=600.0, append=pairs(b"0")))
            with Slot(cluster, id) as slot:
                moving = asyncio.ensure_future(asyncio.to_thread(slot.move, written))
                await write(moving)
                await moving
            assert bodies(await backend.aread_messages(id, 0, 10**6)) == written
            assert len(written) > 10
            await backend.aclose()

        asyncio.run(visit())
        backend.close()

    def test_a_conversation_in_a_half_moved_slot_is_unavailable_and_others_are_listed(
        self, cluster: list[Server], caplog: pytest.LogCaptureFixture
    ) -> None:
        """What is in it is said to be on its way, and the others are listed."""
        backend, owner = get_backend("redis", cache_alias="cluster", fallback=None), new_id()
        ids = [new_id() for _ in range(20)]
        for id in ids:
            backend.commit(id, Change(ttl=600.0, owner=owner, append=pairs(b"{}")))
        with Slot(cluster, ids[0]) as slot:
            slot.begin()
            slot.migrate(1)
            with pytest.raises(BackendUnavailable, match="moving") as caught:
                backend.load(ids[0], 1)
            assert caught.value.transient
            assert {each.id for each in backend.scan(owner)} == set(ids[1:])
            assert "being moved" in caplog.text
            assert backend.purge(Selection(owner=owner), dry_run=True).examined == 19
            slot.migrate(100)
            slot.end()
        assert {each.id for each in backend.scan(owner)} == set(ids), "nothing was forgotten"
        assert backend.purge(Selection(owner=owner)).deleted == 20
        backend.close()

    def test_a_listing_by_a_half_moved_index_is_unavailable(self, cluster: list[Server]) -> None:
        """It says neither that there are no conversations, nor leaves some of them out."""
        backend, owner = get_backend("redis", cache_alias="cluster", fallback=None), new_id()
        ids = [new_id() for _ in range(5)]
        for id in ids:
            backend.commit(id, Change(ttl=600.0, owner=owner, append=pairs(b"{}")))
        with Slot(cluster, index_of(owner)) as slot:
            slot.begin()
            assert {each.id for each in backend.scan(owner)} == set(ids)
            slot.migrate(1)
            with pytest.raises(BackendUnavailable, match="moving") as caught:
                list(backend.scan(owner, limit=3))
            assert caught.value.transient
            slot.migrate(100)
            slot.end()
        assert {each.id for each in backend.scan(owner)} == set(ids)
        assert backend.purge(Selection(owner=owner)).deleted == 5
        backend.close()


class Slot:
    """The slot of a conversation, to be moved to the next node."""

    def __init__(self, cluster: list[Server], id: str) -> None:
        self._clients = [node.client() for node in cluster[:3]]
        self._ids = [c.execute_command("CLUSTER", "MYID").decode() for c in self._clients]
        self._number = self._clients[0].execute_command("CLUSTER", "KEYSLOT", id)
        counts = [
            c.execute_command("CLUSTER", "COUNTKEYSINSLOT", self._number) for c in self._clients
        ]
        self._from = next(n for n, count in enumerate(counts) if count)
        self._to = (self._from + 1) % 3
        self._port = cluster[self._to].port

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._clients:
            client.close()

    def move(self, written: list[bytes]) -> None:
        """Move it while something is written to it, before and after, and perhaps meanwhile."""
        wait_until(lambda: len(written) > 5)
        self.begin()
        time.sleep(0.1)
        self.migrate(100)
        time.sleep(0.1)
        self.end()
        moved = len(written)
        wait_until(lambda: len(written) > moved + 5)

    def begin(self) -> None:
        self._set(self._to, "IMPORTING", self._ids[self._from])
        self._set(self._from, "MIGRATING", self._ids[self._to])

    def migrate(self, count: int) -> None:
        source = self._clients[self._from]
        keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", self._number, count)
        source.execute_command("MIGRATE", "127.0.0.1", self._port, "", 0, 5000, "KEYS", *keys)

    def end(self) -> None:
        for node in (self._to, self._from, 3 - self._from - self._to):
            self._set(node, "NODE", self._ids[self._to])

    def _set(self, node: int, *words: str) -> None:
        self._clients[node].execute_command("CLUSTER", "SETSLOT", self._number, *words)
