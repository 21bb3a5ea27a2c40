"""Listing and purging many conversations, on one server and on a cluster, while they live on."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_convstate import BackendUnavailable
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.support.messages import pairs
from tests.support.places import on
from tests.support.redis import raw
from tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("valkey")


def make_idle(backend: RedisBackend, ids: list[str]) -> None:
    """Have the conversations been idle for a minute."""
    client = raw(backend.cache_alias)
    for id in ids:
        client.hincrby(f"many:{{{id}}}:meta", "a", -60_000)


class TestListing:
    """Of many conversations, on one server and on a cluster."""

    @pytest.fixture(params=["django_redis", "cluster"])
    def many(self, request: pytest.FixtureRequest) -> Iterator[RedisBackend]:
        if request.param == "cluster":
            request.getfixturevalue("cluster")
        backend = RedisBackend(cache_alias=request.param, key_prefix="many")
        yield backend
        backend.purge(Selection(everything=True))
        backend.close()

    def test_conversations_of_an_owner_come_newest_first(self, many: RedisBackend) -> None:
        ids = [new_id() for _ in range(1200)]
        for id in ids:
            many.commit(id, Change(owner="u1", append=pairs(b"{}")))
        time.sleep(0.01)
        for id in ids[:10]:
            many.commit(id, Change(append=pairs(b"{}")))
            time.sleep(0.002)
        found = [summary.id for summary in many.scan("u1")]
        assert found[:10] == ids[9::-1]
        assert sorted(found) == sorted(ids)

    def test_a_purge_reports_progress_and_deletes(self, many: RedisBackend) -> None:
        for number in range(1200):
            many.commit(f"c{number}", Change(owner=f"u{number % 3}", append=pairs(b"{}")))
        told: list[int] = []
        report = many.purge(
            Selection(owner="u0"),
            dry_run=True,
            batch_size=150,
            progress=lambda done, _: told.append(done),
        )
        assert (report.examined, report.deleted, report.dry_run) == (400, 400, True)
        assert told == [150, 300, 400]
        assert many.purge(Selection(owner="u0")).deleted == 400
        assert list(many.scan("u0")) == []
        assert many.purge(Selection(idle_for=60.0)).deleted == 0
        report = many.purge(Selection(everything=True))
        assert (report.examined, report.deleted) == (800, 800)
        assert list(many.scan()) == []
        assert list(many.scan("u1")) == []

    def test_listing_and_purge_load_scripts_that_servers_forgot(
        self, cluster: list[Server], many: RedisBackend
    ) -> None:
        for number in range(50):
            many.commit(f"c{number}", Change(append=pairs(b"{}")))
        for node in cluster[:3]:
            with node.client() as client:
                client.script_flush()
        raw("django_redis").script_flush()
        assert len(list(many.scan())) == 50
        assert many.purge(Selection(everything=True)).deleted == 50

    def test_a_conversation_loaded_during_a_purge_of_idle_ones_survives(
        self, many: RedisBackend
    ) -> None:
        """It was idle when the purge came to its batch, and is visited before it is deleted."""
        ids = [f"c{number}" for number in range(300)]
        for id in ids:
            many.commit(id, Change(owner="u1", append=pairs(b"{}")))
        make_idle(many, ids)

        def visit(done: int, total: int | None) -> None:
            """Visit every second one that is left, as soon as the first batch is gone."""
            if visited:
                return
            for id in ids[::2]:
                if many.load(id, 1) is not None:
                    visited.add(id)

        visited: set[str] = set()
        report = many.purge(Selection(idle_for=50.0, owner="u1"), batch_size=100, progress=visit)
        assert visited
        assert {id for id in ids if many.exists(id)} == visited
        assert report.deleted == 300 - len(visited)
        assert report.examined == 300

    def test_a_purge_of_idle_ones_deletes_none_in_use(self, many: RedisBackend) -> None:
        ids = [f"c{number}" for number in range(500)]
        for id in ids:
            many.commit(id, Change(append=pairs(b"{}")))
        make_idle(many, ids)
        stop, lost, all_loaded = threading.Event(), list[str](), threading.Barrier(3)

        def keep_busy(mine: list[str]) -> None:
            lost.extend(id for id in mine if many.load(id, 1) is None)
            all_loaded.wait(timeout=30)
            while not stop.is_set():
                lost.extend(id for id in mine if many.load(id, 1) is None)

        with ThreadPoolExecutor(2) as pool:
            try:
                busy = [pool.submit(keep_busy, mine) for mine in (ids[:10], ids[-10:])]
                all_loaded.wait(timeout=30)
                for _ in range(5):
                    many.purge(Selection(idle_for=50.0))
            finally:
                stop.set()
            for future in busy:
                future.result(timeout=30)
        assert lost == []
        assert sum(map(many.exists, ids)) == 20

    def test_foreign_values_are_skipped(self, many: RedisBackend) -> None:
        many.commit("good", Change(owner="u1", append=pairs(b"{}")))
        bad = "many:{bad}:meta"
        client = raw(many.cache_alias)
        client.set(bad, "no hash", ex=60)
        assert [summary.id for summary in many.scan()] == ["good"]
        assert many.purge(Selection(everything=True)).deleted == 1
        assert client.delete(bad) == 1

    def test_listing_works_after_a_restart(self, settings: Any, server: Server) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        backend.commit("a", Change(owner="u1", append=pairs(b"{}")))
        server.kill()
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            list(backend.scan())
        server.start()
        assert len(list(backend.scan("u1"))) == 1
        backend.close()

    def test_listing_goes_on_where_writes_are_refused(self, settings: Any, server: Server) -> None:
        backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
        backend.commit("short", Change(owner="u1", ttl=1.0, append=pairs(b"{}")))
        backend.commit("long", Change(owner="u1", append=pairs(b"{}")))
        time.sleep(1.1)
        with server.client() as client:
            client.replicaof("127.0.0.1", 1)
            assert [summary.id for summary in backend.scan("u1")] == ["long"]
            with pytest.raises(BackendUnavailable, match="READONLY"):
                backend.purge(Selection(everything=True))
        backend.close()
