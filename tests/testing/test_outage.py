"""A store that is away: an error where there is no fallback, an outage where there is one."""

import logging
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationStore, conversations, signals
from django_convstate.testing import aseed, assert_store_calls, seed, store_away

pytestmark = pytest.mark.usefixtures("emptied")

PLACES: list[tuple[str, dict[str, Any]]] = [
    ("locmem", {}),
    ("cache", {"cache_alias": "default"}),
    ("cache", {"cache_alias": "redis"}),
    ("redis", {"cache_alias": "django_redis", "fallback": None}),
]


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize(("name", "options"), PLACES)
def test_each_operation_raises(name: str, options: Any) -> None:
    store = ConversationStore(name, **options)
    conversation = seed([("user", "hi")], {"a": 1}, id="a", store=store)
    with store_away():
        for operation in (
            lambda: store.get("a"),
            lambda: store.peek("a"),
            lambda: store.open("a"),
            lambda: store.exists("a"),
            lambda: store.touch("a"),
            lambda: store.delete("a"),
            lambda: list(store.list()),
            lambda: store.purge(everything=True),
            lambda: store.append("a", "user", "again"),
            lambda: conversation.turn().__enter__(),
            lambda: conversation.cycle_id(),
        ):
            with pytest.raises(BackendUnavailable):
                operation()
        conversation["a"] = 2
        with pytest.raises(BackendUnavailable):
            conversation.save()
        assert store.health().connected is False
    assert store.health().connected is True
    conversation.save()
    assert store.get("a")["a"] == 2
    store.close()


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize(("name", "options"), PLACES)
async def test_each_operation_raises_in_async_code(name: str, options: Any) -> None:
    store = ConversationStore(name, **options)
    conversation = await aseed([("user", "hi")], {"a": 1}, id="a", store=store)
    with store_away():
        for operation in (store.aget, store.apeek, store.aopen, store.aexists, store.adelete):
            with pytest.raises(BackendUnavailable):
                await operation("a")
        with pytest.raises(BackendUnavailable):
            [each async for each in store.alist()]
        with pytest.raises(BackendUnavailable):
            async with conversation.aturn():
                pass
        conversation["a"] = 2
        with pytest.raises(BackendUnavailable):
            await conversation.asave()
        assert (await store.ahealth()).connected is False
    assert (await store.ahealth()).connected is True
    await conversation.asave()
    assert (await store.aget("a"))["a"] == 2
    await store.backend.aclose()


@pytest.mark.usefixtures("valkey")
class TestFailover:
    @pytest.fixture
    def store(self) -> ConversationStore:
        return ConversationStore("redis", cache_alias="django_redis")

    @pytest.mark.parametrize("turns", [1, 5])
    def test_conversations_go_on_and_are_replayed(
        self, store: ConversationStore, turns: int
    ) -> None:
        conversation = seed([("user", "hi")], store=store)
        heard: list[dict[str, Any]] = []

        def recovered(sender: object, signal: object, **stats: Any) -> None:
            heard.append(stats)

        signals.backend_recovered.connect(recovered)
        try:
            with store_away():
                for number in range(turns):
                    known = store.get(conversation.id)
                    known.messages.append("user", str(number))
                    known.save()
                    assert (known.degraded, len(known.messages)) == (True, number + 2)
                begun = seed([("user", "in the outage")], store=store)
                assert begun.degraded
                assert store.health().connected is False
        finally:
            signals.backend_recovered.disconnect(recovered)
        again = store.get(conversation.id)
        assert (again.degraded, len(again.messages)) == (False, turns + 1)
        assert {each.id for each in store.list()} == {conversation.id, begun.id}, "and no probe"
        assert store.health().using_fallback is False
        if turns > 3:
            assert [stats["replayed"] for stats in heard] == [turns + 1]
        store.close()

    async def test_in_async_code(self, store: ConversationStore) -> None:
        conversation = await aseed([("user", "hi")], store=store)
        with store_away():
            for number in range(5):
                known = await store.aget(conversation.id)
                known.messages.append("user", str(number))
                await known.asave()
                assert known.degraded
        again = await store.aget(conversation.id)
        assert (again.degraded, len(again.messages)) == (False, 6)
        await store.backend.aclose()

    def test_an_outage_in_which_nothing_was_said_ends_too(self, store: ConversationStore) -> None:
        conversation = seed([("user", "hi")], store=store)
        with store_away():
            for _ in range(5):
                assert store.get(conversation.id).degraded
        with assert_store_calls(1):
            assert not store.get(conversation.id).degraded
        store.close()

    def test_a_store_that_is_first_used_in_it_is_away(self, store: ConversationStore) -> None:
        with store_away():
            conversation = seed([("user", "hi")], store=store)
            assert conversation.degraded
        assert len(store.get(conversation.id).messages) == 1
        store.close()


def test_a_view_answers_503(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    client.get("/sync/say?text=hi")
    with store_away():
        assert client.get("/sync/say?text=again").status_code == 503
    assert client.get("/sync/say?text=again").json()["messages"] == ["hi", "again"]


def test_it_is_away_once() -> None:
    with store_away(), pytest.raises(RuntimeError, match="already"), store_away():
        pass
    seed([("user", "hi")], id="a")
    assert conversations.exists("a")
