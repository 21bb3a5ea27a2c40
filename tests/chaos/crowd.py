"""People who talk: threads and tasks that append to conversations, and note what of it was
acknowledged."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django_convstate import BackendUnavailable, Conversation, ConversationStore
from django_convstate.ids import new_id
from tests.chaos.world import TEXT, World

PAUSE = 0.02  # seconds between two turns of one writer


class Crowd:
    """So many threads, and as many tasks in one event loop, from `with` to its end.

    Each writes into a conversation of its own and into one that all share.
    """

    def __init__(self, world: World, *stores: ConversationStore, threads: int = 4, tasks: int = 4):
        self._world = world
        self._stores = stores or (ConversationStore(world.backend()),)
        self._threads, self._tasks = threads, tasks
        self._shared = new_id()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(threads + 1, thread_name_prefix="chaos-writer")
        self._done: list[Future[None]] = []

    def __enter__(self) -> "Crowd":
        for number in range(self._threads):
            self._done.append(self._pool.submit(self._talk, self._writer(number)))
        if self._tasks:
            self._done.append(self._pool.submit(asyncio.run, self._talk_in_tasks()))
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._pool.shutdown()
        for future in self._done:
            future.result()

    def _writer(self, number: int) -> "Writer":
        store = self._stores[number % len(self._stores)]
        return Writer(self._world, store, number, [new_id(), self._shared])

    def _talk(self, writer: "Writer") -> None:
        while not self._stopped.is_set():
            writer.turn()
            time.sleep(PAUSE)

    async def _talk_in_tasks(self) -> None:
        first, last = self._threads, self._threads + self._tasks
        async with asyncio.TaskGroup() as group:
            for number in range(first, last):
                group.create_task(self._atalk(self._writer(number)))
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left over"

    async def _atalk(self, writer: "Writer") -> None:
        while not self._stopped.is_set():
            await writer.aturn()
            await asyncio.sleep(PAUSE)


class Writer:
    """Takes turns, each a load and a save, in several conversations by rotation."""

    def __init__(self, world: World, store: ConversationStore, number: int, ids: list[str]) -> None:
        self.model = world.model
        self.store = store
        self.number = number
        self.ids = ids
        self.said = 0

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn()

    def turn(self) -> None:
        id = self._next()
        try:
            conversation = self._timed(lambda: self.store.open(id))
            self._say(conversation)
            self._timed(conversation.save)
        except BackendUnavailable:
            self.model.refused += 1
        else:
            self._acknowledge(conversation)

    async def aturn(self) -> None:
        id = self._next()
        try:
            conversation = await self._atimed(self.store.aopen(id))
            self._say(conversation)
            await self._atimed(conversation.asave())
        except BackendUnavailable:
            self.model.refused += 1
        else:
            self._acknowledge(conversation)

    def _next(self) -> str:
        self.said += 1
        return self.ids[self.said % len(self.ids)]

    def _say(self, conversation: Conversation) -> None:
        for message in conversation.messages.window(50):
            assert str(message["content"]).startswith(f"{TEXT}/{conversation.id}/")
        # Before it is sent: what was not acknowledged may be there all the same.
        self.model.said[conversation.id].add((self.number, self.said))
        text = self.model.text(conversation.id, self.number, self.said)
        conversation.messages.append("user", text)
        conversation.incr("turns")

    def _acknowledge(self, conversation: Conversation) -> None:
        self.model.acknowledged[conversation.id].add((self.number, self.said))
        if conversation.degraded:
            self.model.degraded[conversation.id].append(time.monotonic())

    def _timed(self, operation: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return operation()
        finally:
            self.model.operations.append((began, time.monotonic() - began))

    async def _atimed(self, operation: Any) -> Any:
        began = time.monotonic()
        try:
            return await operation
        finally:
            self.model.operations.append((began, time.monotonic() - began))
