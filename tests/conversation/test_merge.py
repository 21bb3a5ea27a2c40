"""What becomes of a value that two have changed at the same time."""

import json
from typing import Any

import pytest

from django_convstate import ConversationConflict, ConversationStore
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.conversation.merge import merge


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "both"),
    [
        ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 1, "c": 2}, {"b": 1, "c": 2}),
        ({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 1, "y": 3}}, {"a": {"x": 2, "y": 3}}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),
        ([1], [1, 2], [1, 3], [1, 3, 2]),
        ([1, "b"], [1, "b", "c"], [1, "a", "b"], [1, "a", "b", "c"]),
        ([1, 2], [2], [1, 2, 3], [2, 3]),
        ([1, 2], [2], [1], [2]),
        ({"on": 0, "x": 1}, {"on": False, "x": 1}, {"on": 0, "x": 2}, {"on": False, "x": 2}),
        ([0], [0.0], [0, 1], [0.0, 1]),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": [1, 2]}, {"a": {"b": 1}}),
    ],
)
def test_merge(base: Any, mine: Any, theirs: Any, both: Any) -> None:
    merged = merge(base, mine, theirs)
    assert json.dumps(merged, sort_keys=True) == json.dumps(both, sort_keys=True)


def test_what_others_append_to_a_list_is_kept_over_several_saves() -> None:
    store = ConversationStore(LocMemBackend())
    conversation = store.create()
    conversation["log"] = [1]
    conversation.save()
    one, other = store.get(conversation.id), store.get(conversation.id)
    one["log"].append("a")
    one.save()
    for item in ("b", "c"):
        other["log"].append(item)
        other.save()
    assert store.get(conversation.id)["log"] == [1, "a", "b", "c"]


@pytest.mark.parametrize("again", [1, 2])
def test_what_was_refused_as_taken_is_refused_again(again: int) -> None:
    store = ConversationStore(LocMemBackend())
    theirs = store.create(owner="bob", id="wa-1")
    theirs.messages.append("user", "a secret")
    theirs.save()
    ours = store.create(owner="mallory", id="wa-1")
    for number in range(again + 1):
        ours.messages.append("user", f"planted {number}")
        with pytest.raises(ConversationConflict):
            ours.save()
    with pytest.raises(ConversationConflict), ours.turn():
        ours["a"] = 1
    assert [message["content"] for message in store.get("wa-1").messages] == ["a secret"]


def test_an_update_of_a_message_that_may_be_there_already_is_one_save() -> None:
    store = ConversationStore(LocMemBackend(), window=1)
    conversation = store.create()
    for number in range(3):
        conversation.messages.append("user", f"m{number}", id=f"id{number}", note="theirs")
    conversation.save()
    ours = store.get(conversation.id)
    for name in ("id0", "new"):
        ours.messages.append("user", "ours", id=name)
        ours.messages.update(name, stars=5)
    ours.save()
    found = store.get(conversation.id).messages
    assert found.find("new")["stars"] == found.find("id0")["stars"] == 5
    assert (found.find("id0")["content"], found.find("id0")["note"]) == ("m0", "theirs")
    assert ours.messages.find("id0") == found.find("id0")
