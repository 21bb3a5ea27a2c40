"""Many processes write into the same conversations while their server is killed, frozen and cut off
again and again, and while slots are moved in a cluster."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from django_convstate import ConversationStore
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.exceptions import BackendUnavailable
from django_convstate.ids import new_id
from tests.chaos.proxy import Proxy
from tests.chaos.storm import Damage, Found, Notes
from tests.chaos.world import World
from tests.support.servers import Server, cluster_setup, free_ports, wait_until

ROOT = Path(__file__).parents[2]
PROCESSES = 4
WRITES = 20_000
CONVERSATIONS = 24
LIMIT = 600  # seconds for all writes
READ_PATIENCE = 60  # seconds for one conversation to be read afterwards
SYNCED = ("--appendonly", "yes", "--appendfsync", "always")

pytestmark = pytest.mark.chaos


class Faults:
    """What happens to a server, and to the proxy before it."""

    def __init__(
        self,
        server: Server,
        proxy: Proxy,
        chance: random.Random,
        may_be_killed: AbstractContextManager[Any],
    ) -> None:
        self._server, self._proxy, self._chance = server, proxy, chance
        self._may_be_killed = may_be_killed

    def kill(self) -> None:
        with self._may_be_killed:
            self._server.kill()
            time.sleep(self._chance.uniform(0, 1))
            self._server.start()

    def freeze(self) -> None:
        self._server.freeze()
        time.sleep(self._chance.uniform(0.05, 1))
        self._server.thaw()

    def cut(self) -> None:
        self._proxy.reset()

    def kill_clients(self) -> None:
        self._tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def lose_replies(self) -> None:
        for _ in range(self._chance.randint(1, 5)):
            self._proxy.truncate_next_reply(self._chance.choice([0, 0, 3]))
            time.sleep(0.02)

    def lose_one_direction(self) -> None:
        fault = self._chance.choice(["mute", "deaf"])
        setattr(self._proxy, fault, True)
        time.sleep(self._chance.uniform(0.05, 0.6))
        setattr(self._proxy, fault, False)

    def forget_scripts(self) -> None:
        self._tell("SCRIPT", "FLUSH")

    def all(self) -> list[Callable[[], None]]:
        """Return them, as often as they are to come."""
        rare = [self.kill, self.freeze, self.lose_one_direction]
        return [*rare, *[self.cut, self.kill_clients, self.lose_replies, self.forget_scripts] * 3]

    def _tell(self, *command: str) -> None:
        with self._server.client() as client:
            client.execute_command(*command)


class Storm:
    """Workers that write, and faults meanwhile."""

    def __init__(self, world: World, directory: Path, ids: Sequence[str], seed: int) -> None:
        self.world, self.ids, self.chance = world, ids, random.Random(seed)
        self._directory, self._seed = directory, seed
        self.faults = 0

    def run(self, faults: Sequence[Callable[[], None]], end: Callable[[], None]) -> Notes:
        """Let the faults happen until the workers have written enough, and call `end`. Return what
        they have noted when everything is replayed."""
        began = time.monotonic()
        with self._workers() as process:
            while not self._are_done():
                assert process.poll() is None, "a worker has failed"
                assert time.monotonic() < began + LIMIT, "too slow"
                self.chance.choice(faults)()
                self.faults += 1
                time.sleep(self.chance.uniform(0.05, 0.6))
            end()
            seconds = time.monotonic() - began
            (self._directory / "stop").touch()
            assert process.wait(90) == 0
        notes = Notes.read(self._directory)
        reports = [json.loads(file.read_text()) for file in self._directory.glob("report-*")]
        totals = {name: sum(each[name] for each in reports) for name in reports[0]}
        self.world.note(
            f"{notes.count} writes acknowledged, {notes.outcomes['degraded']} of them degraded, "
            f"in {seconds:.0f} s, and {time.monotonic() - began - seconds:.0f} s more to replay; "
            f"{self.faults} faults; {dict(notes.outcomes)}; {dict(notes.kinds)}; {totals}"
        )
        assert len(reports) == PROCESSES
        assert totals["pending"] == totals["failed"] == totals["lost"] == 0
        assert notes.count >= WRITES
        return notes

    def check(self, notes: Notes, clients: Sequence[Any]) -> None:
        damage = Damage()
        for client in clients:
            for key in client.scan_iter(count=1000):
                damage.without_ttl += client.pttl(key) == -1
        backend = RedisBackend(cache_alias=self.world.alias)
        store = ConversationStore(backend)
        for id in self.ids:
            damage.look_at(id, _found(store, id), notes)
        backend.close()
        self.world.note(str(damage))
        assert damage == Damage()

    def _are_done(self) -> bool:
        return len(list(self._directory.glob("done-*"))) == PROCESSES

    @contextmanager
    def _workers(self) -> Iterator[subprocess.Popen[bytes]]:
        self._directory.mkdir()
        (self._directory / "ids").write_text("\n".join(self.ids))
        cache = json.dumps(self.world.settings.CACHES[self.world.alias])
        command = [sys.executable, "-m", "tests.chaos.storm", cache, str(self._directory)]
        command += [str(PROCESSES), str(WRITES), str(self._seed)]
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:  # it has failed: end the workers, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _found(store: ConversationStore, id: str) -> Found:
    """Return what is stored, however often a busy machine does not answer in time."""
    give_up = time.monotonic() + READ_PATIENCE
    while True:
        try:
            conversation = store.get(id)
            return Found.of(id, dict(conversation), conversation.messages.all())
        except BackendUnavailable:
            if time.monotonic() > give_up:
                raise


@pytest.mark.parametrize("seed", range(5))
def test_a_storm_loses_nothing(world: World, tmp_path: Path, seed: int) -> None:
    world.server.kill()
    world.server.config += SYNCED
    world.restart()
    storm = Storm(world, tmp_path / "storm", [new_id() for _ in range(CONVERSATIONS)], seed)
    faults = Faults(world.server, world.proxy, storm.chance, nullcontext())
    notes = storm.run(faults.all(), world.proxy.calm)
    with world.server.client() as client:
        storm.check(notes, [client])
    world.check()


class Mover:
    """Moves slots between the primaries of a cluster, one after the other, in a thread.

    `at_rest` is held while one is moved.
    """

    def __init__(self, nodes: Sequence[Server], slots: Sequence[int], seed: int) -> None:
        self._nodes, self._slots, self._chance = nodes, slots, random.Random(seed)
        self._ids: dict[int, str] = {}
        for node in nodes:
            with node.client() as client:
                self._ids[node.port] = client.execute_command("CLUSTER", "MYID").decode()
        self.at_rest = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="chaos-mover")
        self.moved = self.moved_at_once = 0

    def start(self) -> None:
        self._done = self._pool.submit(self._run)

    def stop(self) -> None:
        self._stopped.set()
        self._pool.shutdown()
        self._done.result()

    def _run(self) -> None:
        while not self._stopped.wait(self._chance.uniform(0, 0.5)):
            with self.at_rest:
                slot = self._chance.choice(self._slots)
                source = self._node_of(slot)
                target = self._chance.choice([node for node in self._nodes if node is not source])
                self._chance.choice([self._move_by_keys, self._move_at_once])(slot, source, target)

    def _move_by_keys(self, slot: int, source: Server, target: Server) -> None:
        """Move one key after the other, as `redis-cli --cluster reshard` does: meanwhile a
        conversation is on two nodes."""
        here, there = self._ids[source.port], self._ids[target.port]
        self._tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        self._tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        migrate = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS")
        while keys := self._tell(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            self._tell(source, *migrate, *keys)
            time.sleep(self._chance.uniform(0, 0.05))
        for node in (target, source):
            self._tell(node, "CLUSTER", "SETSLOT", slot, "NODE", there)
        self.moved += 1

    def _move_at_once(self, slot: int, source: Server, target: Server) -> None:
        """Let the servers do it, as Valkey 9 can."""
        slots = ("SLOTSRANGE", slot, slot, "NODE", self._ids[target.port])
        try:
            with source.client() as client:
                client.execute_command("CLUSTER", "MIGRATESLOTS", *slots)
        except redis.RedisError:
            return  # not now, or perhaps it has begun
        wait_until(lambda: not self._is_moving(source))
        self.moved_at_once += self._node_of(slot) is target

    def _is_moving(self, node: Server) -> bool:
        states = [job[b"state"] for job in self._tell(node, "CLUSTER", "GETSLOTMIGRATIONS")]
        return any(state not in (b"success", b"failed", b"cancelled") for state in states)

    def _tell(self, node: Server, *command: Any) -> Any:
        """Send a command until it is answered: connections are cut, and nodes are frozen."""
        answers: list[Any] = []

        def is_answered() -> bool:
            try:
                with redis.Redis(port=node.port, protocol=3, socket_timeout=20) as client:
                    answers.append(client.execute_command(*command))
            except redis.RedisError:
                return False
            return True

        wait_until(is_answered)
        return answers[0]

    def _node_of(self, slot: int) -> Server:
        """Return who serves a slot, when all agree."""
        owners: list[Server] = []

        def is_agreed() -> bool:
            owners[:] = [node for node in self._nodes if self._serves(node, slot)]
            return len(owners) == 1

        wait_until(is_agreed)
        return owners[0]

    def _serves(self, node: Server, slot: int) -> bool:
        known = self._tell(node, "CLUSTER NODES").values()
        (own,) = (each["slots"] for each in known if "myself" in each["flags"])
        return any(int(slots[0]) <= slot <= int(slots[-1]) for slots in own)


@pytest.mark.parametrize("seed", range(5))
def test_a_storm_on_a_cluster_loses_nothing(world: World, tmp_path: Path, seed: int) -> None:
    """Slots are moved meanwhile, in both ways that there are.

    A node that is killed comes back with its data. None is replaced by a replica: replication is
    asynchronous, and what a dead primary alone had is gone with it, whatever its clients do. And
    none is killed while a slot is moved: to complete that is for an operator then.
    """
    with ExitStack() as stack:
        ports = free_ports(3)
        proxies = [stack.enter_context(Proxy(port)) for port in ports]
        config = (*SYNCED, "--cluster-require-full-coverage", "no")
        announced = [proxy.port for proxy in proxies]
        nodes = stack.enter_context(
            cluster_setup(tmp_path, ports, 2000, *config, announced=announced)
        )
        factory = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
        world.point_at(f"redis://127.0.0.1:{announced[0]}", CONNECTION_FACTORY=factory)
        storm = Storm(world, tmp_path / "storm", [new_id() for _ in range(CONVERSATIONS)], seed)
        mover = Mover(nodes, [key_slot(id.encode()) for id in storm.ids], seed)
        mover.start()

        def end() -> None:
            mover.stop()
            for proxy in proxies:
                proxy.calm()

        faults = [
            fault
            for node, proxy in zip(nodes, proxies, strict=True)
            for fault in Faults(node, proxy, storm.chance, mover.at_rest).all()
        ]
        try:
            notes = storm.run(faults, end)
        finally:
            mover.stop()
        world.note(f"{mover.moved} slots moved key by key, {mover.moved_at_once} at once")
        storm.check(notes, [stack.enter_context(node.client()) for node in nodes])
    world.point_at(world.url)
    world.check()
