"""The tests of a small project, by pytest: each works in an empty store only."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase

from django_convstate import conversations
from django_convstate.testing import assert_store_calls, clock, seed, store_away


def use(client: Any) -> None:
    """Find nothing, store something under ids that others use too, and leave it."""
    assert list(conversations.list()) == []
    assert client.conversation.is_new
    for number in range(3):
        seed([("user", "hi")], {"number": number}, owner="ada", id=f"fixed-{number}")
    with pytest.raises(Exception, match="taken"):
        seed([("user", "hi")], id="fixed-0")
    with assert_store_calls(2):
        client.get("/sync/say?text=hi")
    assert client.conversation["turns"] == 1
    assert len(list(conversations.list())) == 4
    conversations.delete("fixed-2")
    clock.move(3601)
    assert list(conversations.list("ada")) == []
    with store_away():
        conversations.health()
    seed([("user", "left behind")], owner="ada", ttl=10**6)


@pytest.mark.parametrize("number", range(6))
def test_a_function(client: Any, number: int) -> None:
    use(client)


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(3))
def test_with_a_database(client: Any, number: int) -> None:
    client.force_login(User.objects.create_user("ada"))
    assert client.conversation.owner is not None
    seed([("user", "hi")], id="fixed")


@pytest.mark.parametrize("number", range(3))
async def test_async(async_client: Any, number: int) -> None:
    assert [each async for each in conversations.alist()] == []
    await async_client.get("/async/say?text=hi")
    assert (await async_client.aconversation())["turns"] == 1
    await conversations.aappend("fixed", "user", "hi", owner="ada")
    assert len((await conversations.aget("fixed")).messages) == 1


class TestOfDjango(TestCase):
    def setUp(self) -> None:
        seed([("user", "hi")], id="fixed")

    def test_one(self) -> None:
        assert len(list(conversations.list())) == 1
        conversations.delete("fixed")

    def test_two(self) -> None:
        assert len(list(conversations.list())) == 1
        self.client.get("/sync/say?text=hi")
        assert self.client.conversation["turns"] == 1  # type: ignore[attr-defined]


class TestWithTransactions(TransactionTestCase):
    def test_one(self) -> None:
        use(self.client)

    def test_two(self) -> None:
        use(self.client)
