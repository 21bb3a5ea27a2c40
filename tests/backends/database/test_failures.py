"""A database that ends connections, or gives up statements."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction

from django_convstate import ConversationStore
from django_convstate.backends.database.models import Conversation, Message
from django_convstate.backends.records import Change, Record
from django_convstate.exceptions import BackendUnavailable, ConversationConflict
from django_convstate.ids import new_id
from django_convstate.testing.twins import in_threads, message
from tests.support.places import make_place


def end_connection(alias: str) -> None:
    """Have the server end the connection of this thread."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]

    def kill(_: int) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    in_threads(1, kill)


def test_a_connection_that_is_lost_between_load_and_save(postgres: str) -> None:
    store = ConversationStore("database", database_alias=postgres, ttl=600)
    conversation = store.create()
    conversation["turns"] = 0
    conversation.save()
    for number in range(1, 4):
        conversation = store.get(conversation.id)
        end_connection(postgres)
        conversation["turns"] = number
        conversation.messages.append("user", "hello")
        conversation.save()
    end_connection(postgres)
    again = store.get(conversation.id)
    assert (again["turns"], len(again.messages), again.version) == (3, 3, 4)


def test_a_connection_that_is_lost_within_a_turn(postgres: str) -> None:
    store = ConversationStore("database", database_alias=postgres, ttl=600)
    conversation = store.create()
    for number in range(3):
        with conversation.turn():
            end_connection(postgres)
            conversation.messages.append("user", f"message {number}")
        end_connection(postgres)
    with store.get(conversation.id).turn(timeout=10) as again:
        assert len(again.messages) == 3


@contextmanager
def session(alias: str, name: str, value: str) -> Iterator[None]:
    """Set something for the connection of this thread."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT set_config(%s, %s, false)", [name, value])
        try:
            yield
        finally:
            cursor.execute("SELECT set_config(%s, %s, false)", [name, "0"])


@pytest.mark.parametrize("keep", [None, 1])
def test_a_statement_that_takes_too_long(postgres: str, keep: int | None) -> None:
    """It was given up, and not lost: it is not tried again, and can be by the caller."""
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    held, done = threading.Event(), threading.Event()
    ours = Change(increment={"n": 1}, keep_messages=keep, append=[message(1)])

    def hold() -> None:
        with transaction.atomic(using=postgres):
            backend.commit(id, Change(increment={"n": 1}))
            held.set()
            assert done.wait(60)

    def work(number: int) -> None:
        if number == 0:
            return hold()
        assert held.wait(60)
        try:
            with session(postgres, "statement_timeout", "50"):
                with pytest.raises(BackendUnavailable, match="57014"):
                    backend.commit(id, ours)
                assert backend.load(id, 1).version == 1  # type: ignore[union-attr]
        finally:
            done.set()
        return None

    in_threads(2, work)
    assert backend.commit(id, ours).version == 3
    record = backend.load(id, 9)
    assert record is not None
    assert (record.state, record.messages) == ({"n": b"2"}, [message(0), message(1)])


def test_what_is_restored_is_seen_at_once(database: str) -> None:
    """Wholly, and only when all of it is there."""
    backend, id, count = make_place(database), new_id(), 1200
    source = make_place("locmem")
    source.commit(id, Change(set={"a": b"1"}, append=[message(i) for i in range(count)]))
    record = source.load(id, 1)
    assert record is not None
    inserting, done = threading.Event(), threading.Event()

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('INSERT INTO "convstate_database_message"'):
            inserting.set()
        return execute(sql, params, many, context)

    def work(number: int) -> list[Record]:
        seen: list[Record] = []
        if number == 0:
            with connections[database].execute_wrapper(note):
                backend.restore(id, record, [message(i) for i in range(count)])
            done.set()
            return seen
        assert inserting.wait(60)
        while not done.is_set():
            if (found := backend.load(id, count)) is not None:
                seen.append(found)
        return [*seen, backend.load(id, count)]  # type: ignore[list-item]

    _, seen = in_threads(2, work)
    assert {(each.version, len(each.messages)) for each in seen} == {(1, count)}


def test_a_restore_that_fails_leaves_nothing(database: str) -> None:
    backend, id, source = make_place(database), new_id(), make_place("locmem")
    source.commit(id, Change(set={"a": b"1"}, append=[message(i) for i in range(3)]))
    record = source.load(id, 9)
    assert record is not None

    class Broken(Exception):
        pass

    def messages() -> Iterator[Any]:
        yield message(0)
        raise Broken

    with pytest.raises(Broken):
        backend.restore(id, record, messages())
    assert Conversation.rows.using(database).count() == 0
    assert Message.objects.using(database).count() == 0
    backend.restore(id, record, iter([message(i) for i in range(3)]))
    with pytest.raises(ConversationConflict):
        backend.restore(id, record, [])
    assert backend.load(id, 9).messages == record.messages  # type: ignore[union-attr]
