"""What replay makes of changes, when others have changed the same meanwhile, and of a commit whose
reply was lost."""

import json
import time
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationStore
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.records import Change, Committed, Create, Replacement
from django_convstate.backends.reports import Selection
from django_convstate.backends.toolkit.writer import Commit
from django_convstate.ids import new_id
from tests.support.backends import record_of
from tests.support.failover import Clock, Outage, append, made, messages_of, numbers
from tests.support.messages import bodies, pairs
from tests.support.places import make_place

DAY = 24 * 3600
BASE = b'{"a":1,"b":1}'


class Losing:
    """A commit that is applied once, and whose reply is lost; until `is_over`, no other one is."""

    def __init__(self, backend: ConversationStateBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_over, self._is_lost, self._commit = False, False, backend.commit
        monkeypatch.setattr(backend, "commit", self)

    def __call__(self, id: str, change: Change) -> Committed:
        if self.is_over:
            return self._commit(id, change)
        if not self._is_lost:
            self._commit(id, change)
            self._is_lost = True
        raise BackendUnavailable("The reply was lost.", transient=False)


def commit_and_lose_the_reply(
    outage: Outage, monkeypatch: pytest.MonkeyPatch, **change: Any
) -> Losing:
    """Commit while the primary is available, and switch it off."""
    outage.primary.away = False
    losing = Losing(outage.primary, monkeypatch)
    outage.commit(**change)
    outage.primary.away = True
    return losing


def commit_of_others(others: ConversationStateBackend, id: str, count: int) -> None:
    """Commit often, as few processes do that live for long."""
    for number in range(count):
        writer, nth = b"writer %d" % (number % 8), number // 8 + 1
        change = Change(
            set={"theirs": b"%d" % number}, increment={"n": 1}, commit=Commit(writer, nth, nth)
        )
        others.commit(id, change)


class TestReplyLost:
    def test_a_commit_is_applied_once_after_ten_thousand_of_others(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losing = commit_and_lose_the_reply(
            outage, monkeypatch, append=pairs(b"mine"), increment={"n": 5}
        )
        commit_of_others(outage.others, "a", 10_000)
        outage.others_commit(append=pairs(b"theirs"))
        outage.commit(append=pairs(b"mine too"), increment={"n": 1})
        losing.is_over = True
        stored = outage.end()
        assert bodies(stored.messages) == [b"1", b"2", b"3", b"mine", b"theirs", b"mine too"]
        assert stored.state["n"] == b"%d" % (10 + 5 + 10_000 + 1)
        assert outage.conflicts_and_lost == (0, 0)

    @pytest.mark.usefixtures("valkey")
    def test_a_commit_to_redis_is_applied_once_after_hundreds_of_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, others = make_place("failover"), make_place("standalone")
        assert isinstance(backend, FailoverBackend)
        id = new_id()
        backend.commit(id, append(b"1", ttl=60.0, create=Create.MUST_BE_NEW))
        losing = Losing(backend.primary, monkeypatch)
        assert backend.commit(id, append(b"mine", increment={"n": 5})).degraded
        commit_of_others(others, id, 300)
        others.commit(id, append(b"theirs"))
        assert backend.commit(id, append(b"mine too", increment={"n": 1})).degraded
        losing.is_over = True
        backend.close()
        assert backend.health().pending_replay == 0
        assert messages_of(others, id) == [b"1", b"mine", b"theirs", b"mine too"]
        assert record_of(others, id).state["n"] == b"306"
        others.close()

    @pytest.mark.parametrize("was_sent", [True, False])
    def test_what_was_sent_a_day_ago_is_lost_and_what_was_not_sent_is_replayed(
        self, outage: Outage, was_sent: bool
    ) -> None:
        """As every shared backend has it: see `OnceContract`."""
        change = append(b"mine")
        outage.backend.commit("a", change)
        if was_sent:
            change.commit.sent_at = time.monotonic() - DAY
        real = outage.others.commit

        def commit(id: str, change: Change) -> Committed:
            change.commit.sending()
            return real(id, change)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outage.primary, "commit", commit)
            stored = outage.end()
        assert bodies(stored.messages)[3:] == [b"mine"] * (not was_sent)
        assert outage.conflicts_and_lost == (0, int(was_sent))

    def test_a_truncation_behind_it_keeps_messages_of_others(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losing = commit_and_lose_the_reply(outage, monkeypatch, append=pairs(b"mine"))
        outage.others_commit(append=pairs(b"theirs"))
        outage.commit(keep_messages=3, append=pairs(b"better"))
        losing.is_over = True
        assert b"theirs" in bodies(outage.end().messages)

    def test_a_truncation_behind_it_is_applied_where_nobody_else_has_written(
        self, outage: Outage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losing = commit_and_lose_the_reply(outage, monkeypatch, append=pairs(b"mine"))
        outage.commit(keep_messages=3, append=pairs(b"better"))
        losing.is_over = True
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"better"]


class TestNested:
    @pytest.fixture
    def outage(self, outage: Outage) -> Outage:
        outage.others_commit(set={"d": BASE, "l": b"[1]"})
        outage.primary.away = False
        outage.backend.load("a", 10)
        outage.primary.away = True
        return outage

    def state(self, outage: Outage) -> Any:
        return {key: json.loads(value) for key, value in outage.end().state.items()}

    def test_nested_changes_of_both_sides_are_merged(self, outage: Outage) -> None:
        outage.commit(expected={"d": BASE}, set={"d": b'{"a":2,"b":1}'})
        outage.commit(expected={"d": b'{"a":2,"b":1}'}, set={"d": b'{"a":2,"b":1,"mine":1}'})
        outage.commit(expected={"l": b"[1]"}, set={"l": b"[1,2]"})
        outage.others_commit(set={"d": b'{"a":1,"b":3,"theirs":1}', "l": b"[1,9]"})
        state = self.state(outage)
        assert state["d"] == {"a": 2, "b": 3, "mine": 1, "theirs": 1}
        assert state["l"] == [1, 9, 2]
        assert outage.conflicts_and_lost == (0, 0)

    def test_the_replayed_value_of_a_leaf_wins(self, outage: Outage) -> None:
        outage.commit(expected={"d": BASE}, set={"d": b'{"a":2,"b":1}'})
        outage.others_commit(set={"d": b'{"a":3}'})
        assert self.state(outage)["d"] == {"a": 2}

    def test_a_nested_change_is_merged_where_nothing_is_known(self, outage: Outage) -> None:
        """It was loaded before the outage, and is not remembered any more."""
        outage.others.commit("b", Change(set={"d": BASE, "e": BASE}))
        outage.others.commit("b", Change(set={"d": b'{"a":1,"b":3}'}))
        for number in (2, 4):
            outage.backend.commit(
                "b",
                Change(
                    create=Create.MUST_EXIST,
                    expected={"d": BASE if number == 2 else b'{"a":2,"b":1}'},
                    set={"d": b'{"a":%d,"b":1}' % number},
                ),
            )
        outage.end()
        assert json.loads(record_of(outage.others, "b").state["d"]) == {"a": 4, "b": 3}


class TestMessages:
    def message(self, **fields: Any) -> bytes:
        return json.dumps({"role": "user", "content": "hello"} | fields).encode()

    @pytest.fixture
    def ids(self, outage: Outage) -> list[str]:
        messages = pairs(*[self.message()] * 3)
        outage.others_commit(append=messages)
        outage.primary.away = False
        outage.backend.load("a", 10)
        outage.primary.away = True
        return [id for id, _ in messages]

    def replace(self, id: str, *, old: bytes | None = None, **fields: Any) -> Replacement:
        return Replacement(id=id, old=old or self.message(), new=self.message(**fields))

    def messages(self, outage: Outage) -> Any:
        return [json.loads(data) for data in bodies(outage.end().messages[3:])]

    def test_a_message_updated_by_both_sides_is_merged_field_by_field(
        self, outage: Outage, ids: list[str]
    ) -> None:
        outage.commit(replace=[self.replace(ids[1], mine=1)])
        outage.commit(replace=[self.replace(ids[1], old=self.message(mine=1), mine=2)])
        outage.others_commit(replace=[self.replace(ids[1], theirs=1, content="theirs")])
        hello = {"role": "user", "content": "hello"}
        merged = {"role": "user", "content": "theirs", "mine": 2, "theirs": 1}
        assert self.messages(outage) == [hello, merged, hello]
        assert outage.conflicts_and_lost == (0, 0)

    def test_an_update_of_what_others_have_dropped_is_a_conflict(
        self, outage: Outage, ids: list[str]
    ) -> None:
        outage.commit(
            replace=[self.replace(ids[2], mine=1), self.replace(ids[0], mine=1)],
            append=pairs(self.message(content="new")),
            increment={"n": 1},
        )
        outage.others_commit(keep_messages=5)
        messages = self.messages(outage)
        assert [message.get("mine") for message in messages] == [1, None, None]
        assert messages[2]["content"] == "new"
        assert record_of(outage.others, "a").state["n"] == b"11"
        assert outage.conflicts_and_lost == (1, 0)

    def test_a_redaction_wins_over_an_update_of_others(
        self, outage: Outage, ids: list[str]
    ) -> None:
        redacted = b'{"role":"user","redacted":true}'
        outage.commit(replace=[Replacement(id=ids[1], old=None, new=redacted)])
        outage.others_commit(replace=[self.replace(ids[1], content="a secret")])
        assert self.messages(outage)[1] == {"role": "user", "redacted": True}

    def test_a_redaction_of_what_others_have_dropped_is_nothing_to_do(
        self, outage: Outage, ids: list[str]
    ) -> None:
        redacted = b'{"role":"user","redacted":true}'
        outage.commit(replace=[Replacement(id=ids[2], old=None, new=redacted)], increment={"n": 1})
        outage.others_commit(keep_messages=5)
        assert len(self.messages(outage)) == 2
        assert record_of(outage.others, "a").state["n"] == b"11"

    def test_a_message_that_is_not_known_is_not_said_to_be_absent(
        self, outage: Outage, ids: list[str]
    ) -> None:
        outage.others.commit("b", Change(append=pairs(*[self.message()] * 2)))
        (first, _), _ = record_of(outage.others, "b").messages
        outage.backend.commit("b", append(self.message(), create=Create.MUST_EXIST))
        with pytest.raises(BackendUnavailable):
            outage.backend.find("b", first)
        assert outage.backend.find("a", "none such") is None

    def test_an_update_of_a_message_that_is_not_known_here_is_replayed(
        self, outage: Outage
    ) -> None:
        """It was made before the outage, of one further back than what is remembered."""
        outage.primary.away = False
        store = ConversationStore(outage.backend)
        conversation = store.create()
        for number in range(120):
            conversation.messages.append("user", f"message {number}")
        conversation.save()
        conversation = store.get(conversation.id)
        conversation.messages.update(conversation.messages.all()[0].id, rating=1)
        outage.primary.away = True
        conversation.messages.append("user", "the last one")
        conversation.save()
        outage.end()
        stored = ConversationStore(outage.others).get(conversation.id).messages.all()
        assert (stored[0]["rating"], stored[-1]["content"]) == (1, "the last one")
        assert len(stored) == 121


class TestGone:
    @pytest.mark.parametrize("create", [Create.MUST_EXIST, Create.EITHER])
    @pytest.mark.parametrize("by", ["deletion", "purge"])
    def test_what_others_have_deleted_is_not_begun_again(
        self, outage: Outage, create: Create, by: str
    ) -> None:
        outage.commit(create=create, append=pairs(b"mine"))
        if by == "deletion":
            outage.others.delete("a")
        else:
            outage.others.purge(Selection(everything=True))
        assert outage.end() is None
        assert outage.conflicts_and_lost == (0, 1)

    def test_what_others_have_deleted_is_not_restored_when_it_would_have_expired(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"))
        outage.others.delete("a")
        clock.forward(7200)
        assert outage.end() is None
        assert outage.conflicts_and_lost == (0, 1)

    def test_what_has_expired_is_restored_with_its_positions(
        self, outage: Outage, clock: Clock
    ) -> None:
        outage.others.commit("b", append(*numbers(0, 20), owner="u1", set={"k": b"1"}))
        outage.primary.away = False
        outage.backend.load("b", 5)
        outage.primary.away = True
        outage.backend.commit("b", append(b"mine", create=Create.MUST_EXIST))
        before = record_of(outage.backend, "b")
        clock.forward(7200)
        outage.others.purge(Selection())
        outage.end()
        stored = record_of(outage.others, "b")
        assert (stored.dropped, stored.message_count, stored.end) == (15, 6, 21)
        assert list(stored.messages) == list(before.messages)
        assert bodies(outage.others.read_messages("b", 19, 21)) == [b"19", b"mine"]
        assert (stored.owner, stored.state, stored.created_at) == (
            "u1",
            {"k": b"1"},
            before.created_at,
        )


class TestLimits:
    def test_they_are_not_checked_again(self, outage: Outage) -> None:
        limits = {"max_messages": 4, "max_state_bytes": 50}
        outage.commit(append=pairs(b"mine"), set={"mine": b'"%s"' % (b"x" * 20)}, **limits)
        outage.others_commit(append=pairs(b"theirs"), set={"theirs": b'"%s"' % (b"x" * 20)})
        stored = outage.end()
        assert bodies(stored.messages) == [b"1", b"2", b"3", b"theirs", b"mine"]
        assert {"mine", "theirs"} <= set(stored.state)
        assert outage.conflicts_and_lost == (0, 0)

    def test_the_oldest_messages_are_dropped(self, outage: Outage) -> None:
        options = {"max_messages": 4, "drop_oldest": True}
        outage.commit(append=pairs(b"mine"), **options)
        outage.others_commit(append=pairs(b"theirs"), **options)
        outage.commit(append=pairs(b"mine too"), **options)
        stored = outage.end()
        assert bodies(stored.messages) == [b"3", b"theirs", b"mine", b"mine too"]
        assert (stored.dropped, stored.end) == (2, 6)

    def test_a_truncation_after_messages_were_dropped_keeps_its_place(self, outage: Outage) -> None:
        options = {"max_messages": 4, "drop_oldest": True}
        outage.commit(append=pairs(b"mine", b"wrong"), **options)
        outage.others_commit(append=pairs(b"theirs"), **options)
        outage.commit(keep_messages=4, append=pairs(b"right"), **options)
        assert bodies(outage.end().messages) == [b"3", b"theirs", b"mine", b"right"]


class TestRenamed:
    def test_a_new_id_is_refused_in_an_outage_and_nothing_is_lost(self, outage: Outage) -> None:
        outage.commit(append=pairs(b"mine"))
        new = outage.backend.id_beside("a")
        with pytest.raises(BackendUnavailable, match="new id"):
            outage.backend.rename("a", new)
        assert messages_of(outage.backend, "a") == [b"1", b"2", b"3", b"mine"]
        assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"mine"]
        assert not outage.others.exists(new)
        assert outage.backend.rename("a", new)
        assert messages_of(outage.backend, new) == [b"1", b"2", b"3", b"mine"]

    def test_changes_of_what_others_have_moved_are_lost(self, outage: Outage) -> None:
        outage.commit(create=Create.MUST_EXIST, append=pairs(b"mine"))
        outage.others.rename("a", "new")
        assert outage.end() is None
        assert messages_of(outage.others, "new") == [b"1", b"2", b"3"]

    def test_restoring_is_refused_in_an_outage(self, outage: Outage) -> None:
        record = record_of(outage.backend, "a")
        with pytest.raises(BackendUnavailable, match="restored"):
            outage.backend.restore("b", record, record.messages)
        assert outage.backend.health().pending_replay == 0
        with made(outage.primary.seen_by_another()) as other:
            other.restore("b", record, record.messages)
            assert messages_of(other, "b") == [b"1", b"2", b"3"]
