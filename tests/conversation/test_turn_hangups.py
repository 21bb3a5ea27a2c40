"""A turn that is interrupted because the client has hung up: its generator is closed, or its task
cancelled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationStore,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.conversation import turns
from tests.support.backends import SwitchedFailover
from tests.support.turns import said, stored


def words() -> Iterator[str]:
    yield "one "
    yield "two "
    yield "three"


async def awords() -> AsyncIterator[str]:
    for word in words():
        yield word


def answer(conversation: Conversation) -> Iterator[str]:
    with conversation.turn():
        conversation.messages.append("user", "hello")
        yield from conversation.messages.stream("assistant", words())


async def aanswer(conversation: Conversation) -> AsyncIterator[str]:
    async with conversation.aturn():
        conversation.messages.append("user", "hello")
        async for word in conversation.messages.stream("assistant", awords()):
            yield word


def check(store: ConversationStore, id: str, *expected: str) -> None:
    """It was saved in the turn, with what was streamed as interrupted, and the turn is over."""
    conversation = store.get(id)
    assert said(conversation) == [*expected]
    assert conversation.messages[-1].get("interrupted", False) is (len(expected) > 1)
    with conversation.turn("reject"):
        pass


def test_a_generator_that_is_closed_leaves_question_and_answer(store: ConversationStore) -> None:
    conversation = stored(store)
    chunks: Any = answer(conversation)
    assert [next(chunks), next(chunks)] == ["one ", "two "]
    chunks.close()
    assert conversation.is_modified is False
    check(store, conversation.id, "hello", "one two ")
    assert conversation.version == 2, "one commit"


async def test_an_async_generator_that_is_closed_leaves_question_and_answer(
    store: ConversationStore,
) -> None:
    conversation = await store.aopen(f"webhook:{time.time_ns()}")
    async with aclosing(aanswer(conversation)) as chunks:  # type: ignore[type-var]
        assert [await anext(chunks), await anext(chunks)] == ["one ", "two "]
    assert conversation.is_modified is False
    again = await store.aget(conversation.id)
    assert [m["content"] for m in again.messages] == ["hello", "one two "]
    assert again.messages[-1]["interrupted"] is True
    async with again.aturn("reject"):
        pass
    await store.aclose()


def test_an_event_loop_that_is_closed_leaves_question_and_answer(
    memory: ConversationStore,
) -> None:
    held: list[Any] = []

    async def read() -> None:
        held.append(aanswer(conversation))
        await anext(held[0])

    conversation = stored(memory)
    asyncio.run(read())
    check(memory, conversation.id, "hello", "one ")


def test_another_error_saves_nothing(memory: ConversationStore) -> None:
    def failing(conversation: Conversation) -> Iterator[str]:
        with conversation.turn():
            conversation.messages.append("user", "hello")
            for word in conversation.messages.stream("assistant", words()):
                yield word
                raise RuntimeError("the model's own trouble")

    conversation = stored(memory)
    with pytest.raises(RuntimeError):
        list(failing(conversation))
    assert said(memory.get(conversation.id)) == []


def test_what_cannot_be_saved_is_logged(
    memory: ConversationStore, caplog: pytest.LogCaptureFixture
) -> None:
    def bad() -> Iterator[str]:
        with conversation.turn():
            conversation["list"] = []
            conversation["list"].append(float("nan"))
            yield "one"

    conversation = stored(memory)
    chunks: Any = bad()
    next(chunks)
    chunks.close()
    assert 'state["list"][0] is nan' in caplog.text
    assert conversation.is_modified is False
    with memory.get(conversation.id).turn("reject"):
        pass


class Commits(LocMemBackend):
    """Commits messages when it is told to, or is away."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.commits = asyncio.Event(), asyncio.Event()
        self.is_away = False

    async def acommit(self, id: str, change: Change) -> Committed:
        if change.append:
            self.begun.set()
            await self.commits.wait()
            if self.is_away:
                raise BackendUnavailable("It is away.")
        return await super().acommit(id, change)


class TestACancelledTask:
    @pytest.fixture
    def backend(self) -> Commits:
        return Commits()

    @pytest.fixture
    def take_turn(self, backend: Commits) -> Callable[[float], "asyncio.Task[None]"]:
        self.store = ConversationStore(backend)
        self.conversation = stored(self.store)
        self.is_in = asyncio.Event()

        async def in_turn(seconds: float) -> None:
            async with self.conversation.aturn():
                self.conversation.messages.append("user", "hello")
                self.is_in.set()
                await asyncio.sleep(seconds)

        return lambda seconds: asyncio.create_task(in_turn(seconds))

    @pytest.mark.parametrize("seconds", [0, 60])
    async def test_its_last_save_is_not_cancelled(
        self, backend: Commits, take_turn: Any, seconds: int
    ) -> None:
        """Whether it is the end of the turn already, or the cancellation's."""
        task = take_turn(seconds)
        await self.is_in.wait()
        if seconds:
            task.cancel()
        await backend.begun.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        backend.commits.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await self.store.aget(self.conversation.id)
        assert [m["content"] for m in again.messages] == ["hello"]
        async with again.aturn("reject"):
            pass

    async def test_its_last_save_takes_limited_time(
        self, take_turn: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(turns, "CANCELLED_TIMEOUT", 0.1)
        task = take_turn(60)
        await self.is_in.wait()
        task.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "no answer within 0.1 s" in caplog.text

    async def test_what_the_store_may_not_have_received_is_kept(
        self, backend: Commits, take_turn: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend.is_away = True
        backend.commits.set()
        task = take_turn(60)
        await self.is_in.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "BackendUnavailable" in caplog.text
        backend.is_away = False
        await self.conversation.asave()
        again = await self.store.aget(self.conversation.id)
        assert [m["content"] for m in again.messages] == ["hello"]
        async with again.aturn("reject"):
            pass

    async def test_one_that_waits_for_its_turn_leaves_what_it_had_said_before(
        self, backend: Commits, take_turn: Any
    ) -> None:
        backend.commits.set()
        conversation = await self.store.aget(self.conversation.id)
        async with conversation.aturn():
            self.conversation.messages.append("user", "before")
            task = take_turn(0)
            while not self.conversation.version > 1:  # noqa: ASYNC110 - until that is saved
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert said(self.store.get(self.conversation.id)) == ["before"]


def test_in_an_outage_it_is_kept_in_memory_and_replayed() -> None:
    store = ConversationStore(backend := SwitchedFailover())
    conversation = stored(store)
    chunks: Any = answer(conversation)
    next(chunks)
    backend.primary.away = True
    chunks.close()
    conversation = store.get(conversation.id)
    assert conversation.degraded
    assert said(conversation) == ["hello", "one "]
    backend.primary.away = False
    backend.close()
    replayed = ConversationStore(backend.primary.others).get(conversation.id)
    assert said(replayed) == ["hello", "one "]
    assert replayed.messages[-1]["interrupted"] is True
