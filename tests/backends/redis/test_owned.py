"""The conversations of an owner: what a page costs, what the index knows and until when, and what
processes of a former version have left in it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from redis.connection import AbstractConnection

from django_convstate import clock
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change
from django_convstate.backends.redis import owner_index
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.owner_index import OwnerIndex
from django_convstate.ids import new_id
from django_convstate.testing.listings import record_saved
from tests.support.messages import pairs
from tests.support.places import on
from tests.support.redis import commands_of, index_of, key_of, raw, saved_index_of
from tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("valkey")

MINUTE = 60.0


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


@pytest.fixture
def later() -> Iterator[Callable[[float], None]]:
    """Has the clock be so many seconds ahead, for our scripts on the server, too."""
    yield clock.set_ahead
    clock.set_ahead(0)


def saved(
    backend: RedisBackend, owner: str, ago: float, ttl: float = 86_400.0, now: float | None = None
) -> str:
    """Store a conversation that was saved so many seconds before now."""
    when = round((now or time.time()) - ago, 3)
    record = record_saved(owner, when, ttl, {"title": b'"A"'})
    backend.restore(record.id, record, [])
    return record.id


def say(backend: RedisBackend, id: str, **change: Any) -> None:
    backend.commit(id, Change(append=pairs(b"{}"), **change))


def listed(backend: RedisBackend, owner: str, **options: Any) -> list[str]:
    return [summary.id for summary in backend.scan(owner, **options)]


def paged(backend: RedisBackend, owner: str, limit: int) -> list[str]:
    ids: list[str] = []
    after = None
    while page := list(backend.scan(owner, limit=limit, after=after)):
        assert len(page) <= limit
        ids += [summary.id for summary in page]
        after = page[-1].cursor
    return ids


class TestCost:
    @pytest.mark.parametrize(("alias", "most"), [("django_redis", 2), ("cluster", 4)])
    def test_a_page_takes_two_round_trips_and_on_a_cluster_one_to_each_node(
        self,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        alias: str,
        most: int,
    ) -> None:
        if alias == "cluster":
            request.getfixturevalue("cluster")
        backend, owner = RedisBackend(cache_alias=alias), new_id()
        for number in range(120):
            saved(backend, owner, number * 2 * MINUTE)
        pages = [list(backend.scan(owner, limit=50))]  # so that the scripts are known
        sent = 0
        send = AbstractConnection.send_packed_command

        def count(self: Any, *args: Any, **kwargs: Any) -> None:
            nonlocal sent
            sent += 1
            send(self, *args, **kwargs)

        monkeypatch.setattr(AbstractConnection, "send_packed_command", count)
        for _ in range(2):
            pages.append(list(backend.scan(owner, limit=50, after=pages[-1][-1].cursor)))
        assert [len(page) for page in pages] == [50, 50, 20]
        assert sent <= 2 * most
        backend.purge(Selection(owner=owner))
        backend.close()

    @pytest.mark.parametrize("apart", [0.001, 2 * MINUTE])
    def test_a_page_looks_at_its_own_conversations_alone(
        self, backend: RedisBackend, apart: float
    ) -> None:
        """Whether all of them were saved in one minute, or each in one of its own."""
        owner, now = new_id(), time.time()
        for number in range(400):
            saved(backend, owner, number * apart, now=now)
        (*_, last) = backend.scan(owner, limit=20)
        for after in (None, last.cursor):
            page = partial(listed, backend, owner, limit=20, after=after)
            sent, called = commands_of(page)
            assert sent == ["EVALSHA"] * 21
            names = [name for name, *_ in called]
            assert names.count("LLEN") == 20
            assert not {"ZSCAN", "ZDIFF", "ZRANGE", "HGETALL"} & set(names)

    def test_a_cursor_that_was_made_up_has_no_more_read_than_a_block(
        self, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may be a visitor's."""
        monkeypatch.setattr(owner_index, "PAGE", 10)
        monkeypatch.setattr(owner_index, "MOST_WITHIN_LAG", 5)
        owner, now = new_id(), time.time()
        ids = [saved(backend, owner, number * MINUTE, now=now) for number in range(200)]
        (first,) = backend.scan(owner, limit=1)
        for own in (first.cursor[:28], f"{'f' * 28}", f"{'0' * 28}"):
            for bounds in ("", f"{'0' * 12}{'f' * 12}", 24 * "f", 24 * "0"):
                page = partial(listed, backend, owner, limit=10, after=own + bounds)
                sent, called = commands_of(page)
                assert len(sent) <= 2 * (15 + 15 + 1), (own, bounds)
                assert "ZRANGE" not in {name for name, *_ in called}
        everything = f"{'f' * 28}{'0' * 12}{'f' * 12}"
        assert listed(backend, owner, limit=200, after=everything) == ids

    def test_those_of_one_millisecond_are_listed_page_by_page(
        self, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are in one block, however many they are: an import may have saved them."""
        monkeypatch.setattr(owner_index, "PAGE", 10)
        monkeypatch.setattr(owner_index, "MOST_WITHIN_LAG", 5)
        owner, now = new_id(), time.time()
        ids = {saved(backend, owner, ago, now=now) for ago in [0, *40 * [MINUTE], 5 * MINUTE]}
        found = paged(backend, owner, 7)
        assert len(found) == len(ids)
        assert set(found) == ids

    def test_one_of_a_few_in_a_minute_is_in_its_exact_place(self, backend: RedisBackend) -> None:
        """Which the index does not know."""
        owner, now = new_id(), time.time()
        ids = [saved(backend, owner, 30 - number * 0.01, now=now) for number in range(60)]
        for id in (ids[40], ids[3]):
            say(backend, id)
            time.sleep(0.002)
        expected = [ids[3], ids[40], *(id for id in ids[::-1] if id not in (ids[3], ids[40]))]
        assert listed(backend, owner, limit=3) == expected[:3]
        assert paged(backend, owner, 7) == listed(backend, owner) == expected

    def test_a_commit_updates_the_index_once_a_minute(
        self, backend: RedisBackend, later: Callable[[float], None]
    ) -> None:
        owner, id = new_id(), new_id()
        say(backend, id, owner=owner)
        first = raw().zscore(saved_index_of(owner), id)
        assert commands_of(lambda: say(backend, id))[0] == ["EVALSHA"]
        assert raw().zscore(saved_index_of(owner), id) == first
        later(61)
        say(backend, new_id())  # the server learns the script with this clock
        backend.touch(id)
        backend.load(id, 1)
        assert raw().zscore(saved_index_of(owner), id) == first, "only a commit is a save"
        say(backend, id)
        second = raw().zscore(saved_index_of(owner), id)
        assert second >= first + 61_000
        assert commands_of(lambda: say(backend, id))[0] == ["EVALSHA"]

    def test_what_is_loaded_after_long_is_indexed_with_its_last_save(
        self, backend: RedisBackend, later: Callable[[float], None]
    ) -> None:
        """And a commit soon after that is not late in the index."""
        owner, id = new_id(), new_id()
        say(backend, id, owner=owner, ttl=600.0)
        first = raw().zscore(saved_index_of(owner), id)
        until = raw().zscore(index_of(owner), id)
        later(400)
        backend.load(id, 1)
        assert raw().zscore(index_of(owner), id) > until + 300_000
        assert raw().zscore(saved_index_of(owner), id) == first
        say(backend, id)
        assert raw().zscore(saved_index_of(owner), id) >= first + 400_000

    def test_the_order_is_exact_to_a_minute(
        self,
        backend: RedisBackend,
        later: Callable[[float], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(owner_index, "MOST_WITHIN_LAG", 2)
        owner, ids = new_id(), [new_id() for _ in range(12)]
        for ahead, number in enumerate([*range(12), 3, 3, 7, 0, 3, 7, 11, 0, 5, 3]):
            later(ahead * 17.0)
            say(backend, ids[number], owner=owner)
        for limit in (1, 4, 5):
            ids, after = [], None
            found = []
            while page := list(backend.scan(owner, limit=limit, after=after)):
                found += page
                after = page[-1].cursor
            assert len({summary.id for summary in found}) == len(found) == 12
            times = [summary.modified_at.timestamp() for summary in found]
            assert all(later - times[at] <= MINUTE for at in range(12) for later in times[at:])


class TestLifetime:
    def test_both_sets_have_a_ttl(self, backend: RedisBackend) -> None:
        owner = new_id()
        say(backend, new_id(), owner=owner, ttl=100.0)
        for key in (index_of(owner), saved_index_of(owner)):
            assert 0 < raw().pttl(key) <= 260_000
        say(backend, id := new_id(), owner=owner, ttl=float("inf"))
        for key in (index_of(owner), saved_index_of(owner)):
            assert raw().pttl(key) == -1
        backend.delete(id)
        say(backend, new_id(), owner=owner, ttl=100.0)
        for key in (index_of(owner), saved_index_of(owner)):
            assert 0 < raw().pttl(key) <= 260_000

    def test_what_has_expired_leaves_both_sets_with_the_next_update(
        self, backend: RedisBackend, later: Callable[[float], None]
    ) -> None:
        owner = new_id()
        for _ in range(5):
            say(backend, new_id(), owner=owner, ttl=10.0)
        say(backend, lasting := new_id(), owner=owner, ttl=1000.0)
        later(90)  # twice the TTL, and a minute
        say(backend, lasting)
        for key in (index_of(owner), saved_index_of(owner)):
            assert raw().zrange(key, 0, -1) == [lasting.encode()]

    def test_a_page_is_full_where_others_are_gone(self, backend: RedisBackend) -> None:
        owner = new_id()
        ids = [saved(backend, owner, number * 2 * MINUTE) for number in range(30)]
        for id in ids[:25:2]:
            raw().delete(key_of(id, "meta"))  # as if it had expired
        left = [id for id in ids if id not in ids[:25:2]]
        assert listed(backend, owner, limit=10) == left[:10]
        assert paged(backend, owner, 4) == left
        for key in (index_of(owner), saved_index_of(owner)):
            assert raw().zcard(key) == len(left), "and forgotten"

    @pytest.mark.parametrize("finds_it_gone", [listed, lambda b, o: b.purge(Selection(owner=o))])
    def test_what_is_begun_again_while_it_is_forgotten_is_listed(
        self,
        backend: RedisBackend,
        monkeypatch: pytest.MonkeyPatch,
        finds_it_gone: Callable[[RedisBackend, str], object],
    ) -> None:
        owner, id = new_id(), new_id()
        say(backend, id, owner=owner)
        raw().delete(*(key_of(id, part) for part in ("meta", "messages", "ids")))  # it has expired
        forget = OwnerIndex.forget

        def forget_late(self: OwnerIndex, of: str, ids: Any) -> Any:
            if id in ids:
                say(backend, id, owner=owner)
            return forget(self, of, ids)

        monkeypatch.setattr(OwnerIndex, "forget", forget_late)
        finds_it_gone(backend, owner)
        for key in (index_of(owner), saved_index_of(owner)):
            assert id.encode() in raw().zrange(key, 0, -1)
        assert id in listed(backend, owner)
        raw().delete(*(key_of(id, part) for part in ("meta", "messages", "ids")))
        monkeypatch.undo()
        assert id not in listed(backend, owner)
        assert id.encode() not in raw().zrange(index_of(owner), 0, -1)

    @pytest.mark.parametrize("way", ["sync", "async"])
    def test_a_new_id_is_listed_at_once(self, backend: RedisBackend, way: str) -> None:
        owner = new_id()
        id = saved(backend, owner, 5 * MINUTE)
        other = saved(backend, owner, 2 * MINUTE)

        async def arename(new: str) -> None:
            await backend.arename(id, new)
            await backend.aclose()

        new = backend.id_beside(id)
        asyncio.run(arename(new)) if way == "async" else backend.rename(id, new)
        for key in (index_of(owner), saved_index_of(owner)):
            assert set(raw().zrange(key, 0, -1)) == {new.encode(), other.encode()}
        assert listed(backend, owner, limit=5) == [other, new], "its last save is what it was"

    def test_what_another_program_has_put_there_is_dropped(self, backend: RedisBackend) -> None:
        owner, id = new_id(), new_id()
        say(backend, id, owner=owner)
        for key in (index_of(owner), saved_index_of(owner)):
            raw().zadd(key, {b"\xff\xfe": time.time() * 1000, b"": 5, b"no such": 1e13})
        assert listed(backend, owner) == listed(backend, owner, limit=1) == [id]


def as_former(owner: str, id: str, ttl: float = 86_400.0) -> None:
    """Leave the index as the former version does: it has one set, of times to expire."""
    now = round(time.time() * 1000)
    score = float("inf") if ttl == float("inf") else now + 2 * ttl * 1000 + MINUTE * 1000
    known = raw().zscore(index_of(owner), id) or 0
    if score > known or known == float("inf"):
        raw().zadd(index_of(owner), {id: score})
    raw().zremrangebyscore(index_of(owner), "-inf", now)
    raw().expire(index_of(owner), 10_000)


class TestFormerVersions:
    """Their processes may be at work beside those of this one."""

    def former(self, backend: RedisBackend, owner: str, ago: float, ttl: float = 86_400.0) -> str:
        """Store a conversation that a former version has indexed."""
        id = saved(backend, owner, ago, ttl)
        for key in (index_of(owner), saved_index_of(owner)):
            raw().zrem(key, id)
        as_former(owner, id, ttl)
        return id

    def test_an_index_of_theirs_is_completed_by_the_first_listing(
        self, backend: RedisBackend
    ) -> None:
        owner = new_id()
        ids = [self.former(backend, owner, number * 2 * MINUTE) for number in range(30)]
        assert listed(backend, owner, limit=10) == ids[:10]
        assert paged(backend, owner, 7) == listed(backend, owner) == ids
        assert raw().zcard(saved_index_of(owner)) == 30
        assert raw().pttl(saved_index_of(owner)) > 0
        sent, called = commands_of(lambda: listed(backend, owner, limit=10))
        assert sent == ["EVALSHA"] * 11
        assert "ZDIFF" not in {name for name, *_ in called}, "once"

    def test_what_they_begin_delete_and_let_expire_meanwhile(self, backend: RedisBackend) -> None:
        owner = new_id()
        ids = [saved(backend, owner, (number + 1) * 2 * MINUTE) for number in range(6)]
        assert listed(backend, owner, limit=3) == ids[:3]
        # As many are deleted as are begun, so that the sizes of the two sets tell nothing.
        for id in ids[3:5]:
            raw().delete(key_of(id, "meta"))
            raw().zrem(index_of(owner), id)
        begun = [self.former(backend, owner, ago) for ago in (0, 1000 * MINUTE)]
        forever = self.former(backend, owner, MINUTE, ttl=float("inf"))
        expected = [begun[0], forever, *ids[:3], ids[5], begun[1]]
        assert listed(backend, owner, limit=3) == expected[:3]
        assert paged(backend, owner, 2) == listed(backend, owner) == expected

    def test_what_they_save_is_known_as_soon_as_we_use_it(self, backend: RedisBackend) -> None:
        owner = new_id()
        ids = [saved(backend, owner, (number + 1) * 2 * MINUTE) for number in range(3)]
        say(backend, ids[2])
        raw().hdel(key_of(ids[2], "meta"), "i")  # which they do not write
        raw().zadd(saved_index_of(owner), {ids[2]: 1})
        backend.load(ids[2], 1)
        assert listed(backend, owner, limit=1) == [ids[2]]

    def test_they_find_what_we_have_indexed_and_let_none_of_it_expire(
        self, backend: RedisBackend
    ) -> None:
        owner = new_id()
        say(backend, ours := new_id(), owner=owner)
        say(backend, forever := new_id(), owner=owner, ttl=float("inf"))
        theirs = self.former(backend, owner, 0)
        as_former(owner, ours)
        as_former(owner, forever, float("inf"))
        found = {member.decode() for member in raw().zrange(index_of(owner), 0, -1)}
        assert found == {ours, forever, theirs}
        assert set(listed(backend, owner, limit=5)) == found
        assert set(listed(backend, owner)) == found

    @pytest.mark.parametrize("lost", [index_of, saved_index_of])
    def test_one_of_the_sets_was_evicted(
        self, backend: RedisBackend, lost: Callable[[str], str]
    ) -> None:
        owner = new_id()
        ids = [saved(backend, owner, number * 2 * MINUTE) for number in range(5)]
        raw().delete(lost(owner))
        say(backend, new := new_id(), owner=owner)
        assert listed(backend, owner, limit=4) == [new, *ids[:3]]
        assert listed(backend, owner) == [new, *ids]
        raw().delete(lost(owner))
        assert backend.purge(Selection(owner=owner)).deleted == 6

    def test_an_index_of_theirs_is_listed_where_writes_are_refused(
        self, settings: Any, server: Server
    ) -> None:
        backend, owner = on(settings, f"redis://127.0.0.1:{server.port}/0"), new_id()
        ids = [saved(backend, owner, number * 2 * MINUTE) for number in range(5)]
        with server.client() as client:
            client.delete(saved_index_of(owner))
            client.replicaof("127.0.0.1", 1)
            assert listed(backend, owner) == paged(backend, owner, 2) == ids
        backend.close()
