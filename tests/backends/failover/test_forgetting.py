"""For how long a conversation is remembered for an outage, what makes this process forget it at
once, and what happens to what it does not know."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from django_convstate import (
    BackendUnavailable,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationStore,
    get_backend,
)
from django_convstate.backends.failover import FailoverBackend, offline
from django_convstate.backends.failover.last_known import LastKnownCache
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create, Record
from django_convstate.backends.reports import Selection
from tests.support.backends import Switched, record_of
from tests.support.failover import Clock, Outage, append, made, messages_of
from tests.support.messages import bodies, pairs
from tests.support.servers import wait_until
from tests.support.wall_clock import jump

DAY = 24 * 3600


def is_known(backend: FailoverBackend, id: str) -> bool:
    """Tell whether this process would go on with the history in an outage."""
    record = backend._offline.load(id, 100)
    assert record is not None
    return not record.is_unknown


class TestTime:
    def test_a_conversation_is_remembered_since_it_was_last_seen(
        self, primary: Switched, clock: Clock
    ) -> None:
        with made(primary, outage_memory=600) as backend:
            for id in ("a", "b", "c"):
                backend.commit(id, append(b"1", ttl=DAY))
            clock.forward(500)
            backend.load("a", 5)
            backend.touch("b")
            clock.forward(200)
            assert [is_known(backend, id) for id in ("a", "b", "c")] == [True, True, False]

    def test_what_was_forgotten_is_neither_served_nor_written_back(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.others.delete("a")
        clock.forward(700)
        assert record_of(outage.backend, "a").is_unknown
        outage.commit(append=pairs(b"mine"))
        assert messages_of(outage.backend, "a") == [b"mine"]
        clock.forward(7200)
        assert outage.end() is None

    def test_a_claim_by_others_is_seen_when_it_is_forgotten(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.others_commit(owner="u1", append=pairs(b"logged in"))
        record = record_of(outage.backend, "a")
        assert (record.owner, bodies(record.messages)) == (None, [b"1", b"2", b"3"])
        clock.forward(700)
        assert record_of(outage.backend, "a").is_unknown

    def test_what_is_changed_in_the_outage_is_remembered_until_it_is_replayed(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.commit(append=pairs(b"mine"))
        clock.forward(3000)
        assert messages_of(outage.backend, "a") == [b"1", b"2", b"3", b"mine"]

    def test_so_it_is_though_others_have_deleted_it(self, outage: Outage, clock: Clock) -> None:
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"))
        outage.others.delete("a")
        clock.forward(700)
        assert messages_of(outage.backend, "a") == [b"1", b"2", b"3", b"mine"]
        assert outage.end() is None
        assert outage.backend.load("a", 10) is None

    def test_what_is_replayed_is_remembered_as_the_primary_has_it_then(
        self, outage: Outage, clock: Clock
    ) -> None:
        """Or the next outage would take its history away, if it comes before the next load."""
        outage.commit(append=pairs(b"mine"))
        outage.others_commit(append=pairs(b"theirs"), set={"k": b"1"})
        outage.end()
        outage.primary.away = True
        record = record_of(outage.backend, "a")
        assert bodies(record.messages) == [b"1", b"2", b"3", b"theirs", b"mine"]
        assert (record.state, record.version) == ({"n": b"10", "k": b"1"}, 3)
        assert outage.commit(append=pairs(b"more")) == 6
        outage.end()
        clock.forward(500)
        assert is_known(outage.backend, "a")
        clock.forward(200)
        assert not is_known(outage.backend, "a")

    def test_a_touch_in_the_outage_does_not_show_what_others_have_deleted(
        self, outage: Outage
    ) -> None:
        outage.others.delete("a")
        outage.backend.touch("a")
        outage.end()
        assert not is_known(outage.backend, "a")

    def test_what_cannot_be_looked_at_after_its_replay_is_forgotten(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def peek(id: str, window: int) -> Record | None:
            if id == "a":
                raise BackendUnavailable("There was no answer in time.")
            return outage.others.peek(id, window)  # for a probe

        monkeypatch.setattr(outage.primary, "peek", peek)
        outage.commit(append=pairs(b"mine"))
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"mine"]
        assert not is_known(outage.backend, "a")

    def test_nothing_may_be_remembered(self, primary: Switched) -> None:
        with made(primary, outage_memory=0) as backend:
            backend.commit("a", append(b"1"))
            backend.load("a", 5)
            assert not is_known(backend, "a")
            primary.away = True
            assert record_of(backend, "a").is_unknown
            assert backend.commit("a", append(b"2")).degraded
            primary.away = False
            backend.close()
            assert messages_of(primary, "a") == [b"1", b"2"]

    def test_the_setting_reaches_it(self, settings: Any) -> None:
        settings.CONVERSATION_STATE = {"OUTAGE_MEMORY": 0}
        backend = get_backend("redis", cache_alias="django_redis")
        assert isinstance(backend, FailoverBackend)
        backend._known.put("a", record(), backend._known.era)
        assert not is_known(backend, "a")

    def test_what_was_not_seen_for_a_day_is_not_restored(
        self, outage: Outage, clock: Clock
    ) -> None:
        """Others may have deleted it, and the store has forgotten that."""
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"), keep_messages=3)
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"more"), default_ttl=DAY)
        outage.others.delete("a")
        clock.forward(2 * DAY)
        assert bodies(outage.end().messages) == [b"mine", b"more"]
        assert outage.conflicts_and_lost == (0, 0)

    def test_what_is_remembered_too_long_takes_no_memory(self, clock: Clock) -> None:
        known = LastKnownCache(10, 10**6, None, 600)
        known.put("old", record(), 0)
        clock.forward(601)
        known.put("new", record(), 0)
        assert known.get("new")
        assert list(known._snapshots) == ["new"]


def record(**more: Any) -> Record:
    stored = LocMemBackend()
    stored.commit("a", Change(append=pairs(b"1"), **more))
    return record_of(stored, "a")


class TestGone:
    """What this process has deleted, or has learnt to be gone."""

    @pytest.mark.parametrize(
        "learn",
        [
            pytest.param(lambda backend: backend.exists("a"), id="exists"),
            pytest.param(lambda backend: backend.peek("a", 1), id="peek"),
            pytest.param(lambda backend: backend.load("a", 1), id="load"),
            pytest.param(lambda backend: backend.touch("a"), id="touch"),
            pytest.param(lambda backend: backend.acquire("a", "lease", 5, 1), id="acquire"),
            pytest.param(lambda backend: asyncio.run(backend.aexists("a")), id="aexists"),
            pytest.param(lambda backend: asyncio.run(backend.apeek("a", 1)), id="apeek"),
            pytest.param(lambda backend: asyncio.run(backend.atouch("a")), id="atouch"),
        ],
    )
    def test_what_is_found_to_be_gone_is_forgotten(
        self,
        primary: Switched,
        backend: FailoverBackend,
        learn: Callable[[FailoverBackend], object],
    ) -> None:
        backend.commit("a", append(b"1"))
        primary.others.delete("a")
        assert is_known(backend, "a")  # within OUTAGE_MEMORY
        learn(backend)
        assert not is_known(backend, "a")

    @pytest.mark.parametrize("is_async", [False, True])
    def test_so_is_what_a_commit_finds_to_be_gone(
        self, primary: Switched, backend: FailoverBackend, is_async: bool
    ) -> None:
        backend.commit("a", append(b"1"))
        primary.others.delete("a")
        change = append(b"2", create=Create.MUST_EXIST)
        with pytest.raises(ConversationInterrupted):
            asyncio.run(backend.acommit("a", change)) if is_async else backend.commit("a", change)
        assert not is_known(backend, "a")

    def test_what_was_deleted_is_forgotten_though_a_load_was_under_way(
        self, primary: Switched, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.commit("a", append(b"1"))
        real = primary.others.load

        def load(id: str, window: int) -> Record | None:
            loaded = real(id, window)
            assert backend.delete("a")
            return loaded

        monkeypatch.setattr(primary, "load", load)
        backend.load("a", 5)
        assert not is_known(backend, "a")

    def test_the_old_id_of_a_renamed_one_is_forgotten(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1"))
        assert backend.rename("a", "b")
        assert (is_known(backend, "a"), is_known(backend, "b")) == (False, True)
        primary.others.delete("b")
        assert not backend.rename("b", "c")
        assert (is_known(backend, "b"), is_known(backend, "c")) == (False, False)

    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize(
        ("selection", "forgotten"),
        [
            (Selection(owner="u1"), {"hers", "claimed", "nobody's"}),
            (Selection(everything=True), {"hers", "claimed", "nobody's", "his"}),
            (Selection(idle_for=50), {"hers", "claimed"}),
            (Selection(), set()),
        ],
    )
    def test_a_purge_reaches_what_is_remembered(
        self,
        backend: FailoverBackend,
        clock: Clock,
        selection: Selection,
        forgotten: set[str],
        is_async: bool,
    ) -> None:
        backend.commit("hers", append(b"1", owner="u1"))
        backend.commit("claimed", append(b"1"))
        backend.commit("claimed", append(b"1", owner="u1"))
        clock.forward(60)
        backend.commit("his", append(b"1", owner="u2"))
        backend.commit("nobody's", append(b"1"))
        backend.purge(selection, dry_run=True)
        ids = {"hers", "claimed", "his", "nobody's"}
        assert {id for id in ids if is_known(backend, id)} == ids
        if is_async:
            asyncio.run(backend.apurge(selection))
        else:
            backend.purge(selection)
        assert {id for id in ids if not is_known(backend, id)} == forgotten

    def test_a_load_that_was_under_way_in_a_purge_is_not_remembered(
        self, primary: Switched, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend.commit("a", append(b"1", owner="u1"))
        real = primary.others.load

        def load(id: str, window: int) -> Record | None:
            loaded = real(id, window)
            backend.purge(Selection(owner="u1"))
            return loaded

        monkeypatch.setattr(primary, "load", load)
        backend.load("a", 5)
        assert not is_known(backend, "a")

    @pytest.mark.parametrize("is_async", [False, True])
    def test_an_erasure_reaches_what_is_replayed_at_that_moment(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch, is_async: bool
    ) -> None:
        change = Change(create=Create.MUST_BE_NEW, owner="u1", append=pairs(b"1"))
        outage.backend.commit("hers", change)
        outage.primary.away = False
        forget = outage.backend._offline.forget_purged

        def replay_first(selection: Selection) -> list[str]:
            outage.others.commit("hers", change)  # its reply is still under way
            return forget(selection)

        monkeypatch.setattr(outage.backend._offline, "forget_purged", replay_first)
        if is_async:
            asyncio.run(outage.backend.apurge(Selection(owner="u1")))
        else:
            outage.backend.purge(Selection(owner="u1"))
        outage.end()
        assert not outage.others.exists("hers")

    def test_an_erasure_reaches_what_is_yet_to_be_replayed(self, outage: Outage) -> None:
        for id, owner in (("hers", "u1"), ("his", "u2")):
            change = Change(create=Create.MUST_BE_NEW, owner=owner, append=pairs(b"1"))
            outage.backend.commit(id, change)
        assert outage.backend.health().pending_replay == 2
        outage.primary.away = False
        outage.backend.purge(Selection(owner="u1"))  # before anything is replayed
        outage.end()
        assert not outage.others.exists("hers")
        assert outage.others.exists("his")


class TestUnknown:
    def test_its_owner_is_not_known_when_somebody_has_spoken_there_either(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(b'{"role":"user","content":1}', owner="u1"))
        store = ConversationStore(backend)
        primary.away = True
        for _ in range(2):
            for owner in ("u1", "u2"):
                with pytest.raises(BackendUnavailable):
                    store.get("a", owner=owner)
                with pytest.raises(BackendUnavailable):
                    asyncio.run(store.aget("a", owner=owner))
                with pytest.raises(BackendUnavailable):
                    store.open("a", owner=owner)
                with pytest.raises(BackendUnavailable):
                    asyncio.run(store.aopen("a", owner=owner))
            with pytest.raises(BackendUnavailable):
                store.open("a", strict=True)
            with pytest.raises(BackendUnavailable):
                asyncio.run(store.aopen("a", strict=True))
            conversation = store.get("a")
            conversation.messages.append("user", "hello")
            conversation.save()
        primary.away = False
        backend.close()
        assert len(store.get("a", owner="u1").messages) == 3
        with pytest.raises(ConversationNotFound):
            store.get("a", owner="u2")

    def test_what_was_begun_in_the_outage_is_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend)
        primary.away = True
        conversation = store.create(owner="u1")
        for number in range(2):
            conversation["k"] = number
            conversation.save()
        assert store.get(conversation.id, owner="u1")["k"] == 1
        assert store.open(conversation.id, owner="u1", strict=True)["k"] == 1
        with pytest.raises(BackendUnavailable):  # as for one that is not known here
            store.get(conversation.id, owner="u2")

    @pytest.mark.parametrize("ttl", [None, 77.0])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_it_has_the_configured_times_if_it_is_begun_anew(
        self, primary: Switched, backend: FailoverBackend, is_async: bool, ttl: float | None
    ) -> None:
        store = ConversationStore(backend, ttl=DAY)
        primary.away = True
        if is_async:
            conversation = asyncio.run(store.aopen("a", ttl=ttl))
        else:
            conversation = store.open("a", ttl=ttl)
        assert conversation.ttl == (ttl or DAY)
        if ttl is None:
            expiry = conversation.expires_at
            assert expiry is not None
            assert expiry.timestamp() == pytest.approx(time.time() + DAY, abs=30)
        conversation["k"] = 1
        conversation.save()
        assert store.get("a").ttl == (ttl or DAY)
        primary.away = False
        backend.close()
        assert record_of(primary, "a").ttl == (ttl or DAY)

    def test_it_keeps_its_own_time_if_it_is_there(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(b"1", ttl=99))
        primary.away = True
        conversation = ConversationStore(backend, ttl=DAY).open("a", ttl=77)
        conversation["k"] = 1
        conversation.save()
        primary.away = False
        backend.close()
        assert record_of(primary, "a").ttl == 99

    def test_one_that_is_only_touched_does_not_expire_here(
        self, primary: Switched, backend: FailoverBackend, clock: Clock
    ) -> None:
        primary.away = True
        backend.touch("a")
        clock.forward(2 * DAY)
        assert record_of(backend, "a").is_unknown

    def test_what_is_begun_in_the_outage_has_the_max_age_of_the_primary(self, clock: Clock) -> None:
        with made(primary := Switched(max_age=60)) as backend:
            primary.away = True
            backend.commit("a", append(b"1", create=Create.MUST_BE_NEW))
            clock.forward(59)
            assert record_of(backend, "a").version == 1
            clock.forward(2)
            assert backend.load("a", 1) is None


class TestSizes:
    def test_one_large_load_does_not_empty_what_is_known(self, primary: Switched) -> None:
        with made(primary, known_bytes=400_000) as backend:
            for number in range(20):
                backend.commit(f"c{number}", append(b"x" * 1000))
            primary.commit("large", Change(set={"k": b"x" * 150_000}))
            primary.commit("long", append(b"first", *[b"x" * 1000] * 999))
            backend.load("large", 1000)
            backend.load("long", 1000)
            assert not is_known(backend, "large")
            known = backend._offline.load("long", 1000)
            assert known is not None
            assert known.message_count == known.end == 1000
            assert 50 < len(known.messages) < 100
            assert known.first is not None
            assert known.first[1] == b"first"
            assert all(is_known(backend, f"c{number}") for number in range(20))

    def test_a_first_message_that_leaves_no_room_for_the_newest_is_forgotten(
        self, primary: Switched
    ) -> None:
        with made(primary, known_bytes=400_000) as backend:
            primary.commit("a", append(b"x" * 95_000, b"2" * 10_000, b"3" * 10_000))
            backend.load("a", 50)
            known = backend._offline.load("a", 50)
            assert known is not None
            assert (known.first, bodies(known.messages)) == (None, [b"2" * 10_000, b"3" * 10_000])

    def test_one_that_grows_too_large_is_cut_or_forgotten(self, primary: Switched) -> None:
        with made(primary, known_bytes=400_000) as backend:
            for id in ("other", "long", "large"):
                backend.commit(id, append(b"1"))
            for number in range(200):
                backend.commit("long", append(b"%d" % number * 1000))
            assert messages_of(backend._offline, "long")[-1] == b"199" * 1000  # type: ignore[arg-type]
            assert 10 < len(messages_of(backend._offline, "long")) < 50  # type: ignore[arg-type]
            backend.commit("large", Change(set={f"k{n}": b"x" * 10 for n in range(5000)}))
            assert not is_known(backend, "large")
            backend.commit("large", append(b"2"))
            assert not is_known(backend, "large")
            assert is_known(backend, "other")

    def test_all_of_a_large_window_is_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*[b"1"] * 400))
        backend.load("a", 300)
        for _ in range(20):
            backend.commit("a", append(b"2"))
        assert len(messages_of(backend._offline, "a")) >= 300  # type: ignore[arg-type]

    def test_the_loads_that_are_made_up_for_are_bounded(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(offline, "MAX_USED", 10)
        for number in range(50):
            outage.backend.load(f"c{number}", 1)
        assert list(outage.backend._offline.used) == [f"c{number}" for number in range(40, 50)]
        outage.end()
        assert not outage.backend._offline.used
        assert not outage.others.exists("c49"), "nothing is made of a load"

    def test_one_may_be_noted_while_another_is_made_up_for(
        self, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Shared(dict[str, None]):
            """Is read in one thread while another makes up for what comes first."""

            def __iter__(self) -> Iterator[str]:
                ids = super().__iter__()
                if sliding.submitted is None:
                    sliding.submitted = pool.submit(backend._recovery._slide, "a")
                    wait([sliding.submitted], timeout=0.5)
                return ids

        monkeypatch.setattr(offline, "MAX_USED", 1)
        sliding = SimpleNamespace(submitted=None)
        backend._recovery.route("a")  # there is a shard
        backend._offline.used = Shared(a=None)
        with ThreadPoolExecutor(1) as pool:
            backend._offline.note_use("b")
            sliding.submitted.result(60)

    def test_a_fallback_evicts_nothing(self, primary: Switched) -> None:
        backend = FailoverBackend(primary, LocMemBackend(max_conversations=2, max_bytes=1000))
        primary.away = True
        for number in range(20):
            backend.commit(f"c{number}", append(b"x" * 1000, create=Create.MUST_BE_NEW))
        assert all(record_of(backend, f"c{n}").version == 1 for n in range(20))
        primary.away = False
        backend.close()
        assert all(primary.exists(f"c{n}") for n in range(20))

    def test_a_journal_that_is_replayed_is_empty(self, outage: Outage) -> None:
        for number in range(20):
            outage.commit(
                set={f"k{number}": b"1", "ключ": b"2"}, append=pairs(b"x"), increment={"n": 1}
            )
            outage.backend.commit(f"c{number}", append((b"x"), create=Create.MUST_BE_NEW))
        outage.backend.delete("c3")
        outage.end()
        assert outage.backend._offline.journal._bytes == 0
        assert len(outage.backend.fallback._table) == outage.backend.fallback._table.memory == 0


class TestClock:
    """Clocks of the machine that are put right, and of a store that are wrong."""

    @pytest.mark.parametrize("hours", [-30, -3, 3, 30])
    def test_a_jump_makes_nothing_expire_or_be_forgotten(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch, hours: float
    ) -> None:
        outage.commit(append=pairs(b"mine"))
        jump(monkeypatch, hours)
        outage.commit(append=pairs(b"more"))
        expected = [b"1", b"2", b"3", b"mine", b"more"]
        assert messages_of(outage.backend, "a") == expected
        assert bodies(outage.end().messages) == expected
        outage.backend.load("a", 10)
        outage.primary.away = True
        jump(monkeypatch, -hours)
        assert messages_of(outage.backend, "a") == expected

    @pytest.mark.parametrize("hours", [-3, 3])
    def test_an_outage_lasts_as_long_as_it_does(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch, hours: float
    ) -> None:
        outage.commit(append=pairs(b"mine"))
        wait_until(lambda: outage.backend.health().since)
        jump(monkeypatch, hours)
        outage.end()
        assert 0 <= outage.stats["seconds"] < 3600

    @pytest.mark.parametrize("hours", [-3, 3])
    def test_a_deletion_is_replayed_whatever_the_wall_clock_says(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch, hours: float
    ) -> None:
        jump(monkeypatch, hours)
        assert outage.backend.delete("a")
        assert outage.end() is None

    @pytest.mark.parametrize("is_known", [True, False])
    @pytest.mark.parametrize("hours", [-3, 3])
    def test_a_deletion_is_replayed_on_a_store_with_another_clock(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch, hours: float, is_known: bool
    ) -> None:
        """Of one that was begun a moment ago, which that clock may take for later."""
        id = "a"
        if not is_known:
            outage.others.commit(id := "theirs", append(b"1"))
        others, ahead = outage.others, hours * 3600

        def peek(id: str, window: int) -> Record | None:
            record = others.peek(id, window)
            return record and replace(record, created_at=record.created_at + ahead)

        def commit(id: str, change: Change) -> Any:
            committed = others.commit(id, change)
            return replace(committed, expires_at=committed.expires_at + ahead)

        assert outage.backend.delete(id)
        monkeypatch.setattr(outage.primary, "peek", peek)
        monkeypatch.setattr(outage.primary, "commit", commit)
        outage.end()
        assert not others.exists(id)

    @pytest.mark.parametrize("hours", [-3, 3])
    def test_a_store_with_another_clock_is_known(
        self, primary: Switched, backend: FailoverBackend, hours: float
    ) -> None:
        primary.commit("a", append(b"1"))
        loaded = record_of(primary, "a")
        moved = {
            name: getattr(loaded, name) + hours * 3600
            for name in ("created_at", "modified_at", "last_accessed", "expires_at")
        }
        backend._known.put("a", replace(loaded, **moved), backend._known.era)
        primary.away = True
        assert messages_of(backend, "a") == [b"1"]
        backend.commit("a", append(b"2"))
        assert messages_of(backend, "a") == [b"1", b"2"]
