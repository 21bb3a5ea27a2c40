"""How many statements an operation takes, and which of them write."""

from typing import Any

import pytest
from django.db import connections

from django_convstate import ConversationStore
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.database.models import Conversation, Message
from django_convstate.backends.records import Change, Replacement
from django_convstate.ids import new_id
from django_convstate.testing.twins import message
from tests.support.databases import statements
from tests.support.places import make_place


@pytest.fixture
def backend(database: str) -> ConversationStateBackend:
    backend = make_place(database)
    backend.peek(new_id(), 1)  # it connects
    backend.commit(new_id(), Change())  # and knows what time it is there
    return backend


# PostgreSQL reads and writes messages along with the row.
LOAD = {"sqlite": ["SELECT", "SELECT"], "postgres": ["SELECT"]}
COMMIT = {"sqlite": ["SELECT", "INSERT", "UPDATE"], "postgres": ["SELECT", "WITH"]}
# Of one that is not there yet, and of one that is. On PostgreSQL the SET says how long to wait for
# the row.
ACQUIRE = {
    "sqlite": (["SELECT", "INSERT"], ["SELECT", "UPDATE", "SELECT"]),
    "postgres": (["SET", "SELECT", "INSERT"], ["SET", "SELECT", "UPDATE", "SELECT"]),
}
BEGINNING = {"sqlite": ["SELECT", "INSERT", "INSERT"], "postgres": ["SELECT", "WITH"]}


def verbs(sent: list[str]) -> list[str]:
    return [sql.split()[0] for sql in sent]


@pytest.mark.parametrize("count", [2, 200, 2000])
def test_a_turn(backend: ConversationStateBackend, database: str, count: int) -> None:
    id = new_id()
    backend.commit(id, Change(append=[message(i) for i in range(count)]))
    with statements(database) as sent:
        record = backend.load(id, 50)
    assert verbs(sent) == LOAD[database], "and nothing is written"
    assert record is not None
    change = Change(
        set={"step": b"1"},
        increment={"turns": 1},
        append=[message(count), message(count + 1)],
        seen=(record.end, record.last_key),
        window=50,
    )
    with statements(database) as sent:
        backend.commit(id, change)
    assert verbs(sent) == COMMIT[database]
    with statements(database) as sent:
        assert backend.commit(id, change).repeated
    assert verbs(sent) == ["SELECT", "SELECT"]


def test_a_turn_with_a_lease(backend: ConversationStateBackend, database: str) -> None:
    id = new_id()
    for number in range(2):  # one that begins, and one that goes on
        with statements(database) as sent:
            backend.acquire(id, "a", 60.0, 50)
        assert verbs(sent) == ACQUIRE[database][number], "the lease, and the conversation with it"
        change = Change(append=[message(number)], lease="a", release=True, window=50)
        record = backend.load(id, 50)
        if record is not None:
            change = Change(
                append=[message(number)],
                lease="a",
                release=True,
                window=50,
                seen=(record.end, record.last_key),
            )
        with statements(database) as sent:
            backend.commit(id, change)
        assert sorted(verbs(sent)) == sorted(COMMIT[database])


def test_a_new_conversation(backend: ConversationStateBackend, database: str) -> None:
    with statements(database) as sent:
        backend.commit(new_id(), Change(set={"a": b"1"}, append=[message(0), message(1)]))
    assert verbs(sent) == BEGINNING[database]


def test_a_commit_that_can_be_one_statement_begins_no_transaction(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, id = make_place(postgres), new_id()
    backend.peek(id, 1)
    begun: list[bool] = []
    set_autocommit = connections[postgres].set_autocommit

    def note(*args: Any, **kwargs: Any) -> None:
        begun.append(True)
        set_autocommit(*args, **kwargs)

    monkeypatch.setattr(connections[postgres], "set_autocommit", note)
    backend.commit(id, Change(append=[message(0)]))
    backend.commit(id, Change(set={"a": b"1"}))
    assert begun == []
    backend.commit(id, Change(keep_messages=0))
    assert begun


def test_a_store_needs_no_more(database: str) -> None:
    store = ConversationStore("database", database_alias=database, ttl=600)
    conversation = store.create()
    for number in range(3):
        with statements(database) as sent:
            conversation["step"] = number
            conversation.messages.append("user", "hello")
            conversation.messages.append("assistant", "hello yourself")
            conversation.save()
        assert len(sent) <= 3 + (number == 0), "the first one may ask what time it is"
        with statements(database) as sent:
            conversation = store.get(conversation.id)
            assert len(conversation.messages.window()) == 2 * number + 2
        assert verbs(sent) == LOAD[database]


def test_what_was_said_is_not_written_again(
    backend: ConversationStateBackend, database: str
) -> None:
    id = new_id()
    backend.commit(id, Change(append=[message(i) for i in range(5)]))
    rows = Message.objects.using(database).filter(conversation__key=id).order_by("pk")
    before = list(rows.values_list("pk", flat=True))
    with statements(database) as sent:
        backend.commit(id, Change(set={"a": b"1"}, append=[message(5)]))
    assert not [sql for sql in sent if 'UPDATE "convstate_database_message"' in sql]
    assert list(rows.values_list("pk", flat=True))[:5] == before
    with statements(database) as sent:
        old, new = message(1)
        backend.commit(id, Change(replace=[Replacement(id=old, old=new, new=b"{}")]))
    written = [sql for sql in sent if sql.startswith("UPDATE") and "_message" in sql]
    assert len(written) == 1


def test_the_state_is_written_when_it_changes(
    backend: ConversationStateBackend, database: str
) -> None:
    id = new_id()
    backend.commit(id, Change(set={"a": b"1" * 1000}))
    with statements(database) as sent:
        backend.commit(id, Change(append=[message(0)]))
    assert '"state"' not in sent[-1]
    with statements(database) as sent:
        backend.commit(id, Change(unset=["a"]))
    assert '"state"' in sent[-1]


def test_an_expiry_is_slid_once_in_a_twentieth_of_the_idle_time(
    backend: ConversationStateBackend, database: str
) -> None:
    id = new_id()
    backend.commit(id, Change(ttl=1000.0, append=[message(0)]))
    row = Conversation.rows.using(database).filter(key=id)
    for age, writes in ((40.0, False), (60.0, True)):
        at = row.get()
        shift = at.modified_at.__class__.fromtimestamp(
            at.modified_at.timestamp() - age, at.modified_at.tzinfo
        )
        row.update(last_accessed=shift)
        with statements(database) as sent:
            record = backend.load(id, 50)
        assert ("UPDATE" in verbs(sent)) is writes
        assert record is not None
        with statements(database) as sent:
            again = backend.load(id, 50)
        assert ("UPDATE" in verbs(sent)) is False
        assert again is not None
        assert again.expires_at == pytest.approx(record.expires_at, abs=1e-5)


def test_a_page_of_a_listing_is_one_statement(
    backend: ConversationStateBackend, database: str
) -> None:
    for number in range(30):
        change = Change(owner="u1", set={"title": b'"t%d"' % number, "big": b"1" * 99})
        backend.commit(new_id(), change)
    seen: list[str] = []
    after = None
    for _ in range(3):
        with statements(database) as sent:
            page = list(backend.scan("u1", limit=10, after=after, keys=["title"]))
        assert len(sent) == 1
        seen += [each.id for each in page]
        after = page[-1].cursor
        assert all(each.state.keys() == {"title"} for each in page)
    assert len(set(seen)) == 30
    assert list(backend.scan("u1", limit=10, after=after)) == []
    assert [each.id for each in backend.scan("u1")] == seen


def test_other_operations(backend: ConversationStateBackend, database: str) -> None:
    id = new_id()
    backend.commit(id, Change(append=[message(0), ("given", b"1")]))
    for call, most in (
        (lambda: backend.exists(id), 1),
        (lambda: backend.find(id, "given"), 1),
        (lambda: backend.read_messages(id, 0, 1), 1),
        (lambda: backend.touch(id, 60.0), 2),
        (lambda: backend.rename(id, "another"), 3),
    ):
        with statements(database) as sent:
            assert call()
        assert len(sent) <= most, sent
