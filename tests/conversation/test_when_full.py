"""WHEN_FULL = "drop_oldest": the newest MAX_MESSAGES are kept, and positions stay."""

import asyncio

import pytest

from django_convstate import (
    Conversation,
    ConversationInterrupted,
    ConversationStore,
    ConversationTooLarge,
    MessageNotFound,
)
from django_convstate.backends.locmem import LocMemBackend
from tests.support.conversations import contents
from tests.support.ways import call


@pytest.fixture(params=[1, 3, 50])
def small(request: pytest.FixtureRequest) -> ConversationStore:
    """A store that keeps the newest five messages, with windows of several sizes."""
    return ConversationStore(
        LocMemBackend(), max_messages=5, when_full="drop_oldest", window=request.param
    )


def said(conversation: Conversation, *numbers: int) -> None:
    for number in numbers:
        conversation.messages.append("user", str(number), id=f"m{number}")


def numbers(*which: int) -> list[str]:
    return [str(number) for number in which]


@pytest.fixture
def full(small: ConversationStore) -> Conversation:
    """Eight messages, of which three were dropped, loaded anew."""
    conversation = small.create()
    said(conversation, *range(4))
    conversation.save()
    said(conversation, *range(4, 8))
    conversation.save()
    return small.get(conversation.id)


def test_the_newest_are_kept(way: str, full: Conversation) -> None:
    messages = full.messages
    assert (len(messages), messages.dropped) == (5, 3)
    assert contents(full) == numbers(3, 4, 5, 6, 7)
    assert [message["content"] for message in call(way, messages, "all")] == numbers(3, 4, 5, 6, 7)
    assert [message["content"] for message in messages] == numbers(3, 4, 5, 6, 7)
    assert [message["content"] for message in reversed(messages)] == numbers(7, 6, 5, 4, 3)


def test_as_a_sequence_it_has_what_is_there(full: Conversation) -> None:
    messages = full.messages
    assert [messages[index]["content"] for index in range(-5, 5)] == numbers(*range(3, 8)) * 2
    for outside in (5, -6):
        with pytest.raises(IndexError):
            messages[outside]
    assert [message["content"] for message in messages[1:-1]] == numbers(4, 5, 6)
    assert [message["content"] for message in messages[::-2]] == numbers(7, 5, 3)
    assert messages.index(messages[2]) == 2
    assert messages[1] in messages


def test_a_page_counts_what_was_dropped(way: str, full: Conversation) -> None:
    def page(start: int, stop: int) -> list[str]:
        return [message["content"] for message in call(way, full.messages, "page", start, stop)]

    assert page(0, 8) == page(0, 99) == numbers(3, 4, 5, 6, 7)
    assert page(4, 6) == numbers(4, 5)
    assert page(0, 3) == page(1, 2) == page(8, 9) == []
    assert page(2, 5) == numbers(3, 4)
    assert page(-2, 8) == numbers(6, 7)


@pytest.mark.parametrize("size", [0, 1, 4, 5, 6, 50])
def test_a_window_is_of_what_is_there(full: Conversation, size: int) -> None:
    expected = numbers(*range(3, 8))[5 - min(size, 5) :]
    assert [message["content"] for message in full.messages.window(size)] == expected
    sent = [message["content"] for message in full.messages.for_llm(size)]
    assert sent == (expected or numbers(7)), "a model is sent the newest message in any case"


def test_what_was_said_and_is_not_saved_counts_too(way: str, full: Conversation) -> None:
    said(full, 8, 9)
    assert contents(full)[-2:] == numbers(8, 9)
    call(way, full, "save")
    assert (len(full.messages), full.messages.dropped) == (5, 5)
    assert contents(full) == numbers(5, 6, 7, 8, 9)
    assert [message["content"] for message in full.messages.page(7, 9)] == numbers(7, 8)


def test_more_than_fit_at_once(way: str, small: ConversationStore) -> None:
    conversation = small.create()
    said(conversation, *range(12))
    call(way, conversation, "save")
    for each in (conversation, small.get(conversation.id)):
        assert (len(each.messages), each.messages.dropped) == (5, 7)
        assert contents(each) == numbers(7, 8, 9, 10, 11)


def test_another_handle_drops_meanwhile(
    way: str, small: ConversationStore, full: Conversation
) -> None:
    other = small.get(full.id)
    said(other, 8, 9, 10)
    other.save()
    # What is left of what was loaded; positions are the same for both.
    known = [message["content"] for message in call(way, full.messages, "all")]
    assert known == numbers(*range(3, 8))[-len(known) :]
    assert known[-2:] == numbers(6, 7)[-len(known) :]
    assert [message["content"] for message in call(way, full.messages, "page", 6, 8)] == numbers(
        6, 7
    )
    said(full, 11)
    call(way, full, "save")
    for each in (full, small.get(full.id)):
        assert (len(each.messages), each.messages.dropped) == (5, 7)
        assert contents(each) == numbers(7, 8, 9, 10, 11)
        assert [message["content"] for message in each.messages[-2:]] == numbers(10, 11)
        assert [message["content"] for message in each.messages.page(9, 11)] == numbers(9, 10)


def test_a_slice_has_what_is_left_of_what_another_handle_drops_meanwhile() -> None:
    store = ConversationStore(LocMemBackend(), max_messages=5, when_full="drop_oldest", window=1)
    conversation = store.create()
    said(conversation, *range(5))
    conversation.save()
    conversation = store.get(conversation.id)
    store.extend(conversation.id, [{}, {}, {}])
    messages = conversation.messages
    assert [message["content"] for message in messages[0:4]] == numbers(3)
    assert [message["content"] for message in messages[::-1]] == numbers(4, 3)
    assert [message["content"] for message in messages[1:5:2]] == numbers(3)
    assert messages[0:2] == []
    assert messages[3]["content"] == "3"
    with pytest.raises(IndexError):
        messages[0]


def test_another_handle_drops_all_that_was_loaded(
    way: str, small: ConversationStore, full: Conversation
) -> None:
    small.extend(full.id, [{"content": str(number)} for number in range(8, 20)])
    said(full, 20)
    call(way, full, "save")
    assert contents(full) == numbers(16, 17, 18, 19, 20)
    assert full.messages.dropped == 16


def test_what_was_dropped_is_not_found(way: str, full: Conversation) -> None:
    assert call(way, full.messages, "find", "m3")["content"] == "3"
    for name, fields in (("find", {}), ("update", {"a": 1}), ("redact", {})):
        with pytest.raises(MessageNotFound):
            call(way, full.messages, name, "m2", **fields)


def test_pop_and_truncate_count_what_is_there(way: str, full: Conversation) -> None:
    assert full.messages.pop()["content"] == "7"
    full.messages.truncate(2)
    assert contents(full) == numbers(3, 4)
    call(way, full, "save")
    assert contents(full) == numbers(3, 4)
    said(full, 8)
    call(way, full, "save")
    assert [message["content"] for message in full.messages.page(4, 6)] == numbers(4, 8)


def test_refuse_is_refused_where_others_have_filled_it(way: str) -> None:
    store = ConversationStore(LocMemBackend(), max_messages=2)
    conversation = store.create()
    said(conversation, 0)
    conversation.save()
    other = store.get(conversation.id)
    said(other, 1)
    other.save()
    said(conversation, 2)
    with pytest.raises(ConversationTooLarge, match="drop_oldest"):
        call(way, conversation, "save")
    assert contents(store.get(conversation.id)) == numbers(0, 1)


def test_without_it_a_history_that_is_shorter_than_it_was_is_an_interruption() -> None:
    store = ConversationStore(LocMemBackend(), window=1)
    conversation = store.create()
    said(conversation, *range(5))
    conversation.save()
    conversation = store.get(conversation.id)
    other = store.get(conversation.id)
    other.messages.truncate(1)
    other.save()
    with pytest.raises(ConversationInterrupted):
        asyncio.run(conversation.messages.aall())
