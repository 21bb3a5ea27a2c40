"""Counting calls, and seeding."""

import math
from typing import Any

import pytest
from django.contrib.auth.models import User

from django_convstate import BackendUnavailable, ConversationStore, conversations
from django_convstate.observing import observers
from django_convstate.testing import aseed, assert_store_calls, seed, store_away

pytestmark = pytest.mark.usefixtures("emptied")


class TestCalls:
    def test_as_many_as_said(self, client: Any) -> None:
        with assert_store_calls(1) as first:
            client.get("/sync/say?text=hi")
        with assert_store_calls(2) as second:
            client.get("/sync/say?text=again")
        with assert_store_calls(0):
            client.get("/sync/ignore")
        assert (first, second) == (["commit"], ["load", "commit"])

    async def test_in_async_code(self, async_client: Any) -> None:
        await async_client.get("/async/say?text=hi")
        with assert_store_calls(2) as calls:
            await async_client.get("/async/say?text=again")
        assert calls == ["load", "commit"]

    def test_others_are_listed(self) -> None:
        with (
            pytest.raises(AssertionError, match=r"2 times, not 1: exists, load \(BackendUnavail"),
            assert_store_calls(1),
        ):
            conversations.exists("a")
            with store_away(), pytest.raises(BackendUnavailable):
                conversations.get("a")
        with (
            pytest.raises(AssertionError, match="asked 0 times, not 1: nothing"),
            assert_store_calls(1),
        ):
            pass

    def test_an_error_in_the_block_is_what_is_reported(self) -> None:
        before = observers.copy()
        with pytest.raises(ZeroDivisionError), assert_store_calls(3):
            _ = 1 / 0
        assert observers == before


class TestSeeding:
    def test_all_of_it(self) -> None:
        user = User(pk=5)
        seeded = seed(
            [("user", "hi"), {"type": "call", "id": "x"}, ("assistant", "hello")],
            {"city": "Paris", "preferences": {"pace": "slow"}},
            owner=user,
            ttl=math.inf,
            id="a",
        )
        assert not seeded.is_new
        found = conversations.get("a", owner=user)
        assert dict(found) == {"city": "Paris", "preferences": {"pace": "slow"}}
        assert found.ttl == math.inf
        assert [each.get("content") for each in found.messages] == ["hi", None, "hello"]
        assert found.messages[1] == {"type": "call", "id": "x"}

    async def test_in_async_code_and_elsewhere(self) -> None:
        store = ConversationStore("locmem", key_prefix="other")
        seeded = await aseed(state={"a": 1}, store=store)
        assert (await store.aget(seeded.id))["a"] == 1
        assert not await conversations.aexists(seeded.id)

    async def test_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not stored"):
            seed()
        with pytest.raises(ValueError, match="not stored"):
            await aseed([], {}, owner="u1")
