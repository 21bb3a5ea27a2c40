"""Turns of one conversation that are wanted at once: each sees what the last one has said."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from django_convstate import (
    ConversationStore,
)
from django_convstate.conversation import turn as turns
from tests.support.places import make_place
from tests.support.turns import (
    atake_turn,
    in_order,
    said,
    stored,
    take_turn,
    when_waiting,
)

PATIENCE = 30.0  # seconds for whatever has to come

# 64 only where a place in line costs little: the caches rewrite the line for each.
FAST = ("locmem", "standalone")

OVERLAPS = [2, 8, 64]


class TestOverlap:
    @pytest.mark.parametrize("contenders", OVERLAPS)
    def test_turns_of_threads_do_not_overlap(self, place: str, contenders: int) -> None:
        if contenders == 64 and place not in FAST:
            contenders = 16
        backend = make_place(place)
        id = stored(ConversationStore(backend)).id
        start = threading.Barrier(contenders)

        def contend(number: int) -> None:
            conversation = ConversationStore(backend).get(id)
            start.wait()
            take_turn(conversation, number)
            connections.close_all()

        with ThreadPoolExecutor(contenders) as pool:
            list(pool.map(contend, range(contenders)))
        in_order(ConversationStore(backend).get(id), contenders)
        backend.close()

    @pytest.mark.parametrize("contenders", OVERLAPS)
    def test_turns_of_tasks_do_not_overlap(self, place: str, contenders: int) -> None:
        if contenders == 64 and place not in FAST:
            contenders = 16
        backend = make_place(place)
        store = ConversationStore(backend)
        id = stored(store).id

        async def contend(number: int) -> None:
            await atake_turn(await store.aget(id), number)

        async def contend_all() -> None:
            await asyncio.gather(*(contend(number) for number in range(contenders)))
            assert len(asyncio.all_tasks()) == 1, "no task is left"
            await store.aclose()

        asyncio.run(contend_all())
        in_order(store.get(id), contenders)
        store.close()

    def test_without_turns_every_message_is_there_once(self, place: str) -> None:
        backend = make_place(place)
        store = ConversationStore(backend)
        id = stored(store).id

        def contend(number: int) -> None:
            conversation = store.get(id)
            conversation.messages.append("user", f"u{number}")
            conversation.messages.append("assistant", f"a{number}")
            conversation.save()
            connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(contend, range(8)))
        assert sorted(said(store.get(id))) == sorted(f"{who}{n}" for who in "au" for n in range(8))
        store.close()

    def test_a_turn_sees_what_the_one_before_has_appended(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = stored(store).id
        first, second = store.get(id), store.get(id)
        seen: list[Any] = []

        def wait_in_line() -> None:
            with second.turn():
                seen.extend(said(second))
                second.messages.append("user", "u2")
                second.messages.append("assistant", "a2")
            connections.close_all()

        with ThreadPoolExecutor(1) as pool, first.turn():
            first.messages.append("user", "u1")
            is_in_line = when_waiting(store.backend, monkeypatch)
            waiting = pool.submit(wait_in_line)
            assert is_in_line.wait(PATIENCE)
            first.messages.append("assistant", "a1")
        waiting.result()
        assert seen == ["u1", "a1"]
        assert said(store.get(id)) == ["u1", "a1", "u2", "a2"]

    def test_threads_and_tasks_wake_each_other(
        self, memory: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # So that nobody gets in by asking again.
        for name in ("LEASE", "RENEW_INTERVAL", "POLL_INTERVAL"):
            monkeypatch.setattr(turns, name, 100.0)
        id = stored(memory).id

        async def contend() -> None:
            tasks = [atake_turn(memory.get(id), number) for number in range(8)]
            threads = [
                asyncio.to_thread(take_turn, memory.get(id), number) for number in range(8, 16)
            ]
            await asyncio.gather(*tasks, *threads)

        asyncio.run(contend())
        in_order(memory.get(id), 16)

    def test_waiters_are_served_in_the_order_in_which_they_came(
        self, memory: ConversationStore
    ) -> None:
        async def contend() -> list[Any]:
            conversation = stored(memory)

            async def late(number: int) -> None:
                await asyncio.sleep(number * 0.01)
                await atake_turn(memory.get(conversation.id), number)

            async with conversation.aturn():
                others = [asyncio.create_task(late(number)) for number in range(16)]
                await asyncio.sleep(0.3)
            await asyncio.gather(*others)
            return said(memory.get(conversation.id))

        assert asyncio.run(contend())[::2] == [f"u{number}" for number in range(16)]
