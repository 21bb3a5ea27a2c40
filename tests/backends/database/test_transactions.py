"""Transactions: those of the project around ours, and those that the database gives up."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from django_convstate import ConversationStore
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.database.models import Conversation
from django_convstate.backends.records import Change
from django_convstate.exceptions import BackendUnavailable, ConversationBusy
from django_convstate.ids import new_id
from django_convstate.testing.twins import in_threads, message
from tests.support.databases import statements
from tests.support.places import make_place
from tests.support.servers import wait_until


@pytest.fixture
def backend(database: str) -> ConversationStateBackend:
    return make_place(database)


class Undo(Exception):
    pass


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call in another thread, on a connection of its own."""
    return in_threads(1, lambda _: call())[0]


def test_a_commit_in_a_transaction_is_a_savepoint(
    backend: ConversationStateBackend, database: str
) -> None:
    id = new_id()
    backend.commit(id, Change(append=[message(0)]))
    with pytest.raises(Undo), transaction.atomic(using=database):
        backend.commit(id, Change(append=[message(1)]))
        raise Undo
    assert backend.load(id, 9).messages == [message(0)], "the rollback took it along"  # type: ignore[union-attr]
    with transaction.atomic(using=database):
        with pytest.raises(Exception, match="version"):
            backend.commit(id, Change(expected_version=7, append=[message(2)]))
        Conversation.objects.using(database).count()  # the transaction goes on
        backend.commit(id, Change(append=[message(3)]))
    assert backend.load(id, 9).messages == [message(0), message(3)]  # type: ignore[union-attr]


def test_a_commit_is_seen_when_the_transaction_ends(
    backend: ConversationStateBackend, database: str
) -> None:
    id = new_id()
    with transaction.atomic(using=database):
        if database == "postgres":  # SQLite lets nobody else write meanwhile
            backend.commit(id, Change(append=[message(0)]))
            assert elsewhere(lambda: backend.exists(id)) is False
        else:
            backend.commit(id, Change(append=[message(0)]))
    assert elsewhere(lambda: backend.exists(id)) is True


def test_a_turn_within_a_transaction(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its renewal, on another connection, must not wait for what waits for it."""
    monkeypatch.setattr("django_convstate.conversation.turn.RENEW_AFTER", 0.05)
    monkeypatch.setattr("django_convstate.conversation.turn.RENEW_INTERVAL", 0.05)
    store = ConversationStore("database", database_alias=database, ttl=600)
    made = store.create()
    made["step"] = 0
    made.save()
    renewed = threading.Event()
    renew = store._repository.backend.renew

    def noting(*args: Any) -> bool:
        is_held = renew(*args)
        assert is_held
        renewed.set()
        return is_held

    monkeypatch.setattr(store._repository.backend, "renew", noting)
    with transaction.atomic(using=database):
        conversation = store.get(made.id)
        with conversation.turn():
            assert renewed.wait(30)
            conversation["step"] = 1
            conversation.save()
            renewed.clear()
            assert renewed.wait(30), "with its row locked, too"
            conversation.messages.append("user", "hello")
    again = store.get(made.id)
    assert (again["step"], len(again.messages)) == (1, 1)
    with again.turn():
        again["step"] = 2
    assert store.get(made.id)["step"] == 2


def test_a_turn_that_outlives_the_transaction_is_renewed(
    backend: ConversationStateBackend, database: str
) -> None:
    id = new_id()
    with transaction.atomic(using=database):
        assert backend.acquire(id, "a", 60.0, 1).position == 0
        assert backend.renew(id, "a", 60.0) is True
    with statements(database) as sent:
        assert backend.renew(id, "a", 60.0) is True
    assert sent
    assert backend.acquire(id, "b", 60.0, 1).position == 1


def test_a_waiter_in_a_transaction_does_not_stop_the_turn_before_it(
    postgres: str,
) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    assert elsewhere(lambda: backend.acquire(id, "a", 60.0, 1)).position == 0
    with transaction.atomic(using=postgres):
        assert backend.acquire(id, "b", 60.0, 1).position == 1
        last = Change(append=[message(1)], lease="a", release=True)
        assert elsewhere(lambda: backend.commit(id, last)).version == 2
        assert backend.acquire(id, "b", 60.0, 1).position == 0


def test_a_row_that_a_transaction_has_makes_a_waiter_wait_its_turn(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_convstate.backends.database.turns.PATIENCE", 0.1)
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    with transaction.atomic(using=postgres):
        assert backend.acquire(id, "a", 60.0, 1).position == 0
        waiting = elsewhere(lambda: backend.acquire(id, "b", 60.0, 1))
        assert (waiting.position, waiting.record) == (1, None)
        with pytest.raises(BackendUnavailable):
            elsewhere(lambda: backend.renew(id, "c", 60.0))


def test_a_save_waits_for_as_long_as_the_database_says(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))

    def save() -> None:
        with connections[postgres].cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        backend.commit(id, Change(append=[message(1)]))

    with transaction.atomic(using=postgres):
        backend.commit(id, Change(append=[message(2)]))
        with pytest.raises(ConversationBusy):
            elsewhere(save)
    assert backend.load(id, 9).messages == [message(0), message(2)]  # type: ignore[union-attr]


def failing_once(alias: str, sql: str) -> list[str]:
    """Have the server end the connection of this thread before, once, `sql` is sent."""
    pid = connections[alias].cursor().execute("SELECT pg_backend_pid()").fetchone()[0]
    killed: list[str] = []

    def kill() -> None:
        connections[alias].cursor().execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    def wrapper(execute: Any, statement: str, params: Any, many: bool, context: Any) -> Any:
        if statement.startswith(sql) and not killed:
            killed.append(statement)
            elsewhere(kill)
        return execute(statement, params, many, context)

    connections[alias].execute_wrappers.append(wrapper)
    return killed


@pytest.fixture
def _without_wrappers(postgres: str) -> Any:
    yield
    connections[postgres].execute_wrappers.clear()


@pytest.mark.usefixtures("_without_wrappers")
@pytest.mark.parametrize(
    ("sql", "keep"),
    [("SELECT", None), ("WITH", None), ("SELECT", 1), ("INSERT", 1), ("UPDATE", 1)],
    ids=str,
)
def test_a_lost_connection_is_bridged_once(postgres: str, sql: str, keep: int | None) -> None:
    """With one statement that writes, and in a transaction of several."""
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    killed = failing_once(postgres, sql)
    change = Change(increment={"n": 1}, keep_messages=keep, append=[message(1)])
    assert backend.commit(id, change).version == 2
    assert killed
    record = backend.load(id, 9)
    assert record is not None
    assert (record.state, record.messages) == ({"n": b"1"}, [message(0), message(1)])
    killed.clear()
    connections[postgres].execute_wrappers.clear()
    failing_once(postgres, "SELECT")
    assert backend.load(id, 9) is not None


@pytest.mark.usefixtures("_without_wrappers")
@pytest.mark.parametrize("keep", [None, 1])
def test_an_answer_that_is_lost_with_the_connection_is_given_again(
    postgres: str, monkeypatch: pytest.MonkeyPatch, keep: int | None
) -> None:
    """The transaction was committed, which only the number of the commit can tell."""
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    connection: Any = connections[postgres]
    commit, lost = connection._commit, list[bool]()

    def lose() -> None:
        if not lost:
            lost.append(True)
            connection.connection.close()
            raise OperationalError("server closed the connection unexpectedly")

    def losing(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        answer = execute(sql, params, many, context)
        if sql.startswith("WITH"):
            lose()
        return answer

    def committing() -> None:
        commit()
        lose()

    monkeypatch.setattr(connection, "_commit", committing)
    change = Change(increment={"n": 1}, keep_messages=keep, append=[message(1)])
    with connection.execute_wrapper(losing):
        answer = backend.commit(id, change)
    assert lost
    assert (answer.repeated, answer.version) == (True, 2)
    assert backend.load(id, 9).state == {"n": b"1"}  # type: ignore[union-attr]


@pytest.mark.usefixtures("_without_wrappers")
def test_within_a_transaction_of_the_project_nothing_is_tried_again(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    with pytest.raises(BackendUnavailable), transaction.atomic(using=postgres):
        failing_once(postgres, "INSERT")
        backend.commit(id, Change(append=[message(1)]))
    assert backend.load(id, 9).version == 1  # type: ignore[union-attr]


def test_a_deadlock_of_transactions_of_the_project(postgres: str) -> None:
    """Two transactions of the project that commit to two conversations, each in another order: one
    of them ends in the error, and can be tried again as a whole."""
    backend, one, two = make_place(postgres), new_id(), new_id()
    for id in (one, two):
        backend.commit(id, Change(append=[message(0)]))
    both = threading.Barrier(2, timeout=30)

    def project(ids: tuple[str, str]) -> str:
        try:
            with transaction.atomic(using=postgres):
                backend.commit(ids[0], Change(increment={"n": 1}))
                both.wait()
                backend.commit(ids[1], Change(increment={"n": 1}))
        except BackendUnavailable as error:
            return str(error)
        return ""

    ended = in_threads(2, lambda number: project((one, two) if number else (two, one)))
    assert sorted(map(bool, ended)) == [False, True]
    assert "40P01" in "".join(ended)
    for id in (one, two):
        assert backend.load(id, 1).state == {"n": b"1"}  # type: ignore[union-attr]


def test_a_serialization_failure_is_got_over(postgres: str) -> None:
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(append=[message(0)]))
    writers, turns = 6, 10

    refused: list[str] = []

    def write(_: int) -> None:
        with connections[postgres].cursor() as cursor:
            cursor.execute("SET default_transaction_isolation = 'repeatable read'")
        for _ in range(turns):
            change, is_applied = Change(increment={"n": 1}), False
            while not is_applied:
                try:
                    is_applied = backend.commit(id, change).version > 0
                except BackendUnavailable as error:  # after the second try
                    refused.append(str(error))

    in_threads(writers, write)
    assert all("40001" in each for each in refused)
    assert backend.load(id, 1).state == {"n": b"%d" % (writers * turns)}  # type: ignore[union-attr]


def test_a_deadlock_is_got_over(postgres: str) -> None:
    """The database gives up our transaction, which is tried again. The other one, of the project,
    has what it wants by then."""
    backend, one = make_place(postgres), new_id()
    for id in (one, two := new_id()):
        backend.commit(id, Change(append=[message(0)]))
    rows = Conversation.rows.using(postgres)
    tries: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        tries.append(sql)
        return execute(sql, params, many, context)

    def hold(number: int) -> None:
        if number == 0:
            with transaction.atomic(using=postgres):
                rows.filter(key=two).update(title="held")
                held.wait()
                wait_until(lambda: any("UPDATE" in sql for sql in tries))
                # Of two that wait for each other the one is given up that looks first.
                with connections[postgres].cursor() as cursor:
                    cursor.execute("SET LOCAL deadlock_timeout = '60s'")
                rows.filter(key=one).update(title="held")
            return
        held.wait()
        with connections[postgres].execute_wrapper(note):
            backend._transactions.run(work)  # type: ignore[attr-defined]

    def work() -> None:
        rows.filter(key=one).update(owner="u1")
        rows.filter(key=two).update(owner="u1")

    held = threading.Barrier(2, timeout=30)
    in_threads(2, hold)
    assert len([sql for sql in tries if "UPDATE" in sql]) in (3, 4), "the first, again, and so on"
    assert set(rows.values_list("title", "owner")) == {("held", "u1")}
