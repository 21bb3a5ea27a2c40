"""What comes home after an outage, and how it is merged with what others have done meanwhile."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationBusy, ConversationConflict, signals
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create
from django_convstate.backends.reports import Selection
from tests.support.backends import Switched, record_of
from tests.support.failover import Clock, Outage, made, messages_of
from tests.support.messages import bodies, pairs
from tests.support.servers import wait_until


class TestMerged:
    def test_appends_are_replayed_after_those_of_others(self, outage: Outage) -> None:
        outage.commit(append=pairs(b"mine"))
        outage.others_commit(append=pairs(b"theirs"))
        outage.commit(append=pairs(b"mine too"))
        home = outage.end()
        assert bodies(home.messages) == [b"1", b"2", b"3", b"theirs", b"mine", b"mine too"]
        assert outage.stats["replayed"] == 2
        assert outage.conflicts_and_lost == (0, 0)

    def test_increments_of_both_sides_add_up(self, outage: Outage) -> None:
        outage.commit(increment={"n": 1})
        outage.others_commit(increment={"n": 100})
        outage.commit(increment={"n": 2})
        assert outage.end().state["n"] == b"113"

    def test_the_replayed_value_of_a_key_wins(self, outage: Outage) -> None:
        outage.commit(set={"a": b'"mine"', "b": b'"mine"'})
        outage.others_commit(set={"a": b'"theirs"', "c": b'"theirs"'})
        home = outage.end()
        assert home.state == {"n": b"10", "a": b'"mine"', "b": b'"mine"', "c": b'"theirs"'}

    def test_increments_of_a_counter_that_became_text_are_a_conflict(self, outage: Outage) -> None:
        outage.commit(increment={"n": 1}, append=pairs(b"mine"), set={"a": b"1"})
        outage.others_commit(set={"n": b'"text"'})
        home = outage.end()
        assert bodies(home.messages) == [b"1", b"2", b"3", b"mine"]
        assert home.state == {"n": b'"text"', "a": b"1"}
        assert outage.conflicts_and_lost == (1, 0)

    def test_an_expected_version_is_not_checked_again_in_replay(self, outage: Outage) -> None:
        version = record_of(outage.backend, "a").version
        outage.commit(append=pairs(b"mine"), expected_version=version)
        outage.others_commit(append=pairs(b"theirs"))
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"theirs", b"mine"]

    def test_ttl_and_owner_are_replayed(self, outage: Outage) -> None:
        outage.commit(ttl=60.0, owner="u1")
        home = outage.end()
        assert (home.ttl, home.owner) == (60, "u1")

    def test_a_commit_that_arrived_before_the_outage_is_not_applied_twice(
        self, outage: Outage
    ) -> None:
        ghost = Change(append=pairs(b"mine"), increment={"n": 1})
        outage.others.commit("a", ghost)
        outage.others_commit(append=pairs(b"theirs"))
        outage.backend.commit("a", ghost)
        outage.commit(append=pairs(b"mine too"))
        home = outage.end()
        assert bodies(home.messages) == [b"1", b"2", b"3", b"mine", b"theirs", b"mine too"]
        assert home.state["n"] == b"11"


class TestTakenBack:
    """Who drops messages drops what they have seen, and none that they have not."""

    def test_a_truncation_is_replayed_where_nobody_else_has_written(self, outage: Outage) -> None:
        assert outage.commit(keep_messages=2, append=pairs(b"mine")) == 3
        assert outage.commit(keep_messages=1) == 1
        assert bodies(outage.end().messages) == [b"1"]

    def test_a_truncation_of_own_messages_keeps_those_of_others(self, outage: Outage) -> None:
        outage.commit(append=pairs(b"mine", b"wrong"))
        outage.others_commit(append=pairs(b"theirs"))
        outage.commit(keep_messages=4, append=pairs(b"right"))
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"theirs", b"mine", b"right"]
        assert outage.conflicts_and_lost == (0, 0)

    @pytest.mark.parametrize("keep", [0, 2])
    def test_a_truncation_below_messages_of_others_is_a_conflict(
        self, outage: Outage, keep: int
    ) -> None:
        outage.commit(keep_messages=keep)
        outage.others_commit(append=pairs(b"theirs"))
        outage.commit(append=pairs(b"mine"))
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"theirs", b"mine"]
        assert outage.conflicts_and_lost == (1, 0)

    def test_a_truncation_to_nothing_keeps_messages_of_others(self, outage: Outage) -> None:
        outage.commit(append=pairs(b"mine"))
        outage.others_commit(append=pairs(b"theirs"))
        outage.commit(keep_messages=0, append=pairs(b"anew"))
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"theirs", b"anew"]

    def test_a_truncation_of_what_others_have_truncated_is_applied_once(
        self, outage: Outage
    ) -> None:
        outage.others_commit(keep_messages=1)
        outage.commit(keep_messages=2, append=pairs(b"mine"))
        assert bodies(outage.end().messages) == [b"1", b"mine"]


class TestDeleted:
    def test_a_deletion_here_is_replayed(self, outage: Outage) -> None:
        outage.commit(append=pairs(b"mine"))
        assert outage.backend.delete("a")
        assert outage.backend.load("a", 5) is None
        assert not outage.backend.exists("a")
        outage.others_commit(append=pairs(b"theirs"))
        assert outage.end() is None

    def test_a_deletion_here_is_replayed_before_what_was_begun_anew(self, outage: Outage) -> None:
        outage.backend.delete("a")
        outage.commit(append=pairs(b"anew"))
        outage.others_commit(append=pairs(b"theirs"))
        home = outage.end()
        assert (bodies(home.messages), home.state) == ([b"anew"], {})

    def test_changes_of_what_others_deleted_are_lost(self, outage: Outage) -> None:
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"))
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine too"))
        outage.others.delete("a")
        assert outage.end() is None
        assert outage.conflicts_and_lost == (0, 2)

    def test_a_deletion_of_an_unknown_conversation_is_replayed(self, outage: Outage) -> None:
        outage.others.commit("b", Change(append=pairs(b"theirs")))
        assert outage.backend.delete("b")
        outage.end()
        assert not outage.others.exists("b")


class TestExpired:
    def test_what_expired_in_the_outage_is_restored_with_its_history(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"))
        clock.forward(7200)
        assert not outage.others.exists("a")
        home = outage.end()
        assert bodies(home.messages) == [b"1", b"2", b"3", b"mine"]
        assert home.state == {"n": b"10"}
        assert outage.conflicts_and_lost == (0, 0)

    def test_what_expired_and_was_begun_anew_by_others_gets_what_was_said_only(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"))
        clock.forward(7200)
        outage.others_commit(create=Create.MUST_BE_NEW, append=pairs(b"anew"))
        assert bodies(outage.end().messages) == [b"anew", b"mine"]
        assert outage.conflicts_and_lost == (0, 0)

    @pytest.mark.parametrize("is_known", [True, False])
    @pytest.mark.parametrize("is_async", [True, False])
    def test_a_load_in_the_outage_slides_the_expiry_after_it(
        self, outage: Outage, clock: Clock, is_async: bool, is_known: bool
    ) -> None:
        """Who only reads in the outage has used the conversation, too."""
        id = "a"
        if not is_known:
            outage.others.commit(id := "theirs", Change(append=pairs(b"1")))
        clock.forward(500)
        if is_async:
            asyncio.run(outage.backend.aload(id, 10))
        else:
            outage.backend.load(id, 10)
        clock.forward(2000)
        assert outage.backend.health().pending_replay == 0
        self.end(outage)
        clock.forward(3000)
        assert outage.others.exists(id)

    def test_so_it_does_where_only_writes_are_refused(self, outage: Outage, clock: Clock) -> None:
        outage.primary.away, outage.primary.read_only = False, True
        outage.commit(append=pairs(b"mine"))
        outage.others.commit("theirs", Change(append=pairs(b"1")))
        outage.backend.load("theirs", 10)
        clock.forward(2500)
        outage.primary.read_only = False
        self.end(outage)
        clock.forward(2500)
        assert outage.others.exists("theirs")

    def test_a_peek_in_the_outage_slides_nothing(self, outage: Outage, clock: Clock) -> None:
        outage.backend.peek("a", 10)
        clock.forward(2500)
        self.end(outage)
        clock.forward(2500)
        assert not outage.others.exists("a")

    def end(self, outage: Outage) -> None:
        """End it without a load, which would slide the expiry."""
        outage.primary.away = False
        outage.backend.close()

    def test_a_touch_is_replayed(self, outage: Outage) -> None:
        assert outage.backend.touch("a", 60.0)
        assert outage.end().ttl == 60

    def test_changes_of_an_unknown_conversation_that_is_gone_begin_it_anew(
        self, outage: Outage
    ) -> None:
        """Somebody had its token: it is begun anew with what was said."""
        change = Change(create=Create.MUST_EXIST, append=pairs(b"mine"))
        outage.backend.commit("b", change)
        outage.others.commit("c", Change(append=pairs(b"theirs")))
        outage.backend.commit("c", Change(create=Create.MUST_EXIST, append=pairs(b"mine")))
        outage.end()
        assert messages_of(outage.others, "b") == [b"mine"]
        assert messages_of(outage.others, "c") == [b"theirs", b"mine"]


class TestRefused:
    def test_changes_of_what_another_owner_claimed_are_lost_and_counted(
        self, outage: Outage, caplog: pytest.LogCaptureFixture
    ) -> None:
        outage.commit(owner="u1", append=pairs(b"mine"))
        outage.commit(append=pairs(b"mine too"))
        outage.backend.commit("b", Change(append=pairs(b"elsewhere")))
        outage.others_commit(owner="u2", append=pairs(b"theirs"))
        home = outage.end()
        assert (home.owner, bodies(home.messages)) == ("u2", [b"1", b"2", b"3", b"theirs"])
        assert messages_of(outage.others, "b") == [b"elsewhere"]
        assert outage.conflicts_and_lost == (0, 2)
        assert caplog.text.count("a change accepted during the outage is lost") == 2
        assert not any(secret in caplog.text for secret in ("mine", "theirs", "u1", "u2"))

    def test_a_refused_change_takes_none_of_the_others_along(
        self, outage: Outage, caplog: pytest.LogCaptureFixture
    ) -> None:
        outage.commit(append=pairs(b"mine"))
        outage.commit(visitor="u1", append=pairs(b"refused"))
        outage.commit(append=pairs(b"mine too"))
        outage.others_commit(owner="u2", append=pairs(b"theirs"))
        home = outage.end()
        assert bodies(home.messages) == [b"1", b"2", b"3", b"theirs", b"mine", b"mine too"]
        assert outage.conflicts_and_lost == (0, 1)
        assert caplog.text.count("a change accepted during the outage is lost") == 1

    def test_what_follows_a_refused_beginning_does_not_get_into_anothers(
        self, outage: Outage
    ) -> None:
        begun = Change(create=Create.MUST_BE_NEW, owner="u1", append=pairs(b"secret"))
        outage.backend.commit("taken", begun)
        outage.backend.commit("taken", Change(create=Create.MUST_EXIST, append=pairs(b"too")))
        outage.others.commit("taken", Change(owner="u2", append=pairs(b"theirs")))
        outage.end()
        assert messages_of(outage.others, "taken") == [b"theirs"]
        assert outage.conflicts_and_lost == (0, 2)

    def test_a_truncation_behind_a_refused_change_drops_no_messages_of_others(
        self, outage: Outage
    ) -> None:
        outage.commit(visitor="u1", append=pairs(b"refused", b"refused too"))
        outage.commit(keep_messages=3, append=pairs(b"mine"))
        outage.others_commit(owner="u2", append=pairs(b"theirs"))
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"theirs", b"mine"]
        assert outage.conflicts_and_lost == (1, 1)

    def test_a_primary_away_again_in_mid_replay_loses_nothing(self, outage: Outage) -> None:
        for number in range(10):
            outage.commit(append=pairs(b"m%d" % number))
        outage.primary.fails_after = 5  # of which the probe takes one
        outage.primary.away = False
        outage.backend.close()
        assert outage.backend.health().pending_replay == 6
        outage.primary.fails_after = None
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", *(b"m%d" % n for n in range(10))]


class TestTwoProcesses:
    """What two processes have accepted in the same outage, each for itself."""

    @pytest.fixture
    def other(self, outage: Outage) -> Iterator[FailoverBackend]:
        primary = outage.primary.seen_by_another()
        backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6))
        backend.load("a", 10)
        primary.away = True
        yield backend
        self.recover(backend)

    def recover(self, backend: FailoverBackend) -> None:
        backend.primary.away = False  # type: ignore[attr-defined]
        backend.close()

    @pytest.mark.parametrize("first_replayed", ["begun", "continued"])
    def test_two_processes_replay_one_new_conversation_in_any_order(
        self, outage: Outage, other: FailoverBackend, first_replayed: str
    ) -> None:
        outage.backend.commit("new", Change(create=Create.MUST_BE_NEW, append=pairs(b"one")))
        other.commit("new", Change(create=Create.MUST_EXIST, append=pairs(b"two")))
        if first_replayed == "begun":
            outage.end()
            self.recover(other)
        else:
            self.recover(other)
            outage.end()
        assert sorted(messages_of(outage.others, "new")) == [b"one", b"two"]

    @pytest.mark.parametrize("is_new", [True, False])
    def test_what_was_said_before_a_claim_by_another_process_is_lost_and_counted(
        self, outage: Outage, other: FailoverBackend, is_new: bool
    ) -> None:
        """That it was the visitor who has claimed it since, and no other, nobody can tell."""
        id, create = ("new", Create.MUST_BE_NEW) if is_new else ("a", Create.MUST_EXIST)
        outage.backend.commit(id, Change(create=create, visitor="", append=pairs(b"before")))
        other.commit(
            id,
            Change(
                create=Create.EITHER,
                owner="u1",
                visitor="u1",
                owner_is_attested=True,
                append=pairs(b"after"),
            ),
        )
        self.recover(other)
        outage.end()
        assert messages_of(outage.others, id)[-1] == b"after"
        assert b"before" not in messages_of(outage.others, id)
        assert outage.conflicts_and_lost == (0, 1)

    def test_a_purge_elsewhere_does_not_reach_what_is_begun_here(
        self, outage: Outage, other: FailoverBackend
    ) -> None:
        begun = Change(create=Create.MUST_BE_NEW, owner="u1", append=pairs(b"1"))
        outage.backend.commit("new", begun)
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"more"))
        self.recover(other)
        other.purge(Selection(everything=True))
        outage.end()
        assert outage.others.exists("new")
        assert not outage.others.exists("a")

    @pytest.mark.parametrize("first", ["here", "there"])
    def test_what_two_processes_accept_is_stored_in_the_order_of_replay(
        self, outage: Outage, other: FailoverBackend, first: str
    ) -> None:
        for number in range(3):
            outage.commit(append=pairs(b"here %d" % number))
            other.commit("a", Change(append=pairs(b"there %d" % number)))
        assert bodies(record_of(outage.backend, "a").messages)[3:] == [
            b"here 0",
            b"here 1",
            b"here 2",
        ]
        recoveries = [outage.end, lambda: self.recover(other)]
        order = ["here", "there"]
        if first == "there":
            recoveries.reverse()
            order.reverse()
        for recover in recoveries:
            recover()
        said = [b"%s %d" % (name.encode(), number) for name in order for number in range(3)]
        assert messages_of(outage.others, "a") == [b"1", b"2", b"3", *said]

    def test_two_processes_restore_an_expired_conversation_once(
        self, outage: Outage, other: FailoverBackend, clock: Clock
    ) -> None:
        for backend in (outage.backend, other):
            backend.commit("a", Change(create=Create.MUST_EXIST, append=pairs(b"mine")))
        clock.forward(7200)
        assert not outage.others.exists("a")
        outage.end()
        self.recover(other)
        assert messages_of(outage.others, "a") == [b"1", b"2", b"3", b"mine", b"mine"]

    def test_a_deletion_does_not_delete_what_others_began_anew(self, outage: Outage) -> None:
        assert outage.backend.delete("a")
        time.sleep(0.01)
        outage.others.delete("a")
        outage.others_commit(append=pairs(b"anew"))
        assert bodies(outage.end().messages) == [b"anew"]


class TestTrouble:
    @pytest.mark.parametrize("trouble", [ConversationBusy("busy"), RuntimeError("a bug")])
    def test_an_error_while_replaying_loses_nothing(
        self, outage: Outage, trouble: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outage.commit(append=pairs(b"said"))
        outage.primary.away = False
        real, troubles = outage.primary.commit, [trouble]

        def commit(id: str, change: Change) -> Any:
            if id == "a" and troubles:
                raise troubles.pop()
            return real(id, change)

        monkeypatch.setattr(outage.primary, "commit", commit)
        wait_until(lambda: not outage.backend.health().using_fallback)
        assert messages_of(outage.others, "a")[-1] == b"said"

    @pytest.mark.parametrize("is_refused", [False, True])
    def test_a_deletion_while_a_change_is_being_replayed_is_kept(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch, is_refused: bool
    ) -> None:
        outage.commit(append=pairs(b"said"))
        real = outage.primary.commit

        def commit(id: str, change: Change) -> Any:
            if id == "a" and outage.backend.exists("a"):
                assert outage.backend.delete("a")
                if is_refused:
                    raise ConversationConflict("another owner's")
            return real(id, change)

        monkeypatch.setattr(outage.primary, "commit", commit)
        assert outage.end() is None

    def test_a_second_thread_that_replays_as_well_loses_nothing(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outage.commit(append=pairs(b"first"))
        outage.commit(append=pairs(b"second"))
        real, closing, overtaken = outage.primary.commit, threading.get_ident(), threading.Event()

        def commit(id: str, change: Change) -> Any:
            if bodies(change.append) == [b"second"] and not overtaken.is_set():
                overtaken.set()  # by the other thread, which has replayed the first one
                raise BackendUnavailable("a lost request")
            committed = real(id, change)
            if bodies(change.append) == [b"first"] and threading.get_ident() == closing:
                outage.backend.exists("b")  # wakes the thread that close() has ended
                assert overtaken.wait(10)
            return committed

        monkeypatch.setattr(outage.primary, "commit", commit)
        outage.primary.away = False
        outage.backend.close()
        wait_until(lambda: not outage.backend.health().pending_replay)
        assert messages_of(outage.others, "a")[3:] == [b"first", b"second"]

    def test_an_owner_that_cannot_be_verified_is_refused(self, outage: Outage) -> None:
        outage.others.commit("theirs", Change(owner="1", append=pairs(b"secret")))
        with pytest.raises(BackendUnavailable, match="Cannot verify the owner"):
            outage.backend.commit("theirs", Change(create=Create.MUST_EXIST, owner="2"))
        outage.commit(owner="2")
        assert outage.end().owner == "2"

    def test_an_owner_that_a_token_or_a_login_says_is_accepted_and_checked_in_replay(
        self, outage: Outage
    ) -> None:
        outage.others.commit("theirs", Change(owner="1", append=pairs(b"secret")))
        outage.others.commit("nobody's", Change(append=pairs(b"before")))
        for id in ("theirs", "nobody's"):
            change = Change(owner="2", visitor="2", owner_is_attested=True, append=pairs(b"new"))
            outage.backend.commit(id, change)
            assert record_of(outage.backend, id).owner == "2"
        outage.end()
        assert messages_of(outage.others, "theirs") == [b"secret"]
        assert messages_of(outage.others, "nobody's") == [b"before", b"new"]
        assert record_of(outage.others, "nobody's").owner == "2"

    def test_the_known_history_counts_towards_the_journal(self) -> None:
        primary = Switched()
        primary.commit("long", Change(append=pairs(*[b"x" * 1000] * 50)))
        with made(primary, journal_bytes=30_000) as backend:
            backend.load("long", 100)
            for id in ("short", "another"):
                primary.away = True
                with pytest.raises(BackendUnavailable, match="full"):
                    backend.commit("long", Change(append=pairs(b"1")))
                backend.commit(id, Change(append=pairs(b"x" * 20_000)))
                primary.away = False
                backend.close()  # after which there is room again

    def test_a_slow_signal_receiver_does_not_delay_replay(self, outage: Outage) -> None:
        done = threading.Event()

        def wait(**kwargs: Any) -> None:
            done.wait(20)

        signals.backend_degraded.connect(wait, sender=outage.primary)
        try:
            outage.commit(append=pairs(b"said"))
            outage.primary.away = False
            wait_until(lambda: not outage.backend.health().using_fallback)
        finally:
            done.set()
            signals.backend_degraded.disconnect(wait, sender=outage.primary)

    def test_a_log_handler_that_never_returns_does_not_delay_replay(self, outage: Outage) -> None:
        """As that of a forked child, whose parent was writing to the file at that moment."""
        done = threading.Event()

        class Stuck(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                done.wait(20)

        stuck, logger = Stuck(), logging.getLogger("django_convstate")
        logger.addHandler(stuck)
        try:
            for _ in range(2):
                outage.primary.away = True
                outage.commit(append=pairs(b"said"))
                outage.primary.away = False
                wait_until(lambda: not outage.backend.health().using_fallback)
        finally:
            done.set()
            logger.removeHandler(stuck)

    def test_a_full_journal_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        primary = Switched()
        backend = FailoverBackend(primary, LocMemBackend(), journal_bytes=12_000)
        primary.away = True
        assert not backend.health().is_full
        with pytest.raises(BackendUnavailable, match="full"):
            for number in range(10):
                backend.commit(f"c{number}", Change(append=pairs(b"x" * 1000)))
        assert backend.health().is_full
        primary.away = False
        backend.close()
        assert not backend.health().is_full
        assert "1 were refused" in caplog.text
