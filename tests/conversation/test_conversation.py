"""A Conversation in the hand: a mapping and a list that know what has changed."""

import asyncio
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.dispatch import Signal
from django.template import Context, Template

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationConflict,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationStore,
    ConversationTooLarge,
    InvalidBackend,
    InvalidConversationId,
    InvalidConversationValue,
    conversations,
    get_backend,
    signals,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from django_convstate.conversation.conversation import working_copy_of
from django_convstate.ids import new_id
from tests.support.backends import CountingBackend, LosesReplies, LosesRequests, record_of


@pytest.fixture
def saved() -> Conversation:
    conversation = conversations.create()
    conversation["city"] = "Jaipur"
    conversation["preferences"] = {"pace": "fast", "interests": ["food"]}
    for number in range(10):
        conversation.messages.append("user", f"message {number}")
    conversation.save()
    return conversations.get(conversation.id)


def changes_of(conversation: Conversation) -> list[Change]:
    """Save, and return what was sent to the backend."""
    sent: list[Change] = []

    backend = conversations.backend
    commit = backend.commit

    def record(id: str, change: Change) -> Any:
        sent.append(change)
        return commit(id, change)

    with mock.patch.object(backend, "commit", record):
        conversation.save()
    return sent


def contents(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages.all()]


class TestMapping:
    def test_is_a_mutable_mapping(self, saved: Conversation) -> None:
        assert saved["city"] == "Jaipur"
        assert saved.get("absent") is None
        assert set(saved) == {"city", "preferences"}
        assert "city" in saved
        assert len(saved) == 2
        assert saved.setdefault("list", []) == []
        assert saved.pop("city") == "Jaipur"
        saved.update(a=1, b=2)
        assert dict(saved) == {
            "preferences": {"pace": "fast", "interests": ["food"]},
            "list": [],
            "a": 1,
            "b": 2,
        }
        with pytest.raises(KeyError):
            del saved["city"]
        with pytest.raises(KeyError):
            saved["city"]

    def test_only_what_changed_is_sent(self, saved: Conversation) -> None:
        saved["preferences"]["interests"].append("forts")
        saved["city"] = "Udaipur"
        saved["city"] = "Jaipur"  # as it was
        saved.messages.append("user", "more")
        (change,) = changes_of(saved)
        assert dict(change.set) == {"preferences": b'{"pace":"fast","interests":["food","forts"]}'}
        assert (change.unset, change.increment, change.keep_messages) == ([], {}, None)
        assert len(change.append) == 1

    def test_reading_changes_nothing(self, saved: Conversation) -> None:
        assert dict(saved)
        assert saved.messages.all()
        assert saved["preferences"]["interests"]
        assert not saved.is_modified
        assert changes_of(saved) == []

    def test_a_deep_change_is_noticed(self, saved: Conversation) -> None:
        saved["preferences"]["interests"][0] = "art"
        assert saved.is_modified
        saved.save()
        assert not saved.is_modified
        saved["preferences"]["interests"].append("again, in the same object")
        saved.save()
        assert conversations.get(saved.id)["preferences"]["interests"] == [
            "art",
            "again, in the same object",
        ]

    def test_what_was_assigned_and_then_changed_is_saved_as_changed(self) -> None:
        conversation = conversations.create()
        days: list[int] = []
        conversation["days"] = days
        days.append(1)
        conversation.save()
        days.append(2)
        conversation.save()
        assert conversations.get(conversation.id)["days"] == [1, 2]

    def test_delete_and_put_back(self, saved: Conversation) -> None:
        del saved["city"]
        del saved["preferences"]
        saved["city"] = "Pune"
        (change,) = changes_of(saved)
        assert (dict(change.set), change.unset) == ({"city": b'"Pune"'}, ["preferences"])

    def test_an_emptied_conversation_is_false(self) -> None:
        conversation = conversations.create()
        assert not conversation
        conversation.messages.append("user", "hi")
        assert conversation

    def test_strings_that_are_more_than_strings(self) -> None:
        from django.db.models import TextChoices
        from django.utils.safestring import mark_safe

        class Pace(TextChoices):
            SLOW = "slow"

        conversation = conversations.create()
        conversation[Pace.SLOW] = Pace.SLOW
        conversation["html"] = mark_safe("<b>")
        conversation["tuple"] = (1, (2,))
        conversation.save()
        again = conversations.get(conversation.id)
        assert dict(again) == {"slow": "slow", "html": "<b>", "tuple": [1, [2]]}
        assert type(next(iter(conversation))) is str


class TestCounters:
    def test_adds_up_under_concurrency(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        assert saved.incr("n") == 1
        assert saved.incr("n", 4) == 5
        assert other.incr("n", 2) == 2
        saved.save()
        other.save()
        assert conversations.get(saved.id)["n"] == 7

    def test_counts_from_what_was_assigned(self, saved: Conversation) -> None:
        saved["n"] = 10
        saved.incr("n")
        (change,) = changes_of(saved)
        assert (dict(change.set), change.increment) == ({"n": b"11"}, {})
        saved.incr("n")
        (change,) = changes_of(saved)
        assert (dict(change.set), change.increment) == ({}, {"n": 1})
        del saved["n"]
        saved.incr("n", 3)
        (change,) = changes_of(saved)
        assert (dict(change.set), change.increment) == ({"n": b"3"}, {})

    @pytest.mark.parametrize("value", ["text", 1.5, None, True, [1]])
    def test_only_integers_can_be_counted(self, saved: Conversation, value: Any) -> None:
        saved["n"] = value
        with pytest.raises(TypeError, match=r'state\["n"\]'):
            saved.incr("n")
        with pytest.raises(TypeError, match="delta"):
            saved.incr("m", value)
        assert saved["n"] == value

    def test_stays_within_64_bits(self, saved: Conversation) -> None:
        saved["n"] = 2**63 - 1
        with pytest.raises(InvalidConversationValue, match="64-bit"):
            saved.incr("n")
        assert saved["n"] == 2**63 - 1

    def test_an_assignment_to_a_counter_wins_even_if_it_looks_the_same(
        self, saved: Conversation
    ) -> None:
        other = conversations.get(saved.id)
        other.incr("n", 5)
        other.save()
        saved.incr("n")
        saved.save()
        saved["n"] = 1
        saved.save()
        assert conversations.get(saved.id)["n"] == 1

    def test_counted_and_then_assigned_in_one_turn(self, saved: Conversation) -> None:
        saved.incr("n", 5)
        saved["n"] = 2
        saved.incr("n")
        (change,) = changes_of(saved)
        assert (dict(change.set), change.increment) == ({"n": b"3"}, {})


class TestMessages:
    def test_append_adds_a_timestamp(self) -> None:
        conversation = conversations.create()
        conversation.messages.append("assistant", "hi", tool_calls=[{"id": 1}])
        message = conversation.messages[-1]
        timestamp = datetime.fromisoformat(message.pop("timestamp"))
        assert abs(datetime.now(UTC) - timestamp) < timedelta(seconds=5)
        assert message == {"role": "assistant", "content": "hi", "tool_calls": [{"id": 1}]}

    def test_a_timestamp_of_ones_own_is_kept(self) -> None:
        conversation = conversations.create()
        conversation.messages.append("user", "imported", timestamp="2001-01-01T00:00:00Z")
        assert conversation.messages[0]["timestamp"] == "2001-01-01T00:00:00Z"

    def test_for_llm_takes_what_apis_take(self) -> None:
        conversation = conversations.create()
        conversation.messages.append("user", "hi", mood="good")
        conversation.messages.append("assistant", None, tool_calls=[{"id": "c1"}], cost=1)
        conversation.messages.append("tool", "42", tool_call_id="c1", name="answer")
        assert conversation.messages.for_llm(2) == [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
            {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "answer"},
        ]

    @pytest.mark.parametrize("window", [1, 3, 10, 50])
    def test_is_a_sequence_whatever_the_window(self, saved: Conversation, window: int) -> None:
        store = ConversationStore(conversations.backend, window=window)
        saved = store.get(saved.id)
        saved.messages.append("user", "message 10")
        expected = [f"message {number}" for number in range(11)]
        messages = saved.messages
        assert len(messages) == 11
        assert [message["content"] for message in messages] == expected
        assert contents(saved) == expected
        assert messages[0]["content"] == "message 0"
        assert messages[-1]["content"] == "message 10"
        assert [m["content"] for m in messages[2:9:3]] == expected[2:9:3]
        assert [m["content"] for m in messages[::-2]] == expected[::-2]
        assert [m["content"] for m in messages.window(4)] == expected[-4:]
        assert [m["content"] for m in messages.window(99)] == expected
        assert messages.window(0) == messages.window(-1) == []
        assert [m["content"] for m in messages.page(1, 3)] == expected[1:3]
        assert [m["content"] for m in messages.page(-3, 99)] == expected[-3:]
        for outside in (11, -12):
            with pytest.raises(IndexError):
                messages[outside]

    @pytest.mark.parametrize("window", [1, 3, 50])
    def test_pop_truncate_clear(self, saved: Conversation, window: int) -> None:
        store = ConversationStore(conversations.backend, window=window)
        saved = store.get(saved.id)
        saved.messages.append("user", "new")
        assert saved.messages.pop()["content"] == "new"
        assert saved.messages.pop()["content"] == "message 9"
        saved.messages.truncate(-2)
        assert len(saved.messages) == 7
        saved.messages.append("user", "newer")
        saved.save()
        assert contents(store.get(saved.id)) == [f"message {n}" for n in range(7)] + ["newer"]
        assert contents(saved) == contents(store.get(saved.id))
        saved.messages.clear()
        saved.save()
        assert contents(store.get(saved.id)) == []
        with pytest.raises(IndexError):
            saved.messages.pop()

    def test_is_read_at_once_and_not_one_by_one(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
        store = ConversationStore(window=2)
        conversation = store.create()
        for number in range(100):
            conversation.messages.append("user", str(number))
        conversation.save()
        messages = store.get(conversation.id).messages
        third = messages[3]
        for read in (
            lambda: list(messages),
            lambda: list(reversed(messages)),
            lambda: messages[::-1],
            lambda: messages[5:90:7],
            lambda: messages.index(third),
        ):
            CountingBackend.calls.clear()
            read()
            assert CountingBackend.calls["read_messages"] == 1

    def test_memory_holds_the_window_however_long_the_handle_lives(self) -> None:
        conversation = ConversationStore(window=5).create()
        for number in range(50):
            conversation.messages.append("user", str(number))
            conversation.save()
        assert working_copy_of(conversation).log.missing(0, 50) == (0, 45)
        assert contents(conversation) == [str(number) for number in range(50)]

    def test_what_is_gone_meanwhile_is_not_left_out_in_silence(self, saved: Conversation) -> None:
        short = ConversationStore(conversations.backend, window=2).get(saved.id)
        conversations.delete(saved.id)
        with pytest.raises(ConversationInterrupted):
            short.messages.all()

    @pytest.mark.parametrize("bad", ["5", 1.5, None])
    def test_positions_are_integers(self, saved: Conversation, bad: Any) -> None:
        for use in (
            lambda: saved.messages.window(bad),
            lambda: saved.messages.truncate(bad),
            lambda: saved.messages[bad],
        ):
            with pytest.raises(TypeError):
                use()
        assert len(saved.messages) == 10

    def test_a_message_is_a_copy(self, saved: Conversation) -> None:
        saved.messages[-1]["content"] = "forged"
        assert saved.messages[-1]["content"] == "message 9"
        assert not saved.is_modified

    def test_what_others_appended_meanwhile_keeps_its_place(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        other.messages.append("user", "theirs 1")
        other.messages.append("user", "theirs 2")
        other.save()
        saved.messages.append("user", "ours")
        saved.save()
        assert len(saved.messages) == 13
        assert contents(saved)[-4:] == ["message 9", "theirs 1", "theirs 2", "ours"]
        assert contents(saved) == contents(conversations.get(saved.id))

    def test_reading_beyond_the_window_in_an_event_loop_says_what_to_write(
        self, saved: Conversation
    ) -> None:
        store = ConversationStore(conversations.backend, window=2)

        async def view() -> None:
            conversation = await store.aget(saved.id)
            assert conversation.messages[-1]["content"] == "message 9"
            with pytest.raises(SynchronousOnlyOperation, match="apage"):
                conversation.messages[0]
            page = await conversation.messages.apage(0, 9)
            assert [m["content"] for m in page] == [f"message {n}" for n in range(9)]
            assert len(await conversation.messages.aall()) == 10

        asyncio.run(view())


class TestSaving:
    def test_nothing_is_stored_for_nothing(self) -> None:
        conversation = conversations.create(owner="u1", ttl=60)
        conversation.save()
        assert conversation.is_new
        assert conversation.expires_at is None
        assert not conversations.exists(conversation.id)

    def test_what_it_is_after_a_save(self) -> None:
        conversation = conversations.create(owner="u1", ttl=60)
        conversation["a"] = 1
        assert (conversation.is_new, conversation.is_modified) == (True, True)
        conversation.save()
        assert (conversation.is_new, conversation.is_modified) == (False, False)
        again = conversations.get(conversation.id)
        for known in (conversation, again):
            assert (known.owner, known.version, known.ttl) == ("u1", 1, 60)
            assert known.created_at is not None
            assert known.expires_at is not None
            assert known.last_accessed is not None
            left = (known.expires_at - datetime.now(UTC)).total_seconds()
            assert 50 < left <= 60
            assert not known.degraded

    def test_two_side_by_side_lose_nothing(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        saved["a"] = 1
        saved.messages.append("user", "a")
        other["b"] = 2
        other.messages.append("user", "b")
        saved.save()
        other.save()
        result = conversations.get(saved.id)
        assert (result["a"], result["b"]) == (1, 2)
        assert contents(result)[-2:] == ["a", "b"]

    def test_expected_version(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        other["a"] = "theirs"
        other.save(expected_version=other.version)
        saved["a"] = "ours"
        with pytest.raises(ConversationConflict):
            saved.save(expected_version=saved.version)
        assert not saved.is_modified, "what was refused is not sent behind one's back"
        saved.reload()
        assert saved["a"] == "theirs"

    @pytest.mark.parametrize("bad", ["1", 1.0, True])
    def test_an_expected_version_is_an_integer(self, saved: Conversation, bad: Any) -> None:
        saved["a"] = 1
        with pytest.raises(TypeError, match="expected version"):
            saved.save(expected_version=bad)
        saved.save()

    def test_the_version_check_outlives_an_outage(self) -> None:
        backend = LosesRequests()
        store = ConversationStore(backend)
        ours = store.create()
        ours["a"] = 1
        ours.save()
        ours["a"] = "ours"
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            ours.save(expected_version=ours.version)
        theirs = store.get(ours.id)
        theirs["a"] = "theirs"
        theirs.save()
        with pytest.raises(ConversationConflict):
            ours.save()
        assert store.get(ours.id)["a"] == "theirs"

    def test_two_queued_changes_are_checked_one_after_the_other(self) -> None:
        backend = LosesRequests()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        for value in (2, 3):
            conversation["a"] = value
            backend.to_lose = 1
            with pytest.raises(BackendUnavailable):
                conversation.save(expected_version=conversation.version)
        conversation["a"] = 4
        conversation.save(expected_version=conversation.version)
        assert conversation.version == 4
        assert ConversationStore(backend).get(conversation.id)["a"] == 4

    def test_a_waiting_pop_takes_back_ones_own(self) -> None:
        backend = LosesRequests()
        store = ConversationStore(backend)
        ours = store.create()
        ours.messages.append("user", "0")
        ours.save()
        ours.messages.append("user", "mine")
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            ours.save()
        theirs = store.get(ours.id)
        theirs.messages.append("user", "theirs")
        theirs.save()
        ours.messages.pop()
        ours.save()
        assert contents(store.get(ours.id)) == ["0", "theirs"]

    def test_back_to_what_is_stored_and_away_again(self, saved: Conversation) -> None:
        saved["a"] = [1, 5]
        saved.save()
        saved["a"] = [1]
        saved["a"].append(5)
        saved.save()
        assert not saved.is_modified
        saved["a"].pop()
        assert saved.is_modified
        saved.save()
        assert conversations.get(saved.id)["a"] == [1]

    def test_templates_may_look_but_not_delete(self, saved: Conversation) -> None:
        shown = Template(
            "{{ c.city }} {{ c.messages.0.content }} {{ c.delete }}{{ c.messages.clear }}"
        ).render(Context({"c": saved}))
        assert shown == "Jaipur message 0 "
        assert conversations.exists(saved.id)
        assert len(saved.messages) == 10

    def test_an_attribute_is_no_place_for_state(self, saved: Conversation) -> None:
        with pytest.raises(AttributeError):
            saved.title = "lost"  # type: ignore[attr-defined]

    def test_deleted_meanwhile(self, saved: Conversation) -> None:
        conversations.delete(saved.id)
        saved["a"] = 1
        with pytest.raises(ConversationInterrupted):
            saved.save()
        assert not conversations.exists(saved.id)

    def test_delete_begins_anew(self, saved: Conversation) -> None:
        old = saved.id
        saved["unsaved"] = 1
        saved.delete()
        assert not conversations.exists(old)
        assert (len(saved), len(saved.messages), saved.is_new) == (0, 0, True)
        saved.save()
        assert not conversations.exists(saved.id)
        saved["a"] = 1
        saved.save()
        assert saved.id != old
        assert conversations.get(saved.id)["a"] == 1

    def test_reload_forgets_what_was_not_saved(self, saved: Conversation) -> None:
        messages = saved.messages
        saved["a"] = 1
        messages.append("user", "unsaved")
        saved.reload()
        assert "a" not in saved
        assert len(messages) == len(saved.messages) == 10
        conversations.delete(saved.id)
        with pytest.raises(ConversationNotFound):
            saved.reload()

    def test_touch_of_a_new_one(self) -> None:
        conversation = conversations.create()
        conversation.touch()
        assert conversation.expires_at is None

    def test_touch_keeps_to_the_max_age(self) -> None:
        conversation = ConversationStore("locmem", max_age=100).create()
        conversation["a"] = 1
        conversation.save()
        conversation.touch()
        assert conversation.expires_at is not None
        assert (conversation.expires_at - datetime.now(UTC)).total_seconds() <= 100

    def test_touch(self, saved: Conversation) -> None:
        before = saved.expires_at
        saved.touch()
        assert saved.expires_at is not None
        assert before is not None
        assert saved.expires_at >= before
        conversations.delete(saved.id)
        with pytest.raises(ConversationInterrupted):
            saved.touch()

    def test_claim(self, saved: Conversation) -> None:
        saved.claim("u1")
        saved.claim("u1")
        assert conversations.get(saved.id).owner == saved.owner == "u1"
        with pytest.raises(ConversationConflict):
            saved.claim("u2")
        unaware = conversations.create()
        unaware.claim("u3")
        assert not conversations.exists(unaware.id)
        unaware["a"] = 1
        unaware.save()
        assert conversations.get(unaware.id).owner == "u3"

    def test_two_claims_at_a_time(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        other["secret"] = "of u2"
        saved.claim("u1")
        with pytest.raises(ConversationConflict):
            other.claim("u2")
        assert other.owner is None
        again = conversations.get(saved.id)
        assert again.owner == "u1"
        assert "secret" not in again

    def test_a_claim_again_costs_nothing(self, saved: Conversation) -> None:
        saved.claim("u1")
        version = saved.version
        saved.claim("u1")
        assert conversations.get(saved.id).version == version

    @pytest.mark.parametrize("bad", ["", "x" * 257, "\ud800", None, 5, b"u1"])
    def test_bad_owners(self, saved: Conversation, bad: Any) -> None:
        for use in (
            lambda: saved.claim(bad),
            lambda: conversations.create(owner=bad),
            lambda: conversations.get("absent", owner=bad),
            lambda: conversations.purge(owner=bad),
        ):
            if bad is None and use.__code__.co_names[0] == "conversations":
                continue  # None means nobody there
            with pytest.raises(InvalidConversationValue, match="owner"):
                use()
        assert conversations.get(saved.id).owner is None

    def test_cycle_id(self, saved: Conversation) -> None:
        old, token = saved.id, saved.token
        saved["unsaved"] = 1
        saved.claim("u1")
        saved.cycle_id()
        assert saved.id != old
        assert saved.token != token
        assert not conversations.exists(old)
        again = conversations.get(saved.id)
        assert dict(again) == dict(saved)
        assert again["unsaved"] == 1
        assert (again.owner, again.ttl) == ("u1", 3600)
        assert contents(again) == [f"message {n}" for n in range(10)]

    def test_cycle_id_beside_another_writer(self) -> None:
        class Interfered(LocMemBackend):
            """Another writer comes between the copy and the deletion, the first two times."""

            times = 2

            def delete(self, id: str, expected_version: int | None = None) -> bool:
                if expected_version is not None and self.times:
                    self.times -= 1
                    super().commit(id, Change(append=[b'{"role":"user","content":"theirs"}']))
                return super().delete(id, expected_version)

        backend = Interfered()
        conversation = ConversationStore(backend).create()
        conversation.messages.append("user", "ours")
        conversation.save()
        conversation.cycle_id()
        assert contents(conversation) == ["ours", "theirs", "theirs"]
        assert [summary.id for summary in backend.scan()] == [conversation.id]

    def test_cycle_id_of_what_was_deleted_meanwhile(self) -> None:
        class Interfered(LocMemBackend):
            def delete(self, id: str, expected_version: int | None = None) -> bool:
                super().delete(id)
                return super().delete(id, expected_version)

        backend = Interfered()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        with pytest.raises(ConversationNotFound):
            conversation.cycle_id()
        assert list(backend.scan()) == [], "what somebody deleted does not live on"

    def test_cycle_id_with_a_lost_reply(self) -> None:
        class Loses(LocMemBackend):
            lost = False

            def delete(self, id: str, expected_version: int | None = None) -> bool:
                deleted = super().delete(id, expected_version)
                if not self.lost:
                    self.lost = True
                    raise BackendUnavailable("The reply was lost.")
                return deleted

        backend = Loses()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        conversation.cycle_id()
        assert [summary.id for summary in backend.scan()] == [conversation.id]

    def test_a_lost_reply_is_not_applied_twice(self) -> None:
        backend = LosesReplies()
        store = ConversationStore(backend)
        conversation = store.create()
        conversation.incr("n")
        conversation.messages.append("user", "once")
        backend.to_lose = 2
        for _ in range(2):
            with pytest.raises(Exception, match="lost"):
                conversation.save()
        assert conversation.is_modified
        conversation.incr("n")
        conversation.messages.append("user", "and this")
        conversation.save()
        assert not conversation.is_modified
        record = record_of(backend, conversation.id)
        assert record.state == {"n": b"2"}
        assert [json.loads(m)["content"] for m in record.messages] == ["once", "and this"]
        assert contents(conversation) == ["once", "and this"]

    def test_two_tasks_save_side_by_side(self) -> None:
        class Slow(LocMemBackend):
            async def acommit(self, id: str, change: Change) -> Any:
                await asyncio.sleep(0.01)
                return self.commit(id, change)

        async def visit() -> list[str]:
            conversation = ConversationStore(Slow()).create()
            conversation.messages.append("user", "1")
            first = asyncio.create_task(conversation.asave())
            await asyncio.sleep(0)
            conversation.messages.append("user", "2")
            await asyncio.gather(first, conversation.asave(), conversation.asave())
            assert not conversation.is_modified
            await conversation.areload()
            return contents(conversation)

        assert asyncio.run(visit()) == ["1", "2"]

    def test_cancelled_in_mid_save(self) -> None:
        class Slow(LocMemBackend):
            async def acommit(self, id: str, change: Change) -> Any:
                answer = self.commit(id, change)
                await asyncio.sleep(0.01)
                return answer

        async def visit() -> list[str]:
            conversation = ConversationStore(Slow()).create()
            conversation.messages.append("user", "once")
            task = asyncio.create_task(conversation.asave())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert conversation.is_modified
            await conversation.asave()
            await conversation.areload()
            return contents(conversation)

        assert asyncio.run(visit()) == ["once"]

    def test_bad_nested_values_leave_everything_as_it_was(self, saved: Conversation) -> None:
        saved["preferences"]["budget"] = float("nan")
        saved.messages.append("user", "good")
        with pytest.raises(InvalidConversationValue, match=r'state\["preferences"\]\["budget"\]'):
            saved.save()
        assert contents(conversations.get(saved.id))[-1] == "message 9"
        saved["preferences"]["budget"] = 100
        saved.save()
        again = conversations.get(saved.id)
        assert again["preferences"]["budget"] == 100
        assert contents(again)[-1] == "good"


class TestLimits:
    def test_state(self) -> None:
        store = ConversationStore("locmem", max_state_bytes=100)
        conversation = store.create()
        conversation["a"] = "x" * 90
        with pytest.raises(ConversationTooLarge, match="MAX_STATE_BYTES is 100"):
            conversation["b"] = "x" * 10
        assert dict(conversation) == {"a": "x" * 90}
        conversation["a"] = []
        conversation["a"].append("x" * 100)
        with pytest.raises(ConversationTooLarge):
            conversation.save()
        conversation["a"].clear()
        conversation["b"] = "x" * 80
        conversation.save()
        conversation["b"] = ["x" * 80]
        conversation.save()
        conversation["b"].clear()
        conversation["a"].append("x" * 80)
        conversation.save()  # one grows, the other shrinks, and the sum fits
        del conversation["a"]
        conversation["c"] = "x" * 80
        conversation.save()

    def test_message(self) -> None:
        conversation = ConversationStore("locmem", max_message_bytes=200).create()
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGE_BYTES is 200"):
            conversation.messages.append("user", "é" * 100)
        assert len(conversation.messages) == 0

    def test_number_of_messages(self) -> None:
        conversation = ConversationStore("locmem", max_messages=2).create()
        conversation.messages.append("user", "1")
        conversation.messages.append("user", "2")
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGES is 2"):
            conversation.messages.append("user", "3")
        assert len(conversation.messages) == 2

    @pytest.mark.parametrize("role", ["", None, 5, b"user"])
    def test_role(self, role: Any) -> None:
        conversation = conversations.create()
        with pytest.raises(InvalidConversationValue, match="role"):
            conversation.messages.append(role, "text")


class TestStore:
    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "3600", 10**12, None])
    def test_ttl(self, ttl: Any, saved: Conversation) -> None:
        if ttl is None:
            assert conversations.create(ttl=None).ttl == 3600
            return
        with pytest.raises(InvalidConversationValue, match="ttl"):
            conversations.create(ttl=ttl)
        with pytest.raises(InvalidConversationValue, match="ttl"):
            conversations.touch(saved.id, ttl)

    def test_get_with_an_owner(self, saved: Conversation) -> None:
        for stranger in ("u1", None):
            with pytest.raises(ConversationNotFound):
                conversations.get(saved.id, owner=stranger)
        saved.claim("u1")
        assert conversations.get(saved.id, owner="u1").id == saved.id
        for stranger in ("u2", None):
            with pytest.raises(ConversationNotFound) as theirs:
                conversations.get(saved.id, owner=stranger)
            with pytest.raises(ConversationNotFound) as nobodys:
                conversations.get("absent")
            assert str(theirs.value) == str(nobodys.value)

    def test_open(self) -> None:
        id = "whatsapp:+15550100"
        first, second = conversations.open(id), conversations.open(id)
        first.messages.append("user", "hello")
        second.messages.append("user", "are you there?")
        first.save()
        second.save()
        assert contents(conversations.open(id)) == ["hello", "are you there?"]
        assert conversations.open(id).id == id

    def test_open_that_meets_another_creator(self) -> None:
        """Who comes second does not reset the time to live that the first has given it."""
        id = new_id()
        second = conversations.open(id)
        ConversationStore(conversations.backend, ttl=60).append(id, "user", "hello")
        second.messages.append("user", "are you there?")
        second.save()
        assert conversations.get(id).ttl == 60

    async def test_append_without_loading(self) -> None:
        store = ConversationStore(CountingBackend(), ttl=60)
        CountingBackend.calls.clear()
        store.append("whatsapp:+15550100", "user", "hello", source="webhook")
        await store.aappend("whatsapp:+15550100", "user", "are you there?")
        assert CountingBackend.calls == {"commit": 2, "acommit": 1}
        conversation = store.get("whatsapp:+15550100")
        assert contents(conversation) == ["hello", "are you there?"]
        assert conversation.messages[0]["source"] == "webhook"
        assert conversation.ttl == 60
        with pytest.raises(InvalidConversationValue):
            store.append("whatsapp:+15550100", "user", float("nan"))
        with pytest.raises(InvalidConversationId):
            store.append("", "user", "hello")

    def test_list_and_purge(self) -> None:
        for owner in ("u1", "u1", "u2"):
            conversation = conversations.create(owner=owner)
            conversation.messages.append("user", "hi")
            conversation.save()
        assert [summary.owner for summary in conversations.list()] == ["u2", "u1", "u1"]
        assert conversations.purge(owner="u1", dry_run=True).deleted == 2
        assert conversations.purge(owner="u1").deleted == 2
        assert [summary.message_count for summary in conversations.list()] == [1]

    @pytest.mark.parametrize(
        "selection",
        [
            {"idle_for": -1},
            {"idle_for": float("nan")},
            {"idle_for": "x"},
            {"everything": True, "owner": "u1"},
            {"everything": True, "idle_for": 5},
            {"batch_size": 0},
            {"batch_size": "5"},
        ],
    )
    def test_a_selection_that_makes_no_sense(
        self, saved: Conversation, selection: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidConversationValue):
            conversations.purge(**selection)
        with pytest.raises(InvalidConversationValue):
            asyncio.run(conversations.apurge(**selection))
        conversations.purge(everything=None)  # type: ignore[arg-type]
        assert conversations.exists(saved.id)

    def test_two_threads_at_the_first_use_build_one_backend(self) -> None:
        for _ in range(20):
            store = ConversationStore("locmem", max_conversations=7)
            with ThreadPoolExecutor(8) as pool:
                built = set(pool.map(attrgetter("backend"), [store] * 8))
            assert len(built) == 1

    def test_twins(self) -> None:
        async def visit() -> None:
            conversation = conversations.create(owner="u1")
            conversation["a"] = 1
            await conversation.asave()
            assert await conversations.aexists(conversation.id)
            again = await conversations.aget(conversation.id, owner="u1")
            again.messages.append("user", "hi")
            await again.asave(expected_version=again.version)
            await conversation.areload()
            assert len(conversation.messages) == 1
            await conversation.aclaim("u1")
            await conversation.atouch()
            await conversation.acycle_id()
            assert [s.id async for s in conversations.alist("u1")] == [conversation.id]
            assert await conversations.atouch(conversation.id, 60)
            assert (await conversations.ahealth()).connected
            assert (await conversations.apurge(idle_for=100)).deleted == 0
            await conversation.adelete()
            assert not await conversations.adelete(again.id)
            opened = await conversations.aopen("telegram:1")
            opened["a"] = 1
            await opened.asave()
            assert await conversations.adelete("telegram:1")
            await conversations.aclose()

        asyncio.run(visit())

    def test_the_event_loop_enters_by_the_twins_only(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"

        async def visit() -> None:
            conversation = conversations.create()
            conversation["a"] = 1
            await conversation.asave()
            again = await conversations.aget(conversation.id)
            await again.areload()

        CountingBackend.calls.clear()
        asyncio.run(visit())
        assert (CountingBackend.calls["acommit"], CountingBackend.calls["aload"]) == (1, 2)

    def test_settings_are_read_live(self, settings: Any) -> None:
        assert conversations.create().ttl == 3600
        kept = conversations.create()
        kept["a"] = 1
        kept.save()
        settings.CONVERSATION_STATE = {"TTL": 5, "WINDOW": 1}
        assert conversations.create().ttl == 5
        assert conversations.get(kept.id)["a"] == 1

    def test_a_store_of_ones_own(self) -> None:
        own = ConversationStore("locmem", ttl=7, window=3)
        conversation = own.create()
        assert conversation.ttl == 7
        conversation["a"] = 1
        conversation.save()
        assert own.exists(conversation.id)
        assert not conversations.exists(conversation.id)
        assert ConversationStore(get_backend("locmem"), ttl=9).create().ttl == 9
        with pytest.raises(InvalidBackend, match="max_conversations"):
            ConversationStore(get_backend("locmem"), max_conversations=5)
        with pytest.raises(InvalidBackend):
            ConversationStore("").exists("a")

    def test_a_store_with_the_settings_backend_follows_the_settings(self, settings: Any) -> None:
        store = ConversationStore(ttl=60)
        assert store.backend is conversations.backend
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
        assert store.backend.name == "shared"


class TestIds:
    BAD: ClassVar = [
        "",
        "x" * 10_000,
        "a\r\nb",
        "a\x00b",
        "{a}",
        "a*",
        "a?",
        "[a]",
        "../a",
        "a/b",
        "ａｂｃ",  # noqa: RUF001 - fullwidth twins of abc
        "a\ud800",
        "é",
        " a",
        "a b",
        ".a",
        "a\n",
        5,
        None,
        b"a",
    ]

    @pytest.mark.parametrize("id", BAD)
    def test_a_bad_id_never_reaches_the_backend(self, id: Any, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
        CountingBackend.calls.clear()
        for use in ("get", "open", "exists", "delete", "touch"):
            with pytest.raises(InvalidConversationId):
                getattr(conversations, use)(id)
        assert not CountingBackend.calls

    def test_no_error_repeats_the_id(self) -> None:
        with pytest.raises(InvalidConversationId) as caught:
            conversations.get("secret/secret")
        assert "secret" not in str(caught.value)

    def test_ids_are_made_of_128_random_bits(self) -> None:
        made = {conversations.create().id for _ in range(1000)}
        assert len(made) == 1000
        assert {len(id) for id in made} == {22}
        assert not [id for id in made if id.startswith("-")], "it would look like an option"

    def test_neither_repr_nor_log_tells_secrets(
        self, saved: Conversation, caplog: pytest.LogCaptureFixture
    ) -> None:
        saved.claim("an owner")
        record = record_of(conversations.backend, saved.id)
        (summary,) = conversations.list()
        change = Change(set={"city": b"Jaipur"}, append=[b"message 1"], owner="an owner")
        for shown in (repr(saved), repr(saved.messages), repr(record), repr(summary), repr(change)):
            for secret in (saved.id, "Jaipur", "message 1", "an owner", saved.token):
                assert secret not in shown
        assert caplog.text == ""


class TestSignals:
    @pytest.fixture
    def heard(self) -> Iterator[list[tuple[str, str]]]:
        heard: list[tuple[str, str]] = []

        def listen(signal: Any, sender: Any, **kwargs: Any) -> None:
            name = next(name for name, value in vars(signals).items() if value is signal)
            heard.append((name, kwargs.get("id") or kwargs["conversation"].id))

        every = [s for s in vars(signals).values() if isinstance(s, Signal)]
        for signal in every:
            signal.connect(listen)
        yield heard
        for signal in every:
            signal.disconnect(listen)

    def test_are_sent(self, heard: list[tuple[str, str]]) -> None:
        conversation = conversations.create()
        conversation.save()
        assert heard == []
        conversation["a"] = 1
        conversation.save()
        conversation["a"] = 2
        conversation.save()
        id = conversation.id
        conversations.delete(id)
        conversations.delete(id)
        assert heard == [
            ("conversation_created", id),
            ("conversation_saved", id),
            ("conversation_saved", id),
            ("conversation_deleted", id),
        ]

    def test_a_receiver_that_fails_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(**kwargs: Any) -> None:
            raise RuntimeError("a receiver's own trouble")

        signals.conversation_saved.connect(fail)
        try:
            with caplog.at_level(logging.CRITICAL, "django.dispatch"):
                conversation = conversations.create()
                conversation["a"] = 1
                conversation.save()
        finally:
            signals.conversation_saved.disconnect(fail)
        assert conversations.get(conversation.id)["a"] == 1
