"""What becomes of damage under the keys of conversations: it is set aside, and costs nobody a
conversation that is sound."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_convstate import ConversationCorrupt, InvalidConversationValue
from django_convstate.backends.records import Change, Diverged, Replacement
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.exceptions import ConversationInterrupted, InvalidConversationType
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs
from tests.support.places import make_place
from tests.support.redis import OPERATIONS, index_of, key_of, raw

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


class TestSetAside:
    def test_damage_seen_by_many_threads_is_quarantined_once(self, backend: RedisBackend) -> None:
        """Who saw the damage too, and comes late, finds a conversation that is sound."""

        def write(id: str, number: int, start: threading.Barrier) -> None:
            start.wait()
            change = Change(append=pairs(b"%d" % number))
            while True:
                try:
                    backend.commit(id, change)
                    return
                except ConversationCorrupt:
                    pass

        for _ in range(50):
            id, start = new_id(), threading.Barrier(8)
            raw().set(key_of(id, "meta"), "bad", ex=60)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda n, id=id, start=start: write(id, n, start), range(8)))
            assert sorted(bodies(backend.read_messages(id, 0, 100))) == [
                b"%d" % n for n in range(8)
            ]

    def test_damage_seen_by_many_tasks_is_quarantined_once(self, backend: RedisBackend) -> None:
        async def write(id: str, number: int) -> None:
            change = Change(append=pairs(b"%d" % number))
            while True:
                try:
                    await backend.acommit(id, change)
                    return
                except ConversationCorrupt:
                    pass

        async def visit() -> None:
            for _ in range(50):
                id = new_id()
                raw().set(key_of(id, "meta"), "bad", ex=60)
                await asyncio.gather(*(write(id, number) for number in range(4)))
                assert len(await backend.aread_messages(id, 0, 9)) == 4
            await backend.aclose()

        asyncio.run(visit())

    def test_a_sound_conversation_is_not_quarantined(self, backend: RedisBackend) -> None:
        id = new_id()
        backend.commit(id, Change(owner="ü", set={"ß": b"1"}, append=pairs(b"{}")))
        for any_id in (id, new_id()):  # of which the second one is nothing at all
            raw().execute_command(*OPERATIONS.quarantine(any_id).full_command())
        assert backend.load(id, 1) is not None

    def test_earlier_quarantined_values_are_kept(self, backend: RedisBackend) -> None:
        id = new_id()
        for number in range(3):
            raw().set(key_of(id, "meta"), f"bad {number}", ex=60)
            with pytest.raises(ConversationCorrupt):
                backend.load(id, 1)
        kept = [key_of(id, f"meta:corrupt{suffix}") for suffix in ("", ":2", ":3")]
        assert raw().mget(kept) == [b"bad 0", b"bad 1", b"bad 2"]
        assert all(raw().pttl(key) > 60_000 for key in kept)

    @pytest.mark.parametrize(
        "damage",
        [
            {"id": "another"},
            {"v": ""},
            {"c": "text"},
            {"t": "inf"},
            {"t": "1e300"},
            {"t": "0x10"},
            {"v": "9" * 300},
            {"t": "-5"},
            {"o": b"\xff"},
        ],
        ids=str,
    )
    def test_any_damaged_field_is_quarantined(
        self, backend: RedisBackend, damage: dict[str, Any]
    ) -> None:
        id = new_id()
        backend.commit(id, Change(owner="u1", append=pairs(b"{}")))
        raw().hset(key_of(id, "meta"), mapping=damage)
        with pytest.raises(ConversationCorrupt):
            backend.load(id, 1)
        assert backend.load(id, 1) is None
        assert raw().exists(key_of(id, "meta:corrupt")) == 1

    def test_a_state_key_that_is_no_utf8_is_quarantined(self, backend: RedisBackend) -> None:
        id = new_id()
        backend.commit(id, Change(append=pairs(b"{}")))
        raw().hset(key_of(id, "state"), b"\xc3", "1")
        with pytest.raises(ConversationCorrupt):
            backend.load(id, 1)
        assert backend.load(id, 1) is None

    def test_every_operation_quarantines_damage(self, backend: RedisBackend) -> None:
        for use in (
            lambda id: backend.touch(id),
            lambda id: backend.touch(id, 60.0),
            lambda id: backend.commit(id, Change(append=pairs(b"{}"))),
            lambda id: backend.acquire(id, "lease", 5.0, 1),
            lambda id: asyncio.run(backend.atouch(id)),
        ):
            for damage in ({"t": "text"}, {"c": "1e300"}, {"v": "inf"}):
                id = new_id()
                backend.commit(id, Change(append=pairs(b"{}")))
                raw().hset(key_of(id, "meta"), mapping=damage)
                with pytest.raises(ConversationCorrupt):
                    use(id)
                assert not backend.exists(id)

    def test_a_foreign_hash_is_quarantined(self, backend: RedisBackend) -> None:
        id = new_id()
        raw().hset(key_of(id, "meta"), mapping={"name": "value"})
        with pytest.raises(ConversationCorrupt):
            backend.commit(id, Change(append=pairs(b"{}")))
        assert raw().hgetall(key_of(id, "meta:corrupt")) == {b"name": b"value"}


def test_state_and_messages_without_a_record_are_not_adopted(backend: RedisBackend) -> None:
    id = new_id()
    backend.commit(id, Change(owner="u1", set={"a": b"1"}, append=pairs(b'"old"')))
    raw().delete(key_of(id, "meta"))
    assert backend.load(id, 5) is None
    backend.commit(id, Change(owner="u2", append=pairs(b'"new"')))
    record = backend.load(id, 5)
    assert record is not None
    assert (record.owner, record.state, bodies(record.messages)) == ("u2", {}, [b'"new"'])


class TestIndex:
    def test_an_index_outlives_a_raised_ttl(self, backend: RedisBackend) -> None:
        for raise_ttl in (
            lambda id: backend.touch(id, 3600.0),
            lambda id: asyncio.run(backend.atouch(id, 3600.0)),
            lambda id: backend.commit(id, Change(ttl=3600.0)),
        ):
            owner, id = new_id(), new_id()
            backend.commit(id, Change(owner=owner, ttl=1.0, append=pairs(b"{}")))
            backend.load(id, 1)
            raise_ttl(id)
            index = index_of(owner)
            assert raw().pttl(index) > 3_600_000
            assert raw().zscore(index, id) > (time.time() + 3600) * 1000
            backend.commit(id, Change(ttl=1.0))
            assert raw().zscore(index, id) > (time.time() + 3600) * 1000

    def test_an_index_update_stays_due_until_it_is_acknowledged(
        self, backend: RedisBackend
    ) -> None:
        """As if the process had died, or its task been cancelled, before it was told."""
        owner, id = new_id(), new_id()
        index = index_of(owner)
        untold = OPERATIONS.commit(id, Change(owner=owner, append=pairs(b"{}")))
        assert untold.read(raw().execute_command(*untold.full_command())).then is not None
        assert raw().zscore(index, id) is None
        for use in (
            lambda: backend.load(id, 1),
            lambda: backend.commit(id, Change(append=pairs(b"{}"))),
            lambda: backend.touch(id),
        ):
            raw().delete(index)
            raw().hset(key_of(id, "meta"), "x", 0)
            use()
            assert raw().zscore(index, id) is not None
            raw().delete(index)
            use()
            assert raw().zscore(index, id) is None, "told is told"

    def test_commits_of_cancelled_tasks_are_indexed(self, backend: RedisBackend) -> None:
        async def visit() -> int:
            stored = 0
            for number in range(200):
                owner, id = new_id(), new_id()
                change = Change(owner=owner, append=pairs(b"{}"))
                task = asyncio.create_task(backend.acommit(id, change))
                await asyncio.sleep(0.0001 * (number % 12))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                if await backend.aload(id, 1) is not None:
                    stored += 1
                    assert raw().zscore(index_of(owner), id) is not None
            await backend.aclose()
            return stored

        assert asyncio.run(visit()) > 0

    def test_a_foreign_value_in_place_of_an_index_does_not_fail_commits(
        self, backend: RedisBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        owner, id = new_id(), new_id()
        raw().set(index_of(owner), "no index", ex=60)
        backend.commit(id, Change(owner=owner, append=pairs(b"{}")))
        assert "could not be brought up to date" in caplog.text

        async def visit() -> None:
            await backend.acommit(id, Change(append=pairs(b"{}")))
            assert await backend.aload(id, 1) is not None
            await backend.aclose()

        asyncio.run(visit())
        assert list(backend.scan(owner)) == []
        assert backend.delete(id)


@pytest.mark.parametrize("place", ["locmem", "standalone"])
def test_a_counter_beyond_64_bits_is_an_invalid_value_and_no_invalid_type(place: str) -> None:
    backend, id = make_place(place), new_id()
    backend.commit(id, Change(set={"n": b"%d" % 2**63, "m": b"1", "text": b'"x"'}))
    for key, by, why in (
        ("n", -1, InvalidConversationValue),
        ("m", 2**63, InvalidConversationValue),
        ("m", 2**63 - 1, InvalidConversationValue),
        ("new", -(2**63) - 1, InvalidConversationValue),
        ("text", 1, InvalidConversationType),
    ):
        with pytest.raises(InvalidConversationValue) as caught:
            backend.commit(id, Change(increment={key: by}))
        assert type(caught.value) is why
    backend.close()


@pytest.mark.parametrize("place", ["locmem", "default", "standalone"])
def test_a_refused_commit_leaves_it_known_that_a_conversation_was_deleted(place: str) -> None:
    backend, id = make_place(place), new_id()
    backend.commit(id, Change(set={"text": b'"x"'}))
    backend.delete(id)
    with pytest.raises(InvalidConversationType):
        backend.commit(id, Change(set={"text": b'"x"'}, increment={"text": 1}))
    with pytest.raises(ConversationInterrupted):
        backend.commit(id, Change(unless_deleted=True, set={"a": b"1"}))
    backend.close()


@pytest.mark.parametrize("place", ["locmem", "default", "standalone"])
def test_the_key_that_a_message_was_given_is_not_its_id(place: str) -> None:
    backend, id = make_place(place), new_id()
    committed = backend.commit(id, Change(append=[("theirs", b"1")]))
    key = committed.last_key.hex()
    with pytest.raises(Diverged):
        backend.commit(id, Change(replace=[Replacement(id=key, old=None, new=b"2")]))
    assert backend.find(id, key) is None
    assert list(backend.commit(id, Change(append=[(key, b"3")], once=[key])).existing) == []
    assert list(backend.read_messages(id, 0, 9)) == [("theirs", b"1"), (key, b"3")]
    backend.close()


def test_health_does_not_depend_on_a_key(backend: RedisBackend) -> None:
    raw().set("convstate:health", "somebody else's", ex=60)
    assert backend.health().connected
    assert asyncio.run(backend.ahealth()).connected
