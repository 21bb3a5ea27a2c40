"""Sixteen threads, or tasks, append to one conversation at once, in every place: nothing is lost,
nothing is there twice, and each writer's messages are in the writer's order."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.cache import lock as cachelock
from django_convstate.backends.records import Change
from django_convstate.backends.toolkit.writer import Writer
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs
from tests.support.places import make_place

WRITERS = 16
LONGEST_IN_A_CACHE = 200  # messages of each writer
counts = pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def _patient_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writers wait for the lock of a cache as long as it takes: time is not what is tested."""
    monkeypatch.setattr(cachelock, "LOCK_TTL", 60)
    monkeypatch.setattr(cachelock, "ACQUIRE_TIMEOUT", 120.0)


@counts
def test_appends_of_threads_are_there_once_and_in_order(place: str, count: int) -> None:
    backend = make_place(place)
    if not backend.can_scan:
        # A cache writes a conversation anew for each commit.
        count = min(count, LONGEST_IN_A_CACHE)
    id, process = new_id(), Writer()

    def write(writer: int) -> None:
        for number in range(count):
            appended = pairs(b"[%d,%d]" % (writer, number))
            backend.commit(id, Change(append=appended, commit=process.begin(id)))
        connections.close_all()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))

    check(backend, id, count)


# On the caches, tasks enter by one thread and so one after the other: there is no race to see.
@pytest.mark.parametrize("place", ["locmem", "standalone", "sentinel", "cluster"], indirect=True)
@counts
def test_appends_of_tasks_are_there_once_and_in_order(place: str, count: int) -> None:
    backend = make_place(place)
    id, process = new_id(), Writer()

    async def write(writer: int) -> None:
        for number in range(count):
            appended = pairs(b"[%d,%d]" % (writer, number))
            await backend.acommit(id, Change(append=appended, commit=process.begin(id)))

    async def write_all() -> None:
        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        await backend.aclose()

    asyncio.run(write_all())
    check(backend, id, count)


def check(backend: ConversationStateBackend, id: str, count: int) -> None:
    messages = bodies(backend.read_messages(id, 0, WRITERS * count + 1))
    assert len(messages) == WRITERS * count
    for writer in range(WRITERS):
        own = [message for message in messages if message.startswith(b"[%d," % writer)]
        assert own == [b"[%d,%d]" % (writer, number) for number in range(count)]
    backend.close()
