"""How the LocMem backend keeps to MAX_BYTES, what it never evicts, and which clock it goes by."""

import gc
import time
import tracemalloc

import pytest

from django_convstate import BackendUnavailable, ConversationStore, ConversationTooLarge
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create, Replacement
from django_convstate.backends.reports import Selection
from django_convstate.backends.toolkit.lease_queue import LeaseQueues
from tests.support.backends import record_of
from tests.support.messages import pairs
from tests.support.wall_clock import jump

LARGE = b'"%b"' % (b"x" * 10_000)


def large(*, count: int = 1, **more: object) -> Change:
    return Change(append=pairs(*[LARGE] * count), **more)  # type: ignore[arg-type]


def ids(backend: LocMemBackend) -> set[str]:
    return {summary.id for summary in backend.scan()}


@pytest.fixture
def backend() -> LocMemBackend:
    return LocMemBackend(max_bytes=100_000)


class TestBytes:
    def test_the_least_recently_used_go_when_it_is_full(
        self, backend: LocMemBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(8):
            backend.commit(f"c{number}", large())
        backend.load("c0", 1)
        backend.touch("c1")
        backend.peek("c2", 1)  # which does not count as use
        backend.commit("new", large(count=2))
        assert {"c0", "c1", "new"} <= ids(backend)
        assert not {"c2", "c3"} & ids(backend)
        assert "dropped the 3 of 8" in caplog.text
        assert "MAX_BYTES" in caplog.text

    def test_one_that_grows_pushes_out_others_but_not_itself(self, backend: LocMemBackend) -> None:
        for number in range(5):
            backend.commit(f"c{number}", large())
        for _ in range(7):
            backend.commit("c0", large())
        assert record_of(backend, "c0").message_count == 8
        assert "c1" not in ids(backend)

    def test_a_conversation_in_a_turn_is_not_evicted(self, backend: LocMemBackend) -> None:
        backend.commit("turn", large())
        backend.acquire("turn", "lease", 60, 1)
        for number in range(50):
            backend.commit(f"c{number}", large())
        assert backend.commit("turn", large(lease="lease")).message_count == 2

    def test_nor_is_one_for_whose_turn_somebody_waits(self) -> None:
        backend = LocMemBackend(max_conversations=2)
        backend.commit("turn", large())
        for lease in ("holds", "waits"):
            backend.acquire("turn", lease, 60, 1)
        backend.release("turn", "holds")
        for number in range(10):
            backend.commit(f"c{number}", large())
        assert ids(backend) == {"turn", "c9"}

    @pytest.mark.parametrize(
        ("limits", "count"), [({"max_bytes": 100_000}, 9), ({"max_conversations": 9}, 9)]
    )
    def test_what_finds_no_room_is_refused_and_changes_nothing(
        self, limits: dict[str, int], count: int
    ) -> None:
        backend = LocMemBackend(**limits)
        for number in range(count):
            backend.commit(f"c{number}", Change(append=pairs(LARGE[:9000])))
            backend.acquire(f"c{number}", "lease", 60, 1)
        for change in (large(), large(create=Create.MUST_BE_NEW)):
            with pytest.raises(BackendUnavailable, match="in a turn") as caught:
                backend.commit("new", change)
            assert caught.value.transient
        assert ids(backend) == {f"c{number}" for number in range(count)}
        backend.release("c3", "lease")
        backend.commit("new", large())
        assert ids(backend) == {f"c{number}" for number in range(count)} - {"c3"} | {"new"}

    def test_a_change_of_a_full_one_that_does_not_grow_is_not_refused(
        self, backend: LocMemBackend
    ) -> None:
        changes = [Change(set={"k": LARGE}, append=pairs(LARGE)) for _ in range(4)]
        for number, change in enumerate(changes):
            backend.commit(f"c{number}", change)
            backend.acquire(f"c{number}", "lease", 60, 1)
        with pytest.raises(BackendUnavailable):
            backend.commit("c0", large(count=2))
        backend.commit("c0", Change(set={"k": LARGE}))
        (message, *_) = record_of(backend, "c0").messages
        same = Replacement(id=message[0], old=None, new=LARGE)
        backend.commit("c0", Change(replace=[same]))
        backend.commit("c0", Change(unset=["k"], keep_messages=0))
        backend.commit("c0", large())
        assert record_of(backend, "c0").message_count == 1

    def test_one_that_is_too_large_alone_pushes_out_nobody(self, backend: LocMemBackend) -> None:
        backend.commit("other", large())
        backend.commit("a", large(count=7))
        for id in ("a", "b"):
            with pytest.raises(ConversationTooLarge, match="MAX_BYTES"):
                backend.commit(id, large(count=10))
        assert ids(backend) == {"other", "a"}
        assert record_of(backend, "a").message_count == 7

    def test_a_restored_one_pushes_out_others(self, backend: LocMemBackend) -> None:
        for number in range(7):
            backend.commit(f"c{number}", large())
        record = record_of(backend, "c6")
        backend.restore("again", record, pairs(*[LARGE] * 4))
        assert "again" in ids(backend)
        assert "c0" not in ids(backend)

    def test_what_is_gone_takes_no_room(self, backend: LocMemBackend) -> None:
        for number in range(100):
            id = f"c{number}"
            backend.commit(id, large(count=6))
            backend.commit(id, Change(set={"k": LARGE}))
            backend.commit(id, Change(keep_messages=3, append=pairs(b"1"), unset=["k"]))
            backend.commit(id, large(max_messages=4, drop_oldest=True))
            backend.rename(id, f"moved{id}")
            backend.delete(f"moved{id}")
        backend.commit("kept", large())
        for number in range(4):
            backend.commit(f"d{number}", large())
        assert len(ids(backend)) == 5

    def test_tombstones_are_bounded_too(self) -> None:
        backend = LocMemBackend(max_bytes=100_000, max_conversations=10**6)
        tracemalloc.start()
        try:
            for number in range(2000):
                backend.commit(f"c{number}", Change(append=pairs(b"1")))
                backend.delete(f"c{number}")
            gc.collect()
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 100_000

    def test_the_options_reach_it(self) -> None:
        store = ConversationStore("locmem", max_bytes=100_000)
        for number in range(30):
            conversation = store.open(f"c{number}")
            conversation["k"] = "x" * 10_000
            conversation.save()
        assert 5 < len(list(store.list())) < 10


class TestClock:
    """One that puts the wall clock of the machine right, by hours."""

    @pytest.mark.parametrize("hours", [-30, -3, 3, 30])
    def test_a_jump_makes_nothing_expire(
        self, monkeypatch: pytest.MonkeyPatch, hours: float
    ) -> None:
        backend = LocMemBackend(max_age=3600)
        backend.commit("a", Change(ttl=60, append=pairs(b"1")))
        backend.commit("gone", Change(append=pairs(b"1")))
        backend.delete("gone")
        backend.acquire("a", "lease", 60, 1)
        jump(monkeypatch, hours)
        assert backend.exists("a")
        assert ids(backend) == {"a"}
        assert backend.purge(Selection()).deleted == 0
        assert backend.purge(Selection(idle_for=3600)).deleted == 0
        assert backend.renew("a", "lease", 60)
        assert backend.commit("a", Change(lease="lease", append=pairs(b"2"))).message_count == 2
        record = record_of(backend, "a")
        assert record.expires_at > time.time() or hours > 0  # MAX_AGE, since before the jump
        with pytest.raises(Exception, match="deleted"):
            backend.commit("gone", Change(unless_deleted=True))
        backend.commit("new", Change(append=pairs(b"1")))
        assert record_of(backend, "new").created_at == pytest.approx(time.time(), abs=30)

    def test_nor_does_it_forget_what_was_applied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend, change = LocMemBackend(), Change(append=pairs(b"1"))
        backend.commit("a", change)
        jump(monkeypatch, 30)
        backend.commit("a", Change(append=pairs(b"2")))  # by another writer
        assert backend.commit("a", change).repeated
        assert record_of(backend, "a").message_count == 2

    def test_nor_does_it_keep_what_has_expired(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = LocMemBackend()
        jump(monkeypatch, -3)
        backend.commit("a", Change(ttl=0.05, append=pairs(b"1")))
        jump(monkeypatch, 3)
        time.sleep(0.06)
        assert not backend.exists("a")

    def test_a_restored_one_has_the_age_that_it_had(self) -> None:
        backend = LocMemBackend(max_age=3600)
        backend.commit("a", Change(append=pairs(b"1")))
        record = record_of(backend, "a")
        record.created_at -= 3500
        record.last_accessed -= 50
        record.ttl = 60
        backend.restore("young", record, record.messages)
        record.ttl = 40
        backend.restore("idle", record, record.messages)
        record.ttl, record.created_at = 60, record.created_at - 200
        backend.restore("old", record, record.messages)
        assert ids(backend) == {"a", "young"}


def test_no_lease_lives_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = LeaseQueues()
    with queues.changing("a") as queue:
        queue.enqueue("lease", 5)
    jump(monkeypatch, 300)
    assert queues.get("a").is_held_by("lease")
