"""A new id for a conversation: it is moved by the store, and nothing of it passes through here."""

from typing import Any

import pytest

from django_convstate import ConversationInterrupted, ConversationNotFound, ConversationStore
from django_convstate.backends.locmem import LocMemBackend
from tests.support.conversations import contents
from tests.support.ways import call

METHODS = {
    name
    for name in dir(LocMemBackend)
    if callable(getattr(LocMemBackend, name)) and not name.startswith("_")
}


class Recording(LocMemBackend):
    """Records what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Any]] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in METHODS or name == "id_beside":
            return found

        def recorded(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name.removeprefix("a"), args))
            return found(*args, **kwargs)

        return recorded


@pytest.mark.parametrize("count", [3, 3000])
def test_the_same_commands_move_a_short_and_a_long_conversation(way: str, count: int) -> None:
    backend = Recording()
    store = ConversationStore(backend, window=10)
    conversation = store.create(owner="u1", ttl=90)
    conversation["a"] = {"b": 1}
    conversation.messages.extend([{"number": number} for number in range(count)])
    conversation.save()
    conversation = store.get(conversation.id)
    old, version, created_at = conversation.id, conversation.version, conversation.created_at
    backend.asked.clear()
    call(way, conversation, "cycle_id")
    if way == "sync":
        commands = [name for name, _ in backend.asked]
    else:  # in memory a twin calls its method
        commands = [name for name, _ in backend.asked[::2]]
    assert commands == ["rename"]
    assert [args for _, args in backend.asked][-1][:2] == (old, conversation.id)
    assert conversation.id != old
    assert not store.exists(old)
    with pytest.raises(ConversationNotFound):
        store.get(old)
    for each in (conversation, store.get(conversation.id)):
        assert (each.owner, each.ttl, each.version) == ("u1", 90, version)
        assert (each.created_at, dict(each)) == (created_at, {"a": {"b": 1}})
        assert [message["number"] for message in each.messages.all()] == list(range(count))
    assert [summary.id for summary in store.list()] == [conversation.id]


def test_it_saves_first(way: str) -> None:
    backend = Recording()
    store = ConversationStore(backend)
    conversation = store.create()
    conversation["a"] = 1
    conversation.messages.append("user", "hello")
    call(way, conversation, "cycle_id")
    assert not conversation.is_modified
    again = store.get(conversation.id)
    assert (again["a"], contents(again)) == (1, ["hello"])
    assert [name for name, _ in backend.asked if name in ("commit", "rename")][-1] == "rename"


def test_one_that_was_never_stored_keeps_its_id(way: str) -> None:
    backend = Recording()
    conversation = ConversationStore(backend).create()
    old = conversation.id
    call(way, conversation, "cycle_id")
    assert (conversation.id, backend.asked) == (old, [])


def test_it_goes_on_under_the_new_id(way: str) -> None:
    store = ConversationStore(LocMemBackend())
    conversation = store.create()
    conversation.messages.append("user", "a", id="x")
    conversation.save()
    for _ in range(3):
        call(way, conversation, "cycle_id")
        conversation.messages.append("user", "again", id="x")
        conversation.messages.update("x", times=conversation.incr("n"))
        call(way, conversation, "save")
    again = store.get(conversation.id)
    assert again["n"] == again.messages.find("x")["times"] == 3
    assert contents(again) == ["a"]


def test_the_old_id_is_not_begun_anew_by_one_who_held_it(way: str) -> None:
    store = ConversationStore(LocMemBackend())
    conversation = store.create()
    conversation["a"] = 1
    conversation.save()
    old, late = conversation.id, store.get(conversation.id)
    call(way, conversation, "cycle_id")
    late["a"] = "late"
    with pytest.raises(ConversationInterrupted):
        call(way, late, "save")
    assert not store.exists(old)
    assert store.get(conversation.id)["a"] == 1
