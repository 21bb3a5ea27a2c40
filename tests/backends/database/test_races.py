"""What others do between the two statements of a commit: its second one does nothing then."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import connections, transaction

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.records import Change, Create, Record
from django_convstate.exceptions import ConversationConflict, ConversationInterrupted
from django_convstate.ids import new_id
from django_convstate.testing.twins import in_threads, message
from tests.support.places import make_place
from tests.support.servers import wait_until


@pytest.fixture
def backend(database: str) -> ConversationStateBackend:
    return make_place(database)


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call in another thread, on a connection of its own."""
    return in_threads(1, lambda _: call())[0]


def commit_while(
    backend: ConversationStateBackend, alias: str, id: str, change: Change, other: Callable[[], Any]
) -> Any:
    """Commit, and let another thread do something after the row was read."""
    done: list[bool] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith("SELECT") and not done:
            done.append(True)
            elsewhere(other)
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        answer = backend.commit(id, change)
    assert done
    return answer


def loaded(backend: ConversationStateBackend, id: str) -> Record:
    record = backend.load(id, 99)
    assert record is not None
    return record


def test_others_commit(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(set={"a": b"1", "b": b"1"}, append=[message(0)]))
    theirs = Change(set={"a": b"2"}, increment={"n": 1}, append=[message(1)])
    ours = Change(
        set={"b": b"2"},
        increment={"n": 1},
        append=[message(2)],
        seen=(1, bytes.fromhex(message(0)[0])),
        window=9,
    )
    answer = commit_while(backend, postgres, id, ours, lambda: backend.commit(id, theirs))
    assert (answer.version, list(answer.others)) == (3, [message(1)])
    record = loaded(backend, id)
    assert record.state == {"a": b"2", "b": b"2", "n": b"2"}
    assert record.messages == [message(0), message(1), message(2)]


def test_others_delete(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    goes_on = Change(append=[message(1)], create=Create.MUST_EXIST)
    with pytest.raises(ConversationInterrupted):
        commit_while(backend, postgres, id, goes_on, lambda: backend.delete(id))
    assert backend.load(id, 9) is None


def test_others_begin_it(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    theirs, ours = Change(append=[message(0)]), Change(append=[message(1)])
    answer = commit_while(backend, postgres, id, ours, lambda: backend.commit(id, theirs))
    assert answer.version == 2
    assert loaded(backend, id).messages == [message(0), message(1)]
    new = Change(append=[message(2)], create=Create.MUST_BE_NEW)
    taken = new_id()
    with pytest.raises(ConversationConflict):
        commit_while(backend, postgres, taken, new, lambda: backend.commit(taken, theirs))


def test_others_take_it_over(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    ours, theirs = Change(owner="u1", append=[message(1)]), Change(owner="u2")
    with pytest.raises(ConversationConflict):
        commit_while(backend, postgres, id, ours, lambda: backend.commit(id, theirs))
    assert loaded(backend, id).message_count == 1


def test_others_end_the_turn(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.acquire(id, "a", 60.0, 1)
    ours = Change(append=[message(0)], lease="a", release=True)
    with pytest.raises(ConversationConflict):
        commit_while(backend, postgres, id, ours, lambda: backend.release(id, "a"))
    assert backend.load(id, 1) is None


def test_others_remove_what_is_read(postgres: str) -> None:
    """It is no damage, and nothing is set aside."""
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(i) for i in range(4)]))
    done: list[bool] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "convstate_database_message" in sql and not done:
            done.append(True)
            elsewhere(lambda: backend.commit(id, Change(keep_messages=1)))
        return execute(sql, params, many, context)

    with connections[postgres].execute_wrapper(note):
        answer = backend.commit(id, Change(append=[message(9)], window=9))
    assert done
    assert (answer.version, answer.message_count) == (3, 2)
    assert loaded(backend, id).messages == [message(0), message(9)]


@pytest.mark.parametrize("undone", [False, True])
def test_a_transaction_of_the_project_has_the_row(postgres: str, undone: bool) -> None:
    """Whether it ends well or is rolled back, the commit comes after it."""
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    held = threading.Event()

    def someone_waits() -> bool:
        with connections[postgres].cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            return cursor.fetchone() is not None

    def work(number: int) -> None:
        if number == 0:
            with transaction.atomic(using=postgres):
                backend.commit(id, Change(increment={"n": 1}))
                held.set()
                wait_until(someone_waits)
                transaction.set_rollback(undone, using=postgres)
        else:
            assert held.wait(60)
            backend.commit(id, Change(increment={"m": 1}))

    in_threads(2, work)
    record = loaded(backend, id)
    assert record.state == ({"m": b"1"} if undone else {"n": b"1", "m": b"1"})
    assert record.version == (2 if undone else 3)


def test_many_commit_at_once(backend: ConversationStateBackend) -> None:
    id, writers, turns = new_id(), 4, 10

    def write(writer: int) -> None:
        for turn in range(turns):
            append = [message(writer * turns + turn)]
            backend.commit(id, Change(increment={"n": 1}, append=append))

    in_threads(writers, write)
    record = loaded(backend, id)
    assert (record.version, record.state) == (writers * turns, {"n": b"%d" % (writers * turns)})
    assert {id for id, _ in record.messages} == {message(i)[0] for i in range(writers * turns)}


def test_what_is_replaced_amid_a_load_is_no_damage(sqlite: str) -> None:
    """An import puts another in its place, of the same version."""
    backend, id = make_place(sqlite), new_id()
    backend.commit(id, Change(append=[message(0), message(1)]))
    shorter = replace(loaded(backend, id), messages=(), message_count=1)
    done: list[bool] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "convstate_database_message" in sql and not done:
            done.append(True)
            elsewhere(lambda: backend.restore(id, shorter, [message(0)], replaces=1))
        return execute(sql, params, many, context)

    with connections[sqlite].execute_wrapper(note):
        record = loaded(backend, id)
    assert done
    assert record.messages == loaded(backend, id).messages == [message(0)]
