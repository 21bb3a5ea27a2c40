"""Of several servers one dies, and another takes its place."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from django_convstate import ConversationStore
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.exceptions import BackendUnavailable
from django_convstate.ids import new_id
from tests.chaos.crowd import Crowd, Writer
from tests.chaos.world import World
from tests.support.servers import (
    SERVICE,
    Server,
    cluster_setup,
    free_ports,
    sentinel_setup,
    wait_until,
)

DOWN_AFTER = 1.0  # as in tests/support/servers.py
NODE_TIMEOUT = 2.0

pytestmark = pytest.mark.chaos


def kill_in_step(server: Server) -> float:
    """Kill a primary when its replica has everything, and return when that was.

    Replication is asynchronous: what a dead primary alone had is gone, whatever its clients do.
    """
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        client.wait(1, 1000)
    server.kill()
    return time.monotonic()


def is_primary(server: Server) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


def on_sentinel(world: World, sentinel: Server) -> None:
    world.point_at(
        f"redis://{SERVICE}/0",
        CLIENT_CLASS="django_redis.client.SentinelClient",
        CONNECTION_FACTORY="django_redis.pool.SentinelConnectionFactory",
        SENTINELS=[("127.0.0.1", sentinel.port)],
    )


def on_cluster(world: World, nodes: list[Server]) -> None:
    for node in nodes:
        with node.client() as client:
            # Else the whole cluster refuses everything until the replica has taken over.
            client.config_set("cluster-require-full-coverage", "no")
    factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
    world.point_at(f"redis://127.0.0.1:{nodes[1].port}", CONNECTION_FACTORY=factory)
    world.client = lambda: redis.RedisCluster(host="127.0.0.1", port=nodes[1].port)


def test_a_sentinel_failover_refuses_nothing(world: World, tmp_path: Path) -> None:
    with sentinel_setup(tmp_path, free_ports(3)) as (primary, replica, sentinel):
        on_sentinel(world, sentinel)
        world.client = replica.client
        with Crowd(world):
            time.sleep(1)
            killed = kill_in_step(primary)
            wait_until(lambda: is_primary(replica))
            world.note(f"a new primary after {time.monotonic() - killed:.2f} s")
            home = world.settle()
            world.note(f"all home after {home - killed:.2f} s")
            time.sleep(0.5)
        assert world.model.refused == 0
        world.check()


def test_the_gap_of_a_sentinel_failover_without_fallback_is_short(
    world: World, tmp_path: Path
) -> None:
    """How long BackendUnavailable reaches the caller, where there is nothing to fall back to."""
    with sentinel_setup(tmp_path, free_ports(3)) as (primary, replica, sentinel):
        on_sentinel(world, sentinel)
        backend = RedisBackend(cache_alias=world.alias)
        gap, _ = gap_of(world, backend, new_id(), primary, replica)
        assert gap <= DOWN_AFTER + 2
        backend.close()


def test_the_gap_of_a_cluster_failover_without_fallback_is_short(
    world: World, tmp_path: Path
) -> None:
    with cluster_setup(tmp_path, free_ports(6)) as nodes:
        on_cluster(world, nodes)
        backend = RedisBackend(cache_alias=world.alias)
        stricken, _ = ids_by_node(backend, nodes[0])
        gap, until_promoted = gap_of(world, backend, stricken[0], nodes[0], nodes[3])
        # The servers alone take NODE_TIMEOUT and 1 to 2 s; what we add to it is ours to answer for.
        assert gap - until_promoted <= 1
        backend.close()


def gap_of(
    world: World, backend: RedisBackend, id: str, primary: Server, replica: Server
) -> tuple[float, float]:
    """Kill the primary, and return for how many seconds a commit fails, and after how many the
    replica had taken over."""
    backend.commit(id, Change(ttl=60.0))
    killed, back = kill_in_step(primary), [0.0]

    def commits() -> bool:
        try:
            backend.commit(id, Change(set={"a": b"1"}))
        except BackendUnavailable:
            return False
        back[0] = time.monotonic()
        return True

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(wait_until, commits)
        wait_until(lambda: is_primary(replica))
        promoted = time.monotonic()
        done.result()
    world.note(f"gap of {back[0] - killed:.2f} s, promoted after {promoted - killed:.2f} s")
    return back[0] - killed, promoted - killed


# The client forgets the connections to a node that is no more, and leaves them to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_cluster_node_degrades_its_own_slots_only(world: World, tmp_path: Path) -> None:
    with cluster_setup(tmp_path, free_ports(6)) as nodes:
        on_cluster(world, nodes)
        backend = world.backend()
        store = ConversationStore(backend)
        stricken, others = ids_by_node(backend, nodes[0])
        writers = [Writer(world, store, n, [id]) for n, id in enumerate(stricken + others)]
        until = [time.monotonic() + 600]

        def talk(writer: Writer) -> None:
            while time.monotonic() < until[0]:
                writer.turn()
                time.sleep(0.02)

        with world.ruler() as ruler, ThreadPoolExecutor(len(writers)) as pool:
            done = [pool.submit(talk, writer) for writer in writers]
            try:
                time.sleep(1)
                killed = kill_in_step(nodes[0])
                wait_until(lambda: is_primary(nodes[3]))
                world.note(f"the replica is primary after {time.monotonic() - killed:.2f} s")
                home = world.settle()
                world.note(f"all home after {home - killed:.2f} s")
                time.sleep(0.5)
            finally:
                until[0] = 0
        for future in done:
            future.result()
        assert world.slowest(ruler) <= world.limit
        assert not set(world.model.degraded) & set(others), "other slots have nothing to do with it"
        assert set(world.model.degraded) == set(stricken)
        assert world.model.refused == 0
        world.check()


def ids_by_node(backend: ConversationStateBackend, node: Server) -> tuple[list[str], list[str]]:
    """Return three ids in slots of that node, and six in those of others."""
    backend.exists(new_id())  # so that it knows the nodes
    stricken, others = list[str](), list[str]()
    while len(stricken) < 3 or len(others) < 6:
        id = new_id()
        (stricken if str(backend.shard_of(id)).endswith(f":{node.port}") else others).append(id)
    return stricken[:3], others[:6]
