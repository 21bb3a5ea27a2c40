"""One turn at a time: on every backend, by threads, tasks and processes, and when one dies."""

import asyncio
import time

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationBusy,
    ConversationConflict,
    ConversationInterrupted,
    ConversationStore,
    signals,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.conversation.conversation import working_copy_of
from tests.support.ruler import Stopwatch
from tests.support.turns import atake_turn, in_order, said, stored, take_turn, when_waiting

PATIENCE = 30.0  # seconds for whatever has to come
A_LITTLE = 3.0  # seconds, that a bound of time is not missed by


class TestTheBlock:
    def test_a_turn_commits_once_and_at_its_end(self, store: ConversationStore) -> None:
        conversation = stored(store)
        with conversation.turn() as same:
            assert same is conversation
            conversation["a"] = 1
            conversation.messages.append("user", "hello")
            assert "a" not in store.get(conversation.id)
        assert (conversation.version, conversation.is_modified) == (2, False)
        again = store.get(conversation.id)
        assert (again["a"], said(again), again.version) == (1, ["hello"], 2)

    async def test_an_async_turn_commits_at_its_end(self, store: ConversationStore) -> None:
        conversation = await store.aopen(f"webhook:{time.time_ns()}")
        async with conversation.aturn():
            conversation["a"] = 1
        assert (await store.aget(conversation.id))["a"] == 1
        with pytest.raises(ZeroDivisionError):
            async with conversation.aturn():
                conversation["a"] = 1 / 0
        assert conversation.is_modified is False
        await store.aclose()

    def test_a_turn_commits_nothing_after_an_exception(self, store: ConversationStore) -> None:
        conversation = stored(store)
        conversation["list"] = [1]
        conversation.messages.append("user", "before")
        conversation.save()
        with pytest.raises(ZeroDivisionError), conversation.turn():
            conversation["a"] = 1
            conversation["list"].append(2)
            conversation.incr("count")
            del conversation["stored"]
            conversation.messages.pop()
            conversation.messages.append("user", "in vain")
            raise ZeroDivisionError
        assert conversation.is_modified is False
        assert dict(conversation) == {"stored": True, "list": [1]}
        assert said(conversation) == ["before"]
        conversation.save()
        assert store.get(conversation.id).version == 2
        with store.get(conversation.id).turn("reject"):
            pass  # and it is free

    def test_a_save_inside_a_turn_outlives_an_exception(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        with pytest.raises(ZeroDivisionError), conversation.turn():
            conversation["saved"] = 1
            conversation.save()
            with pytest.raises(ConversationBusy), memory.get(conversation.id).turn("reject"):
                pass
            conversation["lost"] = 1
            raise ZeroDivisionError
        assert dict(conversation) == dict(memory.get(conversation.id)) == {"saved": 1}
        conversation["more"] = 1
        conversation.save()
        assert dict(memory.get(conversation.id)) == {"saved": 1, "more": 1}

    def test_a_turn_begins_with_what_is_stored(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        conversation["unsaved"] = 1
        other = memory.get(conversation.id)
        other["by another"] = 1
        other.save()
        with conversation.turn():
            assert set(conversation) == {"stored", "unsaved", "by another"}
            assert memory.get(conversation.id)["unsaved"] == 1, "saved before the turn"

    @pytest.mark.parametrize("is_async", [False, True])
    def test_a_turn_is_of_the_id_that_the_save_before_it_has_left(
        self, memory: ConversationStore, is_async: bool
    ) -> None:
        conversation = stored(memory)

        def give_new_id(sender: object, conversation: Conversation, **kwargs: object) -> None:
            signals.conversation_saved.disconnect(give_new_id, sender=memory)
            conversation.cycle_id()

        signals.conversation_saved.connect(give_new_id, sender=memory)
        conversation["unsaved"] = 1

        if is_async:
            asyncio.run(atake_turn(conversation, 0))
        else:
            take_turn(conversation, 0)
        in_order(memory.get(conversation.id), 1)

    def test_an_empty_turn_of_a_new_conversation_stores_nothing(
        self, memory: ConversationStore
    ) -> None:
        conversation = memory.create(owner="u1")
        with conversation.turn():
            pass
        assert conversation.is_new
        assert list(memory.list()) == []
        with conversation.turn():
            conversation["a"] = 1
        assert memory.get(conversation.id, owner="u1")["a"] == 1

    def test_two_turns_of_one_opened_id_follow_each_other(self, memory: ConversationStore) -> None:
        first, second = memory.open("whatsapp:1"), memory.open("whatsapp:1")
        take_turn(first, 0)
        take_turn(second, 1)
        in_order(memory.open("whatsapp:1"), 2)

    def test_a_turn_of_a_deleted_conversation_is_interrupted(
        self, store: ConversationStore
    ) -> None:
        conversation = stored(store)
        store.delete(conversation.id)
        with pytest.raises(ConversationInterrupted), conversation.turn():
            pass
        conversation = stored(store)
        with pytest.raises(ConversationInterrupted), conversation.turn():
            store.delete(conversation.id)
            conversation["a"] = 1
        with store.open(conversation.id).turn("reject"):
            pass

    def test_turns_cannot_be_nested(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        with conversation.turn():
            conversation["a"] = 1
            with pytest.raises(RuntimeError, match="nested"), conversation.turn():
                pass
        assert memory.get(conversation.id)["a"] == 1

    @pytest.mark.parametrize("leave", ["delete", "cycle_id"])
    def test_a_turn_may_delete_or_rename_its_conversation(
        self, memory: ConversationStore, leave: str
    ) -> None:
        conversation = stored(memory)
        old = conversation.id
        with conversation.turn():
            conversation["a"] = 1
            getattr(conversation, leave)()
            conversation["b"] = 1
        assert conversation.id != old
        assert memory.get(conversation.id)["b"] == 1
        with memory.open(old).turn("reject"):
            pass

    def test_a_turn_with_an_invalid_value_is_undone(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        with pytest.raises(ValueError, match="is nan"), conversation.turn():
            conversation["list"] = []
            conversation["list"].append(float("nan"))
        assert dict(conversation) == {"stored": True}
        with memory.get(conversation.id).turn("reject"):
            pass

    async def test_a_sync_turn_in_the_event_loop_says_what_to_write(
        self, memory: ConversationStore
    ) -> None:
        with pytest.raises(SynchronousOnlyOperation, match="async with"):
            memory.create().turn()

    def test_an_unknown_on_busy_is_refused(self, memory: ConversationStore) -> None:
        with pytest.raises(ValueError, match="'wait' or 'reject'"):
            stored(memory).turn("sometimes").__enter__()  # type: ignore[arg-type]


class TestBusy:
    def test_on_busy_reject_raises_conversation_busy(self, store: ConversationStore) -> None:
        conversation = stored(store)
        with conversation.turn():
            for _ in range(2):
                with pytest.raises(ConversationBusy), store.get(conversation.id).turn("reject"):
                    pass
        with store.get(conversation.id).turn("reject"):
            pass

    def test_waiting_ends_after_turn_wait(self) -> None:
        store = ConversationStore(LocMemBackend(), turn_wait=0.4)
        conversation = stored(store)
        with conversation.turn():
            with Stopwatch() as watch:
                started = time.monotonic()
                with pytest.raises(ConversationBusy), store.get(conversation.id).turn():
                    pass
                assert time.monotonic() - started >= 0.4
            assert watch.seconds < 0.4 + A_LITTLE
        with store.get(conversation.id).turn("reject"):
            pass

    async def test_waiting_of_tasks_ends_after_turn_wait(self) -> None:
        store = ConversationStore(LocMemBackend(), turn_wait=0.4)
        conversation = stored(store)
        async with conversation.aturn():
            with pytest.raises(ConversationBusy):
                async with store.get(conversation.id).aturn():
                    pass
            with pytest.raises(ConversationBusy):
                async with store.get(conversation.id).aturn("reject"):
                    pass
        async with store.get(conversation.id).aturn("reject"):
            pass


class TestLosingIt:
    def test_a_turn_whose_lease_was_lost_cannot_commit(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        with pytest.raises(ConversationConflict, match="lost"), conversation.turn():
            lease = working_copy_of(conversation).lease
            assert lease is not None
            memory.backend.release(conversation.id, lease)
            take_turn(memory.get(conversation.id), 0)
            conversation["a"] = 1
        again = memory.get(conversation.id)
        assert (said(again), "a" in again) == (["u0", "a0"], False)

    def test_a_turn_whose_last_reply_is_lost_can_be_saved_again(self) -> None:
        class LosesReplies(LocMemBackend):
            loses = False

            def commit(self, id: str, change: Change) -> Committed:
                committed = super().commit(id, change)
                if self.loses:
                    self.loses = False
                    raise BackendUnavailable("The reply was lost.")
                return committed

        store = ConversationStore(backend := LosesReplies())
        conversation = stored(store)
        with pytest.raises(BackendUnavailable), conversation.turn():
            conversation.incr("count")
            backend.loses = True
        take_turn(store.get(conversation.id), 0)
        conversation.save()
        again = store.get(conversation.id)
        assert (again["count"], said(again)) == (1, ["u0", "a0"])

    async def test_a_cancelled_task_saves_and_releases_its_turn(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation = await store.aopen(f"webhook:{time.time_ns()}")
        is_in = asyncio.Event()

        async def hold() -> None:
            async with conversation.aturn():
                conversation["a"] = 1
                is_in.set()
                await asyncio.sleep(60)

        async def wait_in_line() -> None:
            async with (await store.aopen(conversation.id)).aturn():
                pass

        holder = asyncio.create_task(hold())
        await is_in.wait()
        is_waiting = when_waiting(store.backend, monkeypatch)
        waiter = asyncio.create_task(wait_in_line())
        async with asyncio.timeout(PATIENCE):
            while not is_waiting.is_set():  # noqa: ASYNC110 - another thread may set it
                await asyncio.sleep(0.01)
        for task in (waiter, holder):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        again = await store.aget(conversation.id)
        assert dict(again) == {"a": 1}, "which the block had said before it was cancelled"
        async with again.aturn("reject"):
            pass
        await store.aclose()
