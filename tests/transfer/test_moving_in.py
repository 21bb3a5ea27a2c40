"""What an app has kept itself comes in with its times, once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_convstate import ConversationStore, InvalidConversationValue, clock
from django_convstate.exceptions import InvalidConversationId, InvalidConversationType
from django_convstate.transfer import bring_in
from tests.support.archives import LISTING

Make = Callable[[str], ConversationStore]
START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def said(count: int) -> list[dict[str, Any]]:
    return [
        {
            "role": "user" if number % 2 == 0 else "assistant",
            "content": f"message {number}",
            "timestamp": START + timedelta(minutes=number),
            "model": "small",
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("place", [*LISTING, "default", "file"])
def test_it_is_there_with_its_times(make_store: Make, place: str) -> None:
    store = make_store(place)
    state, messages = {"title": "A trip", "trip": {"days": 3}}, said(120)
    now = clock.time()
    assert bring_in("chat-1", messages, state=state, owner="u1", ttl=3600, store=store)
    conversation = store.get("chat-1", owner="u1")
    assert dict(conversation) == state
    assert conversation.version == 1
    assert conversation.created_at == START
    assert conversation.modified_at == START + timedelta(minutes=119)
    assert conversation.ttl == 3600
    assert conversation.expires_at is not None
    assert conversation.expires_at.timestamp() - now == pytest.approx(3600, abs=60)
    found = conversation.messages.all()
    assert [message["content"] for message in found] == [f"message {n}" for n in range(120)]
    assert found[3]["timestamp"] == "2024-05-01T12:03:00.000+00:00"
    assert found[3]["model"] == "small"
    assert found[3]["id"] == found[3].id
    conversation.messages.append("user", "and now")
    conversation.messages.update(found[5].id, content="changed")
    conversation.save()
    assert store.get("chat-1").messages.find(found[5].id)["content"] == "changed"
    assert store.get("chat-1").messages[-1]["content"] == "and now"


@pytest.mark.parametrize("place", [*LISTING, "default"])
def test_the_second_time_it_changes_nothing(make_store: Make, place: str) -> None:
    store = make_store(place)
    assert bring_in("chat-1", said(2), store=store)
    with_more = store.get("chat-1")
    with_more.messages.append("user", "since then")
    with_more.save()
    assert not bring_in("chat-1", said(2), store=store)
    assert len(store.get("chat-1").messages) == 3
    store.delete("chat-1")
    assert not bring_in("chat-1", said(2), store=store), "it was deleted"
    assert not store.exists("chat-1")


def test_messages_as_an_app_has_them(make_store: Make) -> None:
    store = make_store("locmem")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi", "timestamp": "2024-05-01T14:00:00+02:00", "id": "77"},
        {"type": "function_call", "call_id": "c"},
        {"role": "user", "content": "hi", "timestamp": "2024-05-01T12:00:00Z"},
        {"role": "user", "content": "earlier", "timestamp": datetime(2024, 5, 1, 11)},
    ]
    assert bring_in("chat-1", messages, created_at=START, store=store)
    found = store.get("chat-1").messages.all()
    assert "timestamp" not in found[0]
    assert found[1].id == found[1]["id"] == "77"
    assert found[1]["timestamp"] == found[3]["timestamp"] == "2024-05-01T12:00:00.000+00:00"
    assert [message.get("content") for message in found][-1] == "earlier"
    assert len({message.id for message in found}) == 5
    assert store.get("chat-1").created_at == START
    assert store.get("chat-1").messages.find("77") == found[1]


def test_a_listing_is_in_the_order_of_what_was_said(make_store: Make) -> None:
    store = make_store("locmem")
    for number in (2, 0, 1):
        at = START + timedelta(days=number)
        bring_in(f"chat-{number}", [{"role": "user", "content": "", "timestamp": at}], store=store)
    assert [each.id for each in store.list()] == ["chat-2", "chat-1", "chat-0"]


@pytest.mark.parametrize(
    ("messages", "options", "error", "why"),
    [
        ([], {}, InvalidConversationValue, "empty"),
        (["hi"], {}, InvalidConversationType, r"messages\[0\] must be a dictionary"),
        ([{"a": {1}}], {}, InvalidConversationType, r'messages\[0\]\["a"\].* set'),
        ([{"timestamp": "today"}], {}, InvalidConversationValue, r'\["timestamp"\] must be'),
        ([{"timestamp": 12345}], {}, InvalidConversationValue, r'\["timestamp"\] must be'),
        ([{"timestamp": datetime(9999, 1, 1)}], {}, InvalidConversationValue, "to 2286"),
        ([{"id": 7}], {}, InvalidConversationType, "id of a message is a string"),
        ([{"id": "a"}, {"id": "a"}], {}, InvalidConversationValue, r"\[1\] has the id of another"),
        ([{}], {"state": {1: 2}}, InvalidConversationType, "keys of the state"),
        ([{}], {"state": {"a": {1}}}, InvalidConversationType, r'state\["a"\]'),
        ([{}], {"id": "../x"}, InvalidConversationId, "consists of"),
        ([{}], {"owner": "None"}, InvalidConversationValue, "not logged in"),
        ([{}], {"ttl": -1}, InvalidConversationValue, "ttl must"),
        ([{}], {"created_at": "x"}, InvalidConversationValue, "created_at must"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is(
    make_store: Make, messages: Any, options: Any, error: type[Exception], why: str
) -> None:
    store = make_store("locmem")
    with pytest.raises(error, match=why):
        bring_in(options.pop("id", "chat-1"), messages, store=store, **options)
    assert list(store.list()) == []
