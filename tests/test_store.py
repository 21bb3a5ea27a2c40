"""The store: conversations by their ids, lists, purges, settings of its own."""

import asyncio
import copy
import math
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import pytest

from django_convstate import (
    Conversation,
    ConversationNotFound,
    ConversationStore,
    InvalidBackend,
    InvalidConversationId,
    InvalidConversationValue,
    conversations,
    get_backend,
)
from django_convstate.ids import new_id
from tests.support.backends import CountingBackend
from tests.support.conversations import contents


class TestStore:
    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), -math.inf, True, "3600", 10**12, None])
    def test_an_impossible_ttl_is_refused(self, ttl: Any, saved: Conversation) -> None:
        if ttl is None:
            assert conversations.create(ttl=None).ttl == 3600
            return
        with pytest.raises(InvalidConversationValue, match="ttl"):
            conversations.create(ttl=ttl)
        with pytest.raises(InvalidConversationValue, match="ttl"):
            conversations.touch(saved.id, ttl)

    def test_get_with_another_owner_is_not_found(self, saved: Conversation) -> None:
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

    def test_open_creates_or_continues(self) -> None:
        id = "whatsapp:+15550100"
        first, second = conversations.open(id), conversations.open(id)
        first.messages.append("user", "hello")
        second.messages.append("user", "are you there?")
        first.save()
        second.save()
        assert contents(conversations.open(id)) == ["hello", "are you there?"]
        assert conversations.open(id).id == id

    def test_open_keeps_the_ttl_of_another_creator(self) -> None:
        """Who comes second does not reset the time to live that the first has given it."""
        id = new_id()
        second = conversations.open(id)
        ConversationStore(conversations.backend, ttl=60).append(id, "user", "hello")
        second.messages.append("user", "are you there?")
        second.save()
        assert conversations.get(id).ttl == 60

    async def test_append_takes_one_commit_and_no_load(self) -> None:
        store = ConversationStore(CountingBackend(), ttl=60)
        CountingBackend.calls.clear()
        store.append("whatsapp:+15550100", "user", "hello", source="webhook")
        await store.aappend("whatsapp:+15550100", "user", "are you there?")
        assert CountingBackend.calls == {"commit": 2, "acommit": 1}
        conversation = store.get("whatsapp:+15550100")
        assert contents(conversation) == ["hello", "are you there?"]
        assert conversation.messages[-2]["source"] == "webhook"
        assert conversation.ttl == 60
        with pytest.raises(InvalidConversationValue):
            store.append("whatsapp:+15550100", "user", float("nan"))
        with pytest.raises(InvalidConversationId):
            store.append("", "user", "hello")

    def test_list_and_purge_select_by_owner(self) -> None:
        for owner in ("u1", "u1", "u2"):
            conversation = conversations.create(owner=owner)
            conversation.messages.append("user", "hi")
            conversation.save()
            time.sleep(0.002)  # what is saved in one millisecond is in no order
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
            {"batch_size": 10**20},
        ],
    )
    def test_an_impossible_selection_is_refused(
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

    def test_async_methods_work(self) -> None:
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

    def test_async_methods_call_async_methods_of_the_backend(self, settings: Any) -> None:
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

    def test_changed_settings_are_used_at_once(self, settings: Any) -> None:
        assert conversations.create().ttl == 3600
        kept = conversations.create()
        kept["a"] = 1
        kept.save()
        settings.CONVERSATION_STATE = {"TTL": 5, "WINDOW": 1}
        assert conversations.create().ttl == 5
        assert conversations.get(kept.id)["a"] == 1

    def test_a_store_with_options_of_its_own(self) -> None:
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

    @pytest.mark.parametrize("backend", ["locmem", "cache"])
    def test_stores_with_a_prefix_of_their_own_share_nothing(
        self, settings: Any, backend: str
    ) -> None:
        settings.CONVERSATION_STATE_BACKEND = backend
        acme, zenith = (ConversationStore(key_prefix=name) for name in ("acme", "zenith"))
        conversation = acme.create()
        conversation["city"] = "Jaipur"
        conversation.save()
        assert acme.exists(conversation.id)
        assert not zenith.exists(conversation.id)
        assert not conversations.exists(conversation.id)

    def test_a_store_with_the_settings_backend_follows_the_settings(self, settings: Any) -> None:
        store = ConversationStore(ttl=60)
        assert store.backend is conversations.backend
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
        assert store.backend.name == "shared"

    @pytest.mark.parametrize(
        "duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
    )
    def test_a_conversation_can_be_copied_and_pickled_with_its_store(self, duplicate: Any) -> None:
        conversation = conversations.create()
        conversation["saved"] = 1
        conversation.save()
        conversation["changed"] = {"nested": [1]}
        conversation.messages.append("user", "hello")
        twin = duplicate(conversation)
        assert (dict(twin), contents(twin)) == (dict(conversation), ["hello"])
        twin.save()
        assert conversation.is_modified
        assert dict(conversations.get(conversation.id)) == dict(twin)
        assert duplicate(conversations).get(conversation.id).version == 2
