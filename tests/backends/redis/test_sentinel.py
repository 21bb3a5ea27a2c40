"""The redis backend with Sentinel: the primary dies while all write."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from django_convstate import BackendUnavailable
from django_convstate.backends.records import Change
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.servers import (
    SERVICE,
    Server,
    free_ports,
    sentinel_setup,
    wait_until,
)


def by(sentinel: Server) -> dict[str, Any]:
    """The entry of CACHES, less what all of them have."""
    return {
        "url": f"redis://{SERVICE}/0",
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("127.0.0.1", sentinel.port)],
    }


def changes(writer: int) -> Iterator[Change]:
    for number in count():
        yield Change(ttl=600.0, append=pairs(b"[%d,%d]" % (writer, number)))


def fail_over(primary: Server, acknowledged: list[list[bytes]]) -> tuple[list[int], list[int]]:
    """Kill the primary while all write, and wait until each has written to the one that follows.

    Returns:
        For each writer how many messages the replica was known to have, and how many were
        acknowledged when the primary was dead.
    """

    def counts() -> list[int]:
        return [len(mine) for mine in acknowledged]

    def goes_on_from(before: list[int]) -> bool:
        return all(now > then + 20 for now, then in zip(counts(), before, strict=True))

    wait_until(lambda: goes_on_from([0] * len(acknowledged)))
    safe = counts()
    with primary.client() as client:
        client.set("marker", 1)  # behind all that is safe
        assert client.wait(1, 5000) == 1
    primary.kill()
    killed = counts()
    wait_until(lambda: goes_on_from(killed))
    return safe, killed


def assert_kept(
    stored: list[bytes], acknowledged: list[list[bytes]], safe: list[int], killed: list[int]
) -> None:
    """Check that all is there that the replica had, and all that was acknowledged after it took
    over. Replication is asynchronous: what the dead primary alone had is gone with it."""
    assert len(stored) == len(set(stored)), "none is there twice"
    for writer, mine in enumerate(acknowledged):
        here = [message for message in stored if message.startswith(b"[%d," % writer)]
        numbers = [orjson.loads(message)[1] for message in here]
        assert numbers == sorted(numbers), "in its writer's order"
        # One more, which the primary acknowledged at its end.
        risky = mine[safe[writer] : killed[writer] + 1]
        assert set(mine) - set(here) <= set(risky)


class TestSentinel:
    def test_a_failover_under_threads_keeps_what_was_replicated(
        self, tmp_path: Path, settings: Any
    ) -> None:
        id, stop = new_id(), threading.Event()
        acknowledged: list[list[bytes]] = [[] for _ in range(6)]

        def write(writer: int) -> None:
            for change in changes(writer):
                while not stop.is_set():
                    try:
                        backend.commit(id, change)
                        acknowledged[writer].extend(bodies(change.append))
                        break
                    except BackendUnavailable:
                        time.sleep(0.02)
                if stop.is_set():
                    return

        with sentinel_setup(tmp_path, free_ports(3)) as (primary, _, sentinel):
            backend = on(settings, **by(sentinel))
            with ThreadPoolExecutor(len(acknowledged)) as pool:
                writing = [pool.submit(write, writer) for writer in range(len(acknowledged))]
                try:
                    safe, killed = fail_over(primary, acknowledged)
                finally:
                    stop.set()
                for future in writing:
                    future.result(timeout=30)
            assert_kept(bodies(backend.read_messages(id, 0, 10**6)), acknowledged, safe, killed)
            backend.close()

    def test_a_failover_under_tasks_keeps_what_was_replicated(
        self, tmp_path: Path, settings: Any
    ) -> None:
        id = new_id()
        acknowledged: list[list[bytes]] = [[] for _ in range(20)]

        async def write(writer: int) -> None:
            for change in changes(writer):
                while True:
                    try:
                        await backend.acommit(id, change)
                        break
                    except BackendUnavailable:
                        await asyncio.sleep(0.02)
                acknowledged[writer].extend(bodies(change.append))
                await asyncio.sleep(0.01)

        async def visit(primary: Server) -> None:
            tasks = [asyncio.create_task(write(writer)) for writer in range(len(acknowledged))]
            try:
                safe, killed = await asyncio.to_thread(fail_over, primary, acknowledged)
            finally:
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {asyncio.CancelledError}
            assert_kept(
                bodies(await backend.aread_messages(id, 0, 10**6)), acknowledged, safe, killed
            )
            await backend.aclose()

        with sentinel_setup(tmp_path, free_ports(3)) as (primary, _, sentinel):
            backend = on(settings, **by(sentinel))
            asyncio.run(visit(primary))
            backend.close()

    def test_the_password_of_a_url_is_used_for_the_primary(
        self, settings: Any, tmp_path: Path
    ) -> None:
        with sentinel_setup(tmp_path, free_ports(3)) as (primary, _, sentinel):
            with primary.client() as client:
                client.execute_command("ACL", "SETUSER", "chat", "on", ">p@ss", "~*", "+@all")
            sentinels = [("127.0.0.1", sentinel.port)]
            backend = on(settings, f"redis://chat:p%40ss@{SERVICE}/0", SENTINELS=sentinels)
            assert backend.exists("a") is False
            assert asyncio.run(backend.aexists("a")) is False
            backend.close()
            # With TLS it does not go out in plain text, which this server would understand.
            url = f"rediss://chat:p%40ss@{SERVICE}/0"
            backend = on(settings, url, within=0.25, SENTINELS=sentinels)
            with pytest.raises(BackendUnavailable):
                backend.exists("a")
            with pytest.raises(BackendUnavailable):
                asyncio.run(backend.aexists("a"))
            backend.close()
