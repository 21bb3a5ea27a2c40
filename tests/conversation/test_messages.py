"""The messages of a Conversation: a sequence of which the newest are in memory."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from django_convstate import (
    Conversation,
    ConversationInterrupted,
    ConversationStore,
    conversations,
)
from django_convstate.conversation.conversation import working_copy_of
from tests.support.backends import CountingBackend
from tests.support.conversations import contents


class TestMessages:
    def test_append_adds_a_timestamp(self) -> None:
        conversation = conversations.create()
        conversation.messages.append("assistant", "hi", tool_calls=[{"id": 1}])
        message = conversation.messages[-1].copy()
        timestamp = datetime.fromisoformat(message.pop("timestamp"))
        assert abs(datetime.now(UTC) - timestamp) < timedelta(seconds=5)
        assert message.pop("id") == conversation.messages[-1].id
        assert message == {"role": "assistant", "content": "hi", "tool_calls": [{"id": 1}]}

    def test_a_given_timestamp_is_kept(self) -> None:
        conversation = conversations.create()
        conversation.messages.append("user", "imported", timestamp="2001-01-01T00:00:00Z")
        assert conversation.messages[0]["timestamp"] == "2001-01-01T00:00:00Z"

    def test_for_llm_keeps_the_fields_that_apis_take(self) -> None:
        conversation = conversations.create()
        conversation.messages.append("user", "hi", mood="good")
        conversation.messages.append("assistant", None, tool_calls=[{"id": "c1"}], cost=1)
        conversation.messages.append("tool", "42", tool_call_id="c1", name="answer")
        assert conversation.messages.for_llm(2) == [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
            {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "answer"},
        ]

    @pytest.mark.parametrize("window", [1, 3, 10, 50])
    def test_messages_are_a_sequence_whatever_the_window(
        self, saved: Conversation, window: int
    ) -> None:
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
    def test_pop_truncate_and_clear_drop_messages(self, saved: Conversation, window: int) -> None:
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

    def test_older_messages_are_read_in_one_call(self, settings: Any) -> None:
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

    def test_a_handle_keeps_no_more_than_the_window(self) -> None:
        conversation = ConversationStore(window=5).create()
        for number in range(50):
            conversation.messages.append("user", str(number))
            conversation.save()
        assert working_copy_of(conversation).log.view().missing(0, 50) == (0, 45)
        assert contents(conversation) == [str(number) for number in range(50)]

    def test_reading_messages_of_a_deleted_conversation_is_interrupted(
        self, saved: Conversation
    ) -> None:
        short = ConversationStore(conversations.backend, window=2).get(saved.id)
        conversations.delete(saved.id)
        with pytest.raises(ConversationInterrupted):
            short.messages.all()

    @pytest.mark.parametrize("bad", ["5", 1.5, None])
    def test_positions_must_be_integers(self, saved: Conversation, bad: Any) -> None:
        for use in (
            *([] if bad is None else [lambda: saved.messages.window(bad)]),  # None: WINDOW
            lambda: saved.messages.truncate(bad),
            lambda: saved.messages[bad],
        ):
            with pytest.raises(TypeError):
                use()
        assert len(saved.messages) == 10

    def test_a_message_is_a_copy(self, saved: Conversation) -> None:
        saved.messages.append("user", "nested", parts=[{"text": "as said"}])
        saved.save()
        saved.messages[-1]["parts"][0]["text"] = "forged"
        assert saved.messages[-1]["parts"] == [{"text": "as said"}]
        assert not saved.is_modified

    def test_messages_that_others_appended_keep_their_place(self, saved: Conversation) -> None:
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


async def test_messages_before_the_window_come_by_async_for() -> None:
    store = ConversationStore("locmem", window=2)
    conversation = store.create()
    for number in range(5):
        conversation.messages.append("user", f"m{number}")
    await conversation.asave()
    messages = (await store.aget(conversation.id)).messages
    assert [message["content"] async for message in messages] == [f"m{n}" for n in range(5)]
