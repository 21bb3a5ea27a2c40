"""The tables as a project uses them: queries, foreign keys, and what is copied for searching."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command

from django_convstate import ConversationStore
from django_convstate.backends.database.copies import message_copy, state_copy
from django_convstate.backends.database.models import Conversation, Message
from django_convstate.backends.records import Change
from django_convstate.backends.reports import Selection
from django_convstate.exceptions import InvalidConversationValue
from django_convstate.ids import new_id
from django_convstate.testing.twins import message
from tests.support.databases import statements
from tests.support.host.models import Ticket
from tests.support.places import make_place

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def store(database: str) -> ConversationStore:
    return ConversationStore("database", database_alias=database, ttl=600)


@pytest.fixture
def rows(database: str) -> Any:
    return Conversation.objects.using(database)


def say(store: ConversationStore, *texts: str, owner: str | None = None, **state: Any) -> str:
    conversation = store.create(owner=owner)
    conversation.update(state)
    for number, text in enumerate(texts):
        at = (NOW + timedelta(days=number)).isoformat()
        conversation.messages.append("user", text, timestamp=at)
    conversation.save()
    return conversation.id


def keys(found: Any) -> set[str]:
    return set(found.values_list("key", flat=True))


def test_migrations_are_complete(postgres: str) -> None:
    call_command("makemigrations", "convstate_database", check=True, dry_run=True, verbosity=0)


def test_owned_by(store: ConversationStore, rows: Any) -> None:
    mine, theirs = say(store, "hello", owner="u1"), say(store, "hello", owner="u2")
    say(store, "hello")
    assert keys(rows.owned_by("u1")) == {mine}
    assert keys(rows.owned_by("u2").filter(version=1)) == {theirs}
    assert keys(rows.owned_by(None)) == set(), "which is nobody"


def test_active_between(store: ConversationStore, rows: Any) -> None:
    one = say(store, "hello")
    at = rows.get(key=one).modified_at
    assert keys(rows.active_between(at, at + timedelta(seconds=1))) == {one}
    assert keys(rows.active_between(at - timedelta(seconds=1), at)) == set()


@pytest.mark.parametrize("value", ["Jaipur", 7, 1.5, True, None, {"a": [1]}, [1, "x"], ""])
def test_with_state(store: ConversationStore, rows: Any, value: Any) -> None:
    one = say(store, "hello", city=value)
    say(store, "hello", city="elsewhere", other=value)
    say(store, "hello")
    assert keys(rows.with_state("city", value)) == {one}
    conversation = store.get(one)
    conversation["city"] = "elsewhere again"
    conversation.save()
    assert keys(rows.with_state("city", value)) == set()


def test_search(store: ConversationStore, rows: Any) -> None:
    one = say(store, "A train to Jaipur, please", "Thank you")
    other = say(store, "A bus to Delhi")
    assert keys(rows.search("jaipur")) == {one}
    assert keys(rows.search("a")) == {one, other}
    assert keys(rows.search("Lisbon")) == set()
    store.get(one).delete()
    assert keys(rows.search("jaipur")) == set()


def test_messages_per_day(store: ConversationStore, rows: Any, database: str) -> None:
    say(store, "one", "two", owner="u1")
    say(store, "three")
    day = NOW.date()
    expected = [{"day": day, "messages": 2}, {"day": day + timedelta(days=1), "messages": 1}]
    assert list(rows.messages_per_day()) == expected
    of_one = [{"day": day + timedelta(days=n), "messages": 1} for n in range(2)]
    assert list(rows.owned_by("u1").messages_per_day()) == of_one
    assert list(Message.objects.using(database).per_day()) == expected


def test_what_is_not_stored_is_not_shown(database: str, rows: Any) -> None:
    backend, id = make_place(database), new_id()
    backend.acquire(id, "a", 60.0, 1)
    gone = new_id()
    backend.commit(gone, Change(append=[message(0)]))
    backend.delete(gone)
    expired = new_id()
    backend.commit(expired, Change(ttl=1e-6, append=[message(0)]))
    assert keys(rows.all()) == set()
    assert Message.objects.using(database).filter(conversation__key=gone).count() == 0


def test_a_title_is_copied(store: ConversationStore, rows: Any) -> None:
    id = say(store, "hello", title="A trip\0 to Jaipur")
    row = rows.get(key=id)
    assert (row.title, str(row)) == ("A trip\ufffd to Jaipur", f"Conversation {row.pk}")
    conversation = store.get(id)
    del conversation["title"]
    conversation.save()
    assert rows.get(key=id).title == ""


def test_what_json_columns_refuse_is_in_the_bytes(store: ConversationStore, rows: Any) -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    id = say(store, "NUL \0", deep=deep, nul="\0", fine=1)
    again = store.get(id)
    again["k\0"] = 1
    again.save()
    again = store.get(id)
    assert (again["deep"], again["nul"], again["k\0"]) == (deep, "\0", 1)
    assert again.messages[0]["content"] == "NUL \0"
    assert rows.get(key=id).state_json == {"fine": 1}
    assert rows.get(key=id).messages.get().text == "NUL \ufffd"


def test_copies_of_what_is_no_json() -> None:
    nothing = {"role": "", "text": None, "sent_at": None}
    for data in (b"", b"{", b"\xff", b"[1]", b'{"role":1,"content":[],"timestamp":"no time"}'):
        assert message_copy(data) == nothing
    assert state_copy({"a": b"\xff", "b": b"1"}) == {"b": 1}
    # What is out of range in some time zone would break a query by days.
    for far in ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert message_copy(b'{"timestamp":"%b"}' % far.encode()) == nothing


def test_an_owner_with_nul_is_refused_before_anything_is_sent(
    store: ConversationStore, database: str
) -> None:
    backend, id = make_place("locmem"), new_id()
    backend.commit(id, Change(owner="a\0b"))
    record = backend.load(id, 1)
    assert record is not None
    with statements(database) as sent:
        for call in (
            lambda: store.create("a\0b"),
            lambda: store.open(id, owner="a\0b"),
            lambda: store.append(id, "user", "hello", owner="a\0b"),
            lambda: store.list("a\0b"),
            lambda: Conversation.objects.owned_by("a\0b"),
            lambda: make_place(database).restore(id, record, ()),
        ):
            with pytest.raises(InvalidConversationValue, match="NUL"):
                call()
    assert sent == []


def test_a_foreign_key_follows_a_conversation(
    store: ConversationStore, rows: Any, database: str
) -> None:
    conversation = store.get(say(store, "hello"))
    ticket = Ticket(subject="help", conversation=rows.get(key=conversation.id))
    ticket.save(using=database)
    old = conversation.id
    conversation.cycle_id()
    ticket.refresh_from_db()
    assert ticket.conversation is not None
    assert ticket.conversation.key == conversation.id != old
    conversation.delete()
    ticket.refresh_from_db()
    assert ticket.conversation is None


@pytest.mark.parametrize("selection", [Selection(owner="u1"), Selection(), Selection(idle_for=0.0)])
def test_a_purge_minds_foreign_keys(database: str, rows: Any, selection: Selection) -> None:
    backend, id = make_place(database), new_id()
    ttl = 1e-6 if selection.only_expired else 60.0
    backend.commit(id, Change(owner="u1", ttl=ttl, append=[message(0)]))
    ticket = Ticket(subject="help", conversation=Conversation.rows.using(database).get(key=id))
    ticket.save(using=database)
    assert backend.purge(selection).deleted == 1
    ticket.refresh_from_db()
    assert ticket.conversation is None


def test_an_expired_conversation_that_begins_again_is_another_one(database: str) -> None:
    backend, id = make_place(database), new_id()
    backend.commit(id, Change(ttl=1e-6, append=[message(0)]))
    ticket = Ticket(subject="help", conversation=Conversation.rows.using(database).get(key=id))
    ticket.save(using=database)
    backend.acquire(id, "a", 60.0, 1)
    backend.commit(id, Change(ttl=60.0, append=[message(1)], lease="a"))
    ticket.refresh_from_db()
    assert ticket.conversation is None
    assert backend.renew(id, "a", 60.0), "its leases stay"
    record = backend.load(id, 9)
    assert record is not None
    assert (record.version, record.messages) == (1, [message(1)])
