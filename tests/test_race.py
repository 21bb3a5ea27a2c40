"""Sixteen threads, or tasks, append to one conversation at once, in every place: nothing is lost,
nothing is there twice, and each writer's messages are in the writer's order."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.records import Change
from django_convstate.ids import new_id
from tests.conftest import make_place

WRITERS, APPENDS = 16, 500


def test_every_append_is_there_once_and_in_order(place: str) -> None:
    backend = make_place(place)
    id = new_id()

    def write(writer: int) -> None:
        for number in range(APPENDS):
            backend.commit(id, Change(append=[b"[%d,%d]" % (writer, number)]))
        connections.close_all()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))

    check(backend, id)


# On the caches, tasks enter by one thread and so one after the other: there is no race to see.
@pytest.mark.parametrize("place", ["locmem", "standalone", "sentinel", "cluster"], indirect=True)
def test_so_it_is_with_tasks(place: str) -> None:
    backend = make_place(place)
    id = new_id()

    async def write(writer: int) -> None:
        for number in range(APPENDS):
            await backend.acommit(id, Change(append=[b"[%d,%d]" % (writer, number)]))

    async def write_all() -> None:
        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        await backend.aclose()

    asyncio.run(write_all())
    check(backend, id)


def check(backend: ConversationStateBackend, id: str) -> None:
    messages = backend.read_messages(id, 0, WRITERS * APPENDS + 1)
    assert len(messages) == WRITERS * APPENDS
    for writer in range(WRITERS):
        own = [message for message in messages if message.startswith(b"[%d," % writer)]
        assert own == [b"[%d,%d]" % (writer, number) for number in range(APPENDS)]
    backend.close()
