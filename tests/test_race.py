"""Sixteen threads append to one conversation at once, in every place: nothing is lost, nothing is
there twice, and each writer's messages are in the writer's order."""

from concurrent.futures import ThreadPoolExecutor

from django.db import connections

from django_convstate.backends.base import Change
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

    messages = backend.read_messages(id, 0, WRITERS * APPENDS + 1)
    assert len(messages) == WRITERS * APPENDS
    for writer in range(WRITERS):
        own = [message for message in messages if message.startswith(b"[%d," % writer)]
        assert own == [b"[%d,%d]" % (writer, number) for number in range(APPENDS)]
