"""What becomes of a conversation when a real server says no: in words, without the password, and
without asking again and again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis import RedisError

from django_convstate import BackendUnavailable
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.diagnostics.checks import check_server
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.servers import Server, free_ports, running, wait_until

# Where any password will do, so that it is there to be given away.
PASSWORD = "hunter2"

CLUSTER = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


def scripts_run(server: Server) -> int:
    """Return how many of our scripts have reached the server, run or rejected."""
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(
        stats[name]["calls"] + stats[name]["rejected_calls"]
        for name in ("cmdstat_evalsha", "cmdstat_eval")
        if name in stats
    )


def assert_refused(backend: RedisBackend, server: Server, use: Any, words: str) -> None:
    """Check that `use` and health() say why, once, and keep the password to themselves."""
    before = scripts_run(server)
    with pytest.raises(BackendUnavailable, match=words) as caught:
        use()
    assert scripts_run(server) - before <= 1, "no is no: it is not tried again"
    health = backend.health()
    assert not health.connected
    assert words in health.detail
    assert words in asyncio.run(backend.ahealth()).detail
    assert PASSWORD not in f"{caught.value} {caught.value.__cause__} {health}"


async def assert_refused_async(backend: RedisBackend, server: Server, id: str, words: str) -> None:
    before = scripts_run(server)
    with pytest.raises(BackendUnavailable, match=words) as caught:
        await backend.acommit(id, Change(append=pairs(b"{}")))
    assert scripts_run(server) - before <= 1
    assert PASSWORD not in f"{caught.value} {caught.value.__cause__}"
    assert await backend.aload(id, 1) is not None


def assert_reads_go_on(backend: RedisBackend, server: Server, id: str, words: str) -> None:
    assert_refused(backend, server, lambda: backend.commit(id, Change(append=pairs(b"{}"))), words)
    assert backend.load(id, 1) is not None
    assert backend.exists(id)
    assert bodies(backend.read_messages(id, 0, 10)) == [b"{}"]
    asyncio.run(assert_refused_async(backend, server, id, words))


class TestWritesRefused:
    @pytest.mark.parametrize(
        ("breaks", "mends", "words"),
        [
            (
                lambda c: c.config_set("maxmemory", 1),
                lambda c: c.config_set("maxmemory", 0),
                "out of memory",
            ),
            (lambda c: c.replicaof("127.0.0.1", 1), lambda c: c.replicaof("NO", "ONE"), "replica"),
            (
                lambda c: c.config_set("min-replicas-to-write", 1),
                lambda c: c.config_set("min-replicas-to-write", 0),
                "replicas",
            ),
        ],
        ids=["OOM", "READONLY", "NOREPLICAS"],
    )
    def test_reads_go_on_while_writes_are_refused(
        self, settings: Any, server: Server, breaks: Any, mends: Any, words: str
    ) -> None:
        backend, id = on(settings, url(server), PASSWORD=PASSWORD), new_id()
        backend.commit(id, Change(append=pairs(b"{}")))
        assert backend.load(id, 1) is not None
        assert backend.health().connected
        with server.client() as client:
            breaks(client)
            assert_reads_go_on(backend, server, id, words)
            mends(client)
        backend.commit(id, Change(append=pairs(b"{}")))
        assert len(backend.read_messages(id, 0, 10)) == 2
        assert backend.health().connected
        backend.close()

    @pytest.mark.parametrize(
        ("breaks", "mends", "words"),
        [
            (
                lambda c: c.config_set("maxmemory", 1),
                lambda c: c.config_set("maxmemory", 0),
                "out of memory",
            ),
            (lambda c: c.replicaof("127.0.0.1", 1), lambda c: c.replicaof("NO", "ONE"), "replica"),
            (
                lambda c: c.config_set("min-replicas-to-write", 1),
                lambda c: c.config_set("min-replicas-to-write", 0),
                "replicas",
            ),
        ],
        ids=["OOM", "READONLY", "NOREPLICAS"],
    )
    def test_increments_report_refused_writes_and_change_nothing(
        self, settings: Any, server: Server, breaks: Any, mends: Any, words: str
    ) -> None:
        backend, id = on(settings, url(server)), new_id()
        backend.commit(id, Change(set={"n": b"5", "m": b"1"}, append=pairs(b"{}")))
        with server.client() as client:
            breaks(client)
            for increment in ({"n": 1}, {"new": 1}, {"new": 1, "n": 1}):
                for also in ({}, {"a": b"1"}, {"n": b"7"}):
                    change = Change(increment=increment, set=also, append=pairs(b"{}"))
                    with pytest.raises(BackendUnavailable, match=words):
                        backend.commit(id, change)
            for change in (Change(append=pairs(b"{}")), Change(increment={"n": 1})):
                with pytest.raises(BackendUnavailable, match=words):
                    backend.commit("new", change)
            mends(client)
        record = backend.load(id, 5)
        assert record is not None
        assert (record.version, record.state) == (1, {"n": b"5", "m": b"1"})
        assert bodies(record.messages) == [b"{}"]
        assert not backend.exists("new")
        backend.close()

    def test_reads_go_on_where_snapshots_fail(self, settings: Any, tmp_path: Path) -> None:
        snapshots = tmp_path / "snapshots"
        snapshots.mkdir()
        server = Server(
            tmp_path, free_ports(1)[0], "--save", "3600 1000000", "--dir", str(snapshots)
        )
        with running([server]), server.client() as client:
            backend, id = on(settings, url(server), PASSWORD=PASSWORD), new_id()
            backend.commit(id, Change(append=pairs(b"{}")))
            assert backend.load(id, 1) is not None
            snapshots.rmdir()
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            assert_reads_go_on(backend, server, id, "MISCONF")
            client.config_set("stop-writes-on-bgsave-error", "no")
            backend.commit(id, Change(append=pairs(b"{}")))
            assert len(backend.read_messages(id, 0, 10)) == 2
            backend.close()


def test_a_server_that_loads_its_data_is_unavailable(settings: Any, tmp_path: Path) -> None:
    """Until the data set is there nothing can be told, and nothing is said to be absent."""
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    server = Server(tmp_path, free_ports(1)[0], *slow)
    with running([server]), server.client() as client:
        backend, id = on(settings, url(server), PASSWORD=PASSWORD), new_id()
        backend.commit(id, Change(append=pairs(b"{}")))
        with client.pipeline(transaction=False) as pipe:
            for number in range(30_000):
                pipe.set(f"key{number}", "x" * 100)
            pipe.execute()
        client.save()
        server.kill()
        server.launch()

        def is_loading() -> bool:
            try:
                return bool(client.info("persistence")["loading"])
            except RedisError:
                return False

        wait_until(is_loading)
        assert_refused(backend, server, lambda: backend.load(id, 1), "LOADING")
        change = Change(append=pairs(b"{}"))
        assert_refused(backend, server, lambda: backend.commit(id, change), "LOADING")
        client.config_set("key-load-delay", 0)
        wait_until(server.answers)
        backend.commit(id, change)
        assert bodies(backend.read_messages(id, 0, 10)) == [b"{}", b"{}"]
        backend.close()


def test_a_single_server_in_place_of_a_cluster_is_explained(settings: Any, server: Server) -> None:
    backend = on(
        settings,
        f"redis://127.0.0.1:{server.port}",
        CONNECTION_FACTORY=CLUSTER,
    )
    assert_says(backend, "is no cluster")


def test_a_cluster_node_in_place_of_a_single_server_is_explained(
    settings: Any, cluster: list[Server]
) -> None:
    backend = on(settings, f"redis://127.0.0.1:{cluster[0].port}/0")
    with cluster[0].client() as client:
        ids = (new_id() for _ in range(10_000))
        elsewhere = next(i for i in ids if client.cluster("KEYSLOT", i) > 5460)
    assert_says(backend, "CONNECTION_FACTORY", elsewhere)
    assert "convstate.E017" in [message.id for message in check_server("own")]


def test_a_service_unknown_to_sentinel_is_explained(settings: Any, sentinel: list[Server]) -> None:
    backend = on(settings, "redis://nosuch/0", SENTINELS=[("127.0.0.1", sentinel[2].port)])
    assert_says(backend, "no primary of the service")


def test_a_missing_database_is_explained(settings: Any, server: Server) -> None:
    assert_says(on(settings, f"redis://127.0.0.1:{server.port}/99"), "no database")


def assert_says(backend: RedisBackend, words: str, id: str = "a") -> None:
    async def load() -> None:
        try:
            await backend.aload(id, 1)
        finally:
            await backend.aclose()

    with pytest.raises(BackendUnavailable, match=words) as caught:
        backend.load(id, 1)
    assert "right" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match=words):
        asyncio.run(load())
    backend.close()


async def test_peek_works_without_evalsha_ro(settings: Any, tmp_path: Path) -> None:
    """Redis 6.2 does not have them."""
    server = Server(tmp_path, free_ports(1)[0], "--rename-command", "EVALSHA_RO", "")
    with running([server]):
        backend = on(settings, url(server))
        try:
            backend.commit("a", Change(append=pairs(b"{}")))
            for record in (backend.peek("a", 1), await backend.apeek("a", 1)):
                assert record is not None
                assert bodies(record.messages) == [b"{}"]
            assert backend.peek("b", 1) is None
        finally:
            backend.close()
            await backend.aclose()


def test_too_many_clients_is_explained(settings: Any, server: Server) -> None:
    backend = on(settings, url(server))
    with server.client() as client:
        client.config_set("maxclients", 1)
        with pytest.raises(BackendUnavailable, match="maxclients"):
            backend.load("a", 1)
    backend.close()
