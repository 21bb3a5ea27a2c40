"""Messages by their ids: what append and extend return, what can be changed, what is refused."""

import asyncio
import copy
import json
import pickle
from typing import Any

import orjson
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.http import JsonResponse

from django_convstate import Conversation, ConversationStore, InvalidConversationValue
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.conversation.message import Message
from django_convstate.exceptions import (
    BackendUnavailable,
    ConversationTooLarge,
    InvalidConversationType,
    MessageNotFound,
)
from tests.support.backends import CountingBackend, LosesReplies, LosesRequests
from tests.support.conversations import contents
from tests.support.ways import call


@pytest.fixture
def short() -> Conversation:
    """Ten messages, of which the newest two are in memory."""
    store = ConversationStore(CountingBackend(), window=2)
    conversation = store.create()
    for number in range(10):
        conversation.messages.append("user", f"message {number}", id=f"m{number}")
    conversation.save()
    CountingBackend.calls.clear()
    return store.get(conversation.id)


def again(conversation: Conversation) -> Conversation:
    """The same conversation as others see it."""
    return ConversationStore(conversation._repository.backend).get(conversation.id)


class TestAppend:
    def test_it_returns_the_id_and_stores_it(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        made = conversation.messages.append("user", "a")
        given = conversation.messages.append("user", "b", id="wamid.1")
        assert given == "wamid.1"
        assert len(made) == 20
        int(made, 16)
        conversation.save()
        for each in (conversation, memory.get(conversation.id)):
            assert [message.id for message in each.messages] == [made, given]
            assert [message["id"] for message in each.messages] == [made, given]

    def test_ids_that_are_made_grow(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        made = [conversation.messages.append("user", "a") for _ in range(100)]
        assert made == sorted(set(made))

    def test_the_same_id_in_memory_is_kept_once(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        for content in ("first", "second"):
            assert conversation.messages.append("user", content, id="x") == "x"
        assert contents(conversation) == ["first"]
        conversation.save()
        conversation.messages.append("user", "third", id="x")
        assert not conversation.is_modified
        assert contents(memory.get(conversation.id)) == ["first"]

    def test_the_same_id_in_the_store_is_kept_once(self, way: str, short: Conversation) -> None:
        others = again(short)
        others.messages.append("user", "theirs", id="theirs")
        others.save()
        for id in ("m0", "theirs", "new"):
            assert short.messages.append("user", "again", id=id) == id
        call(way, short, "save")
        expected = [*(f"message {number}" for number in range(10)), "theirs", "again"]
        assert contents(again(short)) == expected
        assert contents(short) == expected
        assert len(short.messages) == 12

    def test_the_same_id_after_a_lost_reply_is_kept_once(self) -> None:
        backend = LosesReplies()
        store = ConversationStore(backend)
        conversation = store.create()
        conversation.messages.append("user", "hello", id="x")
        backend.to_lose = 1
        with pytest.raises(Exception, match="lost"):
            conversation.save()
        assert store.append(conversation.id, "user", "hello", id="x") is False
        conversation.save()
        assert contents(conversation) == contents(store.get(conversation.id)) == ["hello"]

    def test_what_was_taken_back_may_be_said_again(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        conversation.messages.append("user", "first", id="x")
        conversation.save()
        conversation.messages.pop()
        conversation.messages.append("user", "second", id="x")
        assert contents(conversation) == ["second"]
        conversation.save()
        assert contents(memory.get(conversation.id)) == ["second"]


class TestExtend:
    items: tuple[dict[str, Any], ...] = (
        {"type": "function_call", "call_id": "c1", "arguments": "{}"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"id": "an SDK's own", "timestamp": 5},
        {},
    )

    def test_items_come_back_as_they_went_in(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        ids = conversation.messages.extend(self.items)
        assert len(set(ids)) == 4
        assert list(conversation.messages) == list(self.items)
        conversation.save()
        stored = memory.get(conversation.id).messages
        assert [dict(message) for message in stored] == list(self.items)
        assert [message.id for message in stored] == ids

    def test_an_iterator_will_do_and_none_are_fine(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        assert conversation.messages.extend([]) == []
        assert not conversation.is_modified
        assert len(conversation.messages.extend(item for item in self.items)) == 4

    @pytest.mark.parametrize("bad", [None, "text", 5, ["list"], [("a", 1)], object()])
    def test_an_item_that_is_no_json_object_is_refused(
        self, memory: ConversationStore, bad: Any
    ) -> None:
        conversation = memory.create()
        with pytest.raises(InvalidConversationType, match=r"item 1 .* write a dictionary"):
            conversation.messages.extend([{"fine": 1}, bad])
        assert len(conversation.messages) == 0, "all or none"
        assert not conversation.is_modified

    @pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": {1, 2}}, {5: "a"}, {"a": "\ud800"}])
    def test_an_item_that_is_no_json_is_refused_with_its_path(
        self, memory: ConversationStore, bad: Any
    ) -> None:
        conversation = memory.create()
        with pytest.raises(InvalidConversationValue, match="item 1"):
            conversation.messages.extend([{}, bad])
        assert len(conversation.messages) == 0

    def test_items_that_are_too_many_or_too_large_are_refused(self) -> None:
        conversation = ConversationStore("locmem", max_messages=2, max_message_bytes=50).create()
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGES is 2"):
            conversation.messages.extend([{}, {}, {}])
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGE_BYTES"):
            conversation.messages.extend([{}, {"a": "a" * 50}])
        assert len(conversation.messages) == 0


class TestBadIds:
    @pytest.mark.parametrize(
        ("bad", "error", "hint"),
        [
            (5, InvalidConversationType, r"write str\(\) of it"),
            (b"x", InvalidConversationType, "not bytes"),
            (["x"], InvalidConversationType, "not list"),
            ("", InvalidConversationValue, "1 to 64 characters, not 0"),
            ("x" * 65, InvalidConversationValue, "1 to 64 characters, not 65"),
            ("\ud800", InvalidConversationValue, "The id of a message"),
        ],
    )
    def test_an_id_that_cannot_be_one_is_refused(
        self, way: str, short: Conversation, bad: Any, error: type[Exception], hint: str
    ) -> None:
        messages = short.messages
        for use in (
            lambda: messages.append("user", "a", id=bad),
            lambda: messages.stream("assistant", ["a"], id=bad),
            lambda: call(way, messages, "find", bad),
            lambda: call(way, messages, "update", bad, content="a"),
            lambda: call(way, messages, "redact", bad),
        ):
            with pytest.raises(error, match=hint):
                use()
        assert not short.is_modified

    @pytest.mark.parametrize("id", ["x" * 64, "é" * 64, "😀" * 63, "#1", "a b\n", "0" * 20])
    def test_any_other_text_is_an_id(self, memory: ConversationStore, id: str) -> None:
        conversation = memory.create()
        conversation.messages.append("user", "a", id=id)
        conversation.save()
        stored = memory.get(conversation.id)
        assert stored.messages[0].id == stored.messages[0]["id"] == id
        assert stored.messages.find(id)["content"] == "a"

    @pytest.mark.parametrize("id", ["absent", "0" * 20, "f" * 20, "#0", "#99"])
    def test_an_unknown_id_is_not_found(self, way: str, short: Conversation, id: str) -> None:
        for name, fields in (("find", {}), ("update", {"a": 1}), ("redact", {})):
            with pytest.raises(MessageNotFound, match="no message with that id"):
                call(way, short.messages, name, id, **fields)
        assert not short.is_modified


# One before the window, one in it, and one that is not saved yet.
IDS = ["m1", "m9", "new"]


@pytest.mark.parametrize("id", IDS)
class TestFindUpdateRedact:
    @pytest.fixture(autouse=True)
    def _new(self, short: Conversation) -> None:
        short.messages.append("user", "message new", id="new", mood="good")

    def test_find(self, way: str, short: Conversation, id: str) -> None:
        message = call(way, short.messages, "find", id)
        assert isinstance(message, Message)
        assert (message.id, message["content"]) == (id, f"message {id.removeprefix('m')}")
        asked = CountingBackend.calls["find" if way == "sync" else "afind"]
        assert asked == (id == "m1"), "only for what is not in memory"

    def test_update(self, way: str, short: Conversation, id: str) -> None:
        call(way, short.messages, "update", id, content="changed", stars=[5])
        call(way, short.messages, "update", id, note="kept")
        for find in (lambda: short, lambda: again(short)):
            message = call(way, find().messages, "find", id)
            assert (message["content"], message["stars"]) == ("changed", [5])
            assert (message["note"], message["role"], message["id"]) == ("kept", "user", id)
            assert message["timestamp"]
            call(way, short, "save")
        assert len(again(short).messages) == 11

    def test_redact(self, way: str, short: Conversation, id: str) -> None:
        timestamp = call(way, short.messages, "find", id)["timestamp"]
        call(way, short.messages, "redact", id)
        for find in (lambda: short, lambda: again(short)):
            message = call(way, find().messages, "find", id)
            assert message == {
                "id": id,
                "role": "user",
                "timestamp": timestamp,
                "redacted": True,
            }
            call(way, short, "save")
        assert not short.is_modified

    def test_the_id_cannot_be_changed(self, way: str, short: Conversation, id: str) -> None:
        with pytest.raises(InvalidConversationValue, match="id of a message cannot"):
            call(way, short.messages, "update", id, id="another")
        assert call(way, short.messages, "find", id)["id"] == id

    def test_a_bad_update_changes_nothing(self, way: str, short: Conversation, id: str) -> None:
        with pytest.raises(InvalidConversationValue, match='message\\["stars"\\]'):
            call(way, short.messages, "update", id, stars=float("nan"))
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGE_BYTES"):
            call(way, short.messages, "update", id, stars="x" * 70_000)
        assert "stars" not in call(way, short.messages, "find", id)


class TestChangesOfTwo:
    def both(self, memory: ConversationStore) -> tuple[Conversation, Conversation]:
        conversation = memory.create()
        conversation.messages.append("user", "hello", id="x")
        conversation.save()
        return memory.get(conversation.id), memory.get(conversation.id)

    def test_disjoint_fields_both_hold(self, way: str, memory: ConversationStore) -> None:
        ours, theirs = self.both(memory)
        call(way, ours.messages, "update", "x", ours=1, same="ours")
        call(way, theirs.messages, "update", "x", theirs=1, same="theirs")
        call(way, theirs, "save")
        call(way, ours, "save")
        message = memory.get(ours.id).messages.find("x")
        assert (message["ours"], message["theirs"], message["same"]) == (1, 1, "ours")
        assert message["content"] == "hello"

    @pytest.mark.parametrize("redacts_first", [True, False])
    def test_what_is_redacted_does_not_come_back(
        self, way: str, memory: ConversationStore, redacts_first: bool
    ) -> None:
        updates, redacts = self.both(memory)
        call(way, updates.messages, "update", "x", stars=5)
        call(way, redacts.messages, "redact", "x")
        pair = (redacts, updates) if redacts_first else (updates, redacts)
        for each in pair:
            call(way, each, "save")
        message = memory.get(updates.id).messages.find("x")
        assert message["redacted"] is True
        assert "content" not in message
        assert "stars" not in message, "what is redacted stays as it is"

    def test_an_update_of_what_is_gone_is_not_found(
        self, way: str, memory: ConversationStore
    ) -> None:
        ours, theirs = self.both(memory)
        ours.messages.update("x", stars=5)
        theirs.messages.clear()
        theirs.save()
        with pytest.raises(MessageNotFound):
            call(way, ours, "save")
        assert not ours.is_modified

    def test_a_redaction_of_what_is_gone_is_done(self, way: str, memory: ConversationStore) -> None:
        ours, theirs = self.both(memory)
        ours.messages.redact("x")
        theirs.messages.clear()
        theirs.save()
        call(way, ours, "save")
        assert contents(memory.get(ours.id)) == []

    def test_what_was_updated_and_saved_stays_so_when_a_turn_fails(
        self, way: str, memory: ConversationStore
    ) -> None:
        ours, _ = self.both(memory)

        def turn() -> None:
            with ours.turn():
                ours.messages.update("x", stars=1)
                ours.save()
                ours.messages.update("x", stars=2)
                raise RuntimeError

        async def aturn() -> None:
            async with ours.aturn():
                ours.messages.update("x", stars=1)
                await ours.asave()
                ours.messages.update("x", stars=2)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            turn() if way == "sync" else asyncio.run(aturn())
        assert memory.get(ours.id).messages[0]["stars"] == 1
        assert ours.messages[0]["stars"] == ours.messages.find("x")["stars"] == 1

    def test_what_was_updated_while_a_save_waits_is_so_if_it_was_said_already(self) -> None:
        backend = LosesRequests()
        store = ConversationStore(backend)
        ours = store.create()
        ours["city"] = "Jaipur"
        ours.save()
        theirs = store.get(ours.id)
        theirs.messages.append("user", "hello", id="webhook-1")
        theirs.save()
        ours["city"] = "Agra"
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            ours.save()
        ours.messages.append("user", "hello", id="webhook-1")
        ours.messages.update("webhook-1", rating=5)
        ours.save()
        for each in (ours, store.get(ours.id)):
            assert [message["rating"] for message in each.messages] == [5]

    def test_what_was_updated_and_then_taken_back_is_no_obstacle(
        self, way: str, memory: ConversationStore
    ) -> None:
        ours, theirs = self.both(memory)
        ours.messages.update("x", stars=1)
        ours.messages.pop()
        theirs.messages.pop()
        theirs.save()
        call(way, ours, "save")
        ours.messages.append("user", "anew", id="x")
        assert contents(ours) == ["anew"]
        call(way, ours, "save")
        assert contents(memory.get(ours.id)) == ["anew"]


def test_in_an_event_loop_the_sync_methods_name_their_twins(short: Conversation) -> None:
    async def view() -> None:
        messages = short.messages
        for use in (
            lambda: messages.find("m1"),
            lambda: messages.update("m1", a=1),
            lambda: messages.redact("m1"),
        ):
            with pytest.raises(SynchronousOnlyOperation, match=r"afind.*aupdate.*aredact"):
                use()
        assert messages.find("m9")["content"] == "message 9", "that one is in memory"
        messages.update("m9", a=1)
        messages.redact("m9")

    asyncio.run(view())


class TestMessage:
    @pytest.fixture
    def message(self, memory: ConversationStore) -> Message:
        conversation = memory.create()
        conversation.messages.append("user", "hi", id="x", parts=[{"text": "a"}])
        return conversation.messages[0]

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.__setitem__("content", "forged"),
            lambda m: m.__delitem__("content"),
            lambda m: m.update(content="forged"),
            lambda m: m.update({"content": "forged"}),
            lambda m: m.pop("content"),
            lambda m: m.pop("absent", None),
            lambda m: m.popitem(),
            lambda m: m.setdefault("new", 1),
            lambda m: m.setdefault("content", 1),
            lambda m: m.clear(),
            lambda m: m.__ior__({"content": "forged"}),
        ],
    )
    def test_it_is_read_only(self, message: Message, change: Any) -> None:
        before = dict(message)
        with pytest.raises(TypeError, match=r"messages\.update"):
            change(message)
        assert message == before

    def test_an_augmented_union_is_refused(self, message: Message) -> None:
        with pytest.raises(TypeError, match=r"messages\.update"):
            message |= {"content": "forged"}

    def test_every_method_that_changes_a_dictionary_is_refused(self) -> None:
        """Also one that a later Python may add."""
        harmless = {"copy", "fromkeys", "get", "items", "keys", "values"}
        methods = {name for name in vars(dict) if not name.startswith("_")} - harmless
        methods |= {"__setitem__", "__delitem__", "__ior__"}
        assert {name for name in methods if vars(Message).get(name) is not Message._refuse} == set()

    @pytest.mark.parametrize(
        "duplicate",
        [
            Message.copy,
            copy.copy,
            copy.deepcopy,
            lambda message: pickle.loads(pickle.dumps(message)),
            lambda message: message | {},
            dict,
            lambda message: {**message},
        ],
    )
    def test_copies_are_plain_dictionaries(self, message: Message, duplicate: Any) -> None:
        twin = duplicate(message)
        assert type(twin) is dict
        assert twin == message
        twin["content"] = "mine"
        assert message["content"] == "hi"

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_protocol_pickles_a_plain_dictionary(
        self, message: Message, protocol: int
    ) -> None:
        twin = pickle.loads(pickle.dumps([message, message], protocol))
        assert [type(each) for each in twin] == [dict, dict]
        assert twin[0] is twin[1]

    def test_a_deep_copy_shares_nothing(self, message: Message) -> None:
        twin = copy.deepcopy({"message": message})
        twin["message"]["parts"][0]["text"] = "mine"
        assert message["parts"] == [{"text": "a"}]

    def test_it_is_json(self, message: Message) -> None:
        expected = dict(message)
        assert json.loads(json.dumps(message)) == expected
        assert json.loads(JsonResponse({"messages": [message]}).content) == {"messages": [expected]}
        assert json.loads(JsonResponse(message).content) == expected
        assert orjson.loads(orjson.dumps(message)) == expected
        assert orjson.loads(orjson.dumps([message])) == [expected]

    def test_for_llm_gives_plain_dictionaries(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        conversation.messages.append("user", "hi")
        (message,) = conversation.messages.for_llm()
        message["content"] = "mine"
        assert type(message) is dict
        assert contents(conversation) == ["hi"]

    def test_a_message_may_be_said_again_elsewhere(
        self, memory: ConversationStore, message: Message
    ) -> None:
        """What one conversation has given, another takes."""
        other = memory.create()
        other.messages.extend([message])
        other["quoted"] = message
        other.save()
        assert memory.get(other.id).messages[0] == message
        assert memory.get(other.id)["quoted"] == message


def test_a_conversation_is_a_dictionary(memory: ConversationStore) -> None:
    conversation = memory.create()
    conversation["a"] = {"b": [1]}
    conversation["c"] = None
    assert dict(conversation) == {**conversation} == {"a": {"b": [1]}, "c": None}
    conversation.save()
    assert dict(memory.get(conversation.id)) == {"a": {"b": [1]}, "c": None}


def test_nested_changes_of_both_hold(way: str) -> None:
    store = ConversationStore(LocMemBackend())
    conversation = store.create()
    conversation["form"] = {"name": "", "address": {"city": ""}, "log": [0]}
    conversation.save()
    ours, theirs = store.get(conversation.id), store.get(conversation.id)
    ours["form"]["name"] = "ours"
    ours["form"]["log"].append("ours")
    ours["form"]["address"]["city"] = "Jaipur"
    theirs["form"]["age"] = 5
    theirs["form"]["log"].append("theirs")
    theirs["form"]["address"]["zip"] = "302001"
    call(way, theirs, "save")
    call(way, ours, "save")
    assert store.get(conversation.id)["form"] == {
        "name": "ours",
        "age": 5,
        "address": {"city": "Jaipur", "zip": "302001"},
        "log": [0, "theirs", "ours"],
    }
