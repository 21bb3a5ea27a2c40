"""The dictionary of a Conversation: a mapping that knows what has changed, counters, limits."""

from typing import Any

import pytest

from django_convstate import (
    Conversation,
    ConversationStore,
    ConversationTooLarge,
    InvalidConversationValue,
    conversations,
)
from tests.support.conversations import changes_of


class TestMapping:
    def test_a_conversation_is_a_mutable_mapping(self, saved: Conversation) -> None:
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

    def test_a_value_changed_after_its_assignment_is_saved_as_changed(self) -> None:
        conversation = conversations.create()
        days: list[int] = []
        conversation["days"] = days
        days.append(1)
        conversation.save()
        days.append(2)
        conversation.save()
        assert conversations.get(conversation.id)["days"] == [1, 2]

    def test_a_key_deleted_and_set_again_is_sent_as_set(self, saved: Conversation) -> None:
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

    def test_subclasses_of_str_are_stored_as_text(self) -> None:
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
    def test_increments_of_two_handles_add_up(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        assert saved.incr("n") == 1
        assert saved.incr("n", 4) == 5
        assert other.incr("n", 2) == 2
        saved.save()
        other.save()
        assert conversations.get(saved.id)["n"] == 7

    def test_an_increment_after_an_assignment_is_sent_as_set(self, saved: Conversation) -> None:
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
    def test_only_integers_can_be_incremented(self, saved: Conversation, value: Any) -> None:
        saved["n"] = value
        with pytest.raises(TypeError, match=r'state\["n"\]'):
            saved.incr("n")
        with pytest.raises(TypeError, match="delta"):
            saved.incr("m", value)
        assert saved["n"] == value

    def test_a_counter_stays_within_64_bits(self, saved: Conversation) -> None:
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

    def test_an_assignment_after_an_increment_is_sent_as_set(self, saved: Conversation) -> None:
        saved.incr("n", 5)
        saved["n"] = 2
        saved.incr("n")
        (change,) = changes_of(saved)
        assert (dict(change.set), change.increment) == ({"n": b"3"}, {})


class TestLimits:
    def test_state_over_its_limit_is_refused(self) -> None:
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

    def test_a_message_over_its_limit_is_refused(self) -> None:
        conversation = ConversationStore("locmem", max_message_bytes=200).create()
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGE_BYTES is 200"):
            conversation.messages.append("user", "é" * 100)
        assert len(conversation.messages) == 0

    def test_one_message_too_many_is_refused(self) -> None:
        conversation = ConversationStore("locmem", max_messages=2).create()
        conversation.messages.append("user", "1")
        conversation.messages.append("user", "2")
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGES is 2"):
            conversation.messages.append("user", "3")
        assert len(conversation.messages) == 2

    @pytest.mark.parametrize("role", ["", None, 5, b"user"])
    def test_a_role_must_be_text(self, role: Any) -> None:
        conversation = conversations.create()
        with pytest.raises(InvalidConversationValue, match="role"):
            conversation.messages.append(role, "text")
