"""What the failover backend promises wherever its primary is: here that is memory, which can be
switched off. tests/chaos has real servers."""

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationNotFound, ConversationStore, signals
from django_convstate.backends.failover import FailoverBackend, breaker
from django_convstate.backends.failover.recovery import Recovery
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import DEFAULT_TTL, Change, Create
from django_convstate.ids import new_id
from tests.support.backends import Switched, record_of
from tests.support.servers import wait_until


@pytest.fixture
def primary() -> Switched:
    return Switched()


@pytest.fixture
def backend(primary: Switched) -> Iterator[FailoverBackend]:
    with made(primary) as backend:
        yield backend


@contextmanager
def made(primary: Switched, **limits: int) -> Iterator[FailoverBackend]:
    backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6), **limits)
    try:
        yield backend
    finally:
        primary.away = primary.read_only = False
        backend.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the probes come after hundredths of a second."""
    monkeypatch.setattr(breaker, "SHORTEST_PROBE_WAIT", 0.02)
    monkeypatch.setattr(breaker, "LONGEST_PROBE_WAIT", 0.05)


def append(*texts: bytes, **more: Any) -> Change:
    return Change(append=texts, **more)


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


class TestKnown:
    def test_a_conversation_goes_on_with_its_history(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1", set={"k": b'"v"'}, increment={"n": 2}, owner="u1"))
        backend.commit("a", append(b"2", increment={"n": 3}))
        primary.away = True
        record = record_of(backend, "a")
        assert record.degraded
        assert (record.messages, record.owner, record.version) == ([b"1", b"2"], "u1", 2)
        assert record.state == {"k": b'"v"', "n": b"5"}
        committed = backend.commit("a", append(b"3", increment={"n": 1}, unset=["k"]))
        assert (committed.degraded, committed.version, committed.message_count) == (True, 3, 3)
        assert record_of(backend, "a").state == {"n": b"6"}
        assert backend.exists("a")
        assert backend.read_messages("a", 1, 3) == [b"2", b"3"]

    def test_of_what_is_not_known_nothing_is_claimed(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.away = True
        record = record_of(backend, "a")
        assert (record.degraded, record.version, record.messages) == (True, 0, [])
        for ask in (lambda: backend.exists("a"), lambda: backend.read_messages("a", 0, 1)):
            with pytest.raises(BackendUnavailable):
                ask()

    def test_there_is_none_is_known_of_no_longer_than_the_primary_says_so(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        assert backend.load("a", 5) is None
        primary.away = True
        assert record_of(backend, "a").version == 0

    def test_the_count_is_bounded(self, primary: Switched) -> None:
        with made(primary, known_conversations=3) as backend:
            for number in range(5):
                backend.commit(f"c{number}", append(b"1"))
            backend.load("c2", 5)  # the latest now
            backend.commit("c5", append(b"1"))
            primary.away = True
            known = [n for n in range(6) if record_of(backend, f"c{n}").version]
            assert known == [2, 4, 5]

    def test_the_bytes_are_bounded(self, primary: Switched) -> None:
        with made(primary, known_bytes=100_000) as backend:
            for number in range(50):
                backend.commit(f"c{number}", append(b"x" * 10_000))
            primary.away = True
            known = [n for n in range(50) if record_of(backend, f"c{n}").version]
            assert known == list(range(50 - len(known), 50))
            assert 5 <= len(known) <= 10

    def test_a_window_of_it(self, primary: Switched, backend: FailoverBackend) -> None:
        primary.commit("a", append(*numbers(0, 20)))
        backend.load("a", 5)
        primary.away = True
        record = backend.load("a", 50)
        assert record is not None
        assert (record.messages, record.message_count) == (numbers(15, 20), 20)
        assert backend.read_messages("a", 15, 20) == numbers(15, 20)
        with pytest.raises(BackendUnavailable, match="older messages"):
            backend.read_messages("a", 14, 20)

    def test_truncated_within_what_is_known_and_beyond(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*numbers(0, 20)))
        backend.load("a", 5)
        primary.away = True
        assert backend.commit("a", append(b"new", keep_messages=18)).message_count == 19
        assert record_of(backend, "a").messages == [*numbers(15, 18), b"new"]
        assert backend.commit("a", append(b"newer", keep_messages=7)).message_count == 8
        assert record_of(backend, "a").messages == [b"newer"]
        primary.away = False
        backend.close()
        assert record_of(primary, "a").messages == [*numbers(0, 7), b"newer"]

    def test_the_window_of_a_conversation_is_what_is_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        messages = [b'{"role":"user","content":%d}' % n for n in range(20)]
        primary.commit("a", append(*messages))
        backend.load("a", 5)
        primary.away = True
        conversation = ConversationStore(backend).get("a")
        assert [m["content"] for m in conversation.messages.window(10)] == list(range(15, 20))
        conversation.messages.append("user", "new")
        assert len(conversation.messages) == 21
        assert [m["content"] for m in conversation.messages.window(10)][-2:] == [19, "new"]
        conversation.messages.truncate(3)
        assert conversation.messages.window(10) == []
        with pytest.raises(BackendUnavailable):
            conversation.messages.all()

    def test_what_others_made_of_a_counter(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", Change(set={"n": b'"text"'}))
        primary.others.commit("a", Change(set={"n": b"1"}))
        backend.commit("a", append(b"1", increment={"n": 1}))
        primary.away = True
        assert record_of(backend, "a").version == 3


class TestJournal:
    def test_when_it_is_full_nothing_is_changed(self, primary: Switched) -> None:
        with made(primary, journal_bytes=50_000) as backend:
            primary.away = True
            accepted = 0
            with pytest.raises(BackendUnavailable, match="Nothing was changed") as caught:
                for _ in range(100):
                    backend.commit("a", append(b"x" * 1000))
                    accepted += 1
            assert not caught.value.transient
            assert 10 < accepted < 20
            for id in ("a", "b"):
                with pytest.raises(BackendUnavailable):
                    backend.commit(id, append(b"x" * 2000))
            assert record_of(backend, "a").message_count == accepted
            assert record_of(backend, "b").version == 0
            assert backend.health().pending_replay == accepted
            primary.away = False
            backend.close()
            assert record_of(primary, "a").message_count == accepted
            assert backend.commit("b", append(b"1")).degraded is False

    def test_a_refused_change_leaves_nothing_behind(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1"))
        assert record_of(backend, "a").version == 1
        primary.away = True
        with pytest.raises(Exception, match="taken"):
            backend.commit("a", append(b"2", create=Create.MUST_BE_NEW))
        assert backend.health().pending_replay == 0
        assert record_of(backend, "a").messages == [b"1"]


class TestStore:
    def test_an_owner_asked_for_and_not_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend)
        for owner in ("u1", "u2"):
            conversation = store.create(owner=owner)
            conversation["a"] = 1
            conversation.save()
        primary.away = True
        assert store.get(conversation.id, owner="u2").degraded
        with pytest.raises(ConversationNotFound):
            store.get(conversation.id, owner="u1")
        with pytest.raises(BackendUnavailable):
            store.get(new_id(), owner="u1")
        with pytest.raises(BackendUnavailable):
            asyncio.run(store.aget(new_id(), owner="u1"))

    def test_a_new_id_is_not_given_while_a_part_of_it_is_away(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*[b'{"role":"user","content":1}'] * 80))
        store = ConversationStore(backend)
        conversation = store.get("a")  # its window is 50
        primary.away = True
        with pytest.raises(BackendUnavailable, match="new id"):
            conversation.cycle_id()
        assert conversation.id == "a"
        whole = store.create()
        whole["a"] = 1
        whole.save()
        with pytest.raises(BackendUnavailable, match="new id"):
            whole.cycle_id()  # what its client has said to another process is not known here

    @pytest.mark.usefixtures("quick")
    def test_loaded_in_an_outage_and_saved_after_it(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        """That nothing was known of it does not make it gone."""
        store = ConversationStore(backend)
        primary.away = True
        conversation = store.get("a")
        primary.away = False
        wait_until(lambda: not backend.health().using_fallback)
        conversation.incr("n")
        conversation.save()
        assert not conversation.degraded
        assert record_of(primary, "a").state == {"n": b"1"}

    def test_degraded_says_so_until_it_is_replayed(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend)
        conversation = store.create()
        conversation["a"] = 1
        conversation.save()
        assert not conversation.degraded
        primary.away = True
        conversation["a"] = 2
        conversation.save()
        assert conversation.degraded
        assert not conversation.is_new
        primary.away = False
        assert store.get(conversation.id).degraded, "it is not replayed yet"
        backend.close()
        conversation.reload()
        assert (conversation["a"], conversation.degraded) == (2, False)


async def test_the_twins_do_the_same(primary: Switched, backend: FailoverBackend) -> None:
    await backend.acommit("a", append(b"1"))
    primary.away = True
    record = await backend.aload("a", 5)
    assert record is not None
    assert (record.degraded, record.messages) == (True, [b"1"])
    assert (await backend.acommit("a", append(b"2"))).degraded
    assert await backend.aread_messages("a", 0, 2) == [b"1", b"2"]
    assert await backend.aexists("a")
    assert await backend.atouch("a", 60.0)
    await backend.acommit("b", append(b"1"))
    assert await backend.adelete("b")
    assert (await backend.ahealth()).pending_replay == 3
    primary.away = False
    await backend.aclose()
    assert record_of(primary, "a").messages == [b"1", b"2"]
    assert record_of(primary, "a").ttl == 60
    assert not primary.exists("b")
    peeked = await backend.apeek("a", 5)
    assert peeked is not None
    assert not peeked.degraded


def test_while_only_writing_is_refused_reading_goes_on(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.commit("a", append(*numbers(0, 20), ttl=DEFAULT_TTL))
    primary.read_only = True
    backend.commit("b", append(b"1"))
    record = backend.load("a", 50)
    assert record is not None
    assert (record.degraded, record.messages) == (True, numbers(0, 20))
    assert backend.read_messages("a", 0, 2) == numbers(0, 2)
    assert backend.exists("a")
    assert not backend.exists("c")


def test_slow_ones_are_waited_for_three_times_and_cancelled_ones_say_nothing(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.away = primary.slow = True
    for _ in range(2):
        backend.load("a", 5)
        assert backend.health().since is None
    primary.away = False
    assert backend.load("a", 5) is None
    primary.away = True
    for number in range(3):
        assert backend.health().since is None, number
        backend.load("a", 5)
    wait_until(lambda: backend.health().since)


def test_data_errors_say_nothing_about_the_primary(
    primary: Switched, backend: FailoverBackend
) -> None:
    backend.commit("a", Change(set={"n": b'"text"'}))
    for _ in range(10):
        with pytest.raises(Exception, match="integer"):
            backend.commit("a", Change(increment={"n": 1}))
    assert not backend.health().using_fallback


@pytest.mark.usefixtures("quick")
class TestTelling:
    def test_once_in_an_outage(
        self, primary: Switched, backend: FailoverBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[tuple[str, dict[str, Any]]] = []

        def degraded(sender: object, **news: Any) -> None:
            told.append(("degraded", news))

        def recovered(sender: object, **news: Any) -> None:
            told.append(("recovered", news))

        signals.backend_degraded.connect(degraded, sender=primary)
        signals.backend_recovered.connect(recovered, sender=primary)
        for outage in range(2):
            primary.away = True
            for number in range(20):
                backend.commit(f"a{number}", append(b"1"))
            wait_until(lambda outage=outage: len(told) == 2 * outage + 1)
            health = backend.health()
            assert (health.connected, health.using_fallback, health.pending_replay) == (
                False,
                True,
                20,
            )
            assert health.since is not None
            primary.away = False
            wait_until(lambda outage=outage: len(told) == 2 * outage + 2)
            assert backend.health() == primary.health()
        assert [kind for kind, _ in told] == ["degraded", "recovered"] * 2
        assert "switched off" in told[0][1]["reason"]
        assert (told[1][1]["replayed"], told[1][1]["conflicts"], told[1][1]["lost"]) == (20, 0, 0)
        ours = [r.levelno for r in caplog.records if r.name == "django_convstate"]
        assert ours == [logging.ERROR, logging.WARNING] * 2

    def test_the_probes_are_one_at_a_time_whatever_the_load(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        before = set(threading.enumerate())

        def probing() -> int:
            new = set(threading.enumerate()) - before
            return [thread.name for thread in new].count("convstate-recovery")

        primary.away = True
        for number in range(200):
            backend.load(f"a{number}", 5)
        assert probing() == 1
        primary.away = False
        wait_until(lambda: probing() == 0)

    def test_closed_in_the_outage_and_only_read_from_afterwards(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1"))
        primary.away = True
        backend.load("a", 5)
        backend.close()
        primary.away = False
        wait_until(lambda: not record_of(backend, "a").degraded, 5)

    def test_a_change_that_comes_as_the_thread_ends_is_not_forgotten(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        late: list[threading.Thread] = []

        class Ending(Recovery):
            @property
            def _is_over(self) -> bool:
                over = super()._is_over
                if over and self._lock.locked() and not late:
                    primary.away = primary.slow = True  # so that it says nothing for sure
                    late.append(threading.Thread(target=backend.commit, args=("b", append(b"1"))))
                    late[0].start()
                    wait_until(lambda: self._offline.journal.pending)
                    primary.away = False
                return over

        backend._recovery.__class__ = Ending
        primary.away = True
        backend.commit("a", append(b"1"))
        primary.away = False
        wait_until(lambda: primary.others.exists("b"), 5)
        late[0].join()


class TestEnd:
    def test_closing_replays_and_tells(
        self, primary: Switched, backend: FailoverBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        primary.away = True
        backend.commit("a", append(b"1"))
        wait_until(lambda: backend.health().since)
        primary.away = False
        backend.close()
        assert record_of(primary, "a").messages == [b"1"]
        assert backend.health() == primary.health()
        assert "is back" in caplog.text

    def test_closing_in_the_outage_keeps_what_waits(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.away = True
        backend.commit("a", append(b"1"))
        backend.close()
        assert record_of(backend, "a").messages == [b"1"]
        primary.away = False
        backend.commit("a", append(b"2"))
        backend.close()
        assert record_of(primary, "a").messages == [b"1", b"2"]

    @pytest.mark.parametrize("comes_back", [True, False])
    def test_the_end_of_the_process(self, comes_back: bool) -> None:
        script = f"""
        import atexit, logging, django
        from django.conf import settings
        settings.configure(SECRET_KEY="s")
        django.setup()
        from django_convstate.backends.base import Change
        from django_convstate.backends.failover import FailoverBackend
        from django_convstate.backends.locmem import LocMemBackend
        from tests.support.backends import Switched
        primary = Switched()
        def show():
            primary.away = False
            print("replayed", primary.exists("a"))
        backend = FailoverBackend(primary, LocMemBackend())
        primary.away = True
        for number in range(3):
            backend.commit("a", Change(append=[b"1"]))
        backend.commit("b", Change(append=[b"1"]))
        primary.away = {not comes_back}
        import django_convstate.backends.failover.backend as module
        atexit.unregister(module._replay_at_exit)
        atexit.register(show)
        atexit.register(module._replay_at_exit)  # the last one goes first
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            check=True,
            timeout=30,
            capture_output=True,
            text=True,
        )
        assert f"replayed {comes_back}" in done.stdout
        lost = "4 changes of 2 conversations are lost with this process" in done.stderr
        assert lost is not comes_back

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_process_begins_with_nothing(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.away = True
        backend.commit("a", append(b"1"))
        child = os.fork()
        if child == 0:
            ok = (
                backend.health().pending_replay == 0
                and record_of(backend, "a").version == 0
                and not list(backend.fallback.scan())
                and backend.commit("a", append(b"2")).degraded
            )
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        primary.away = False
        backend.close()
        assert record_of(primary, "a").messages == [b"1"]
