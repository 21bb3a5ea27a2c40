"""What the database backend has beside the contract: damage, purges, its clock, threads."""

import asyncio
import math
import threading
import time
from typing import Any

import pytest
from django.db import connections

from django_convstate import ConversationStore, get_backend
from django_convstate.backends.database import purging
from django_convstate.backends.database.models import Conversation, Message
from django_convstate.backends.records import Change
from django_convstate.backends.reports import Selection
from django_convstate.exceptions import (
    BackendUnavailable,
    ConversationCorrupt,
    ConversationInterrupted,
    InvalidBackend,
)
from django_convstate.ids import new_id
from django_convstate.testing.twins import in_threads, message
from tests.support.databases import statements
from tests.support.places import make_place
from tests.support.wall_clock import jump


def row_of(alias: str, id: str) -> Any:
    return Conversation.rows.using(alias).filter(key=id, quarantined="")


def messages_of(alias: str, id: str) -> Any:
    return Message.objects.using(alias).filter(conversation__key=id)


DAMAGE = {
    "state": lambda alias, id: row_of(alias, id).update(state=b"\0\0\0\7nonsense"),
    "cut": lambda alias, id: row_of(alias, id).update(state=b"\0"),
    "count": lambda alias, id: row_of(alias, id).update(message_count=9),
    "negative": lambda alias, id: row_of(alias, id).update(message_count=-1),
    "key": lambda alias, id: row_of(alias, id).update(last_key=b"short"),
    "commits": lambda alias, id: row_of(alias, id).update(commits=b"nonsense"),
    "last": lambda alias, id: messages_of(alias, id).filter(position=2).delete(),
    "first": lambda alias, id: messages_of(alias, id).filter(position=0).delete(),
    "all": lambda alias, id: messages_of(alias, id).delete(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_makes_no_sense_is_set_aside(database: str, damage: str) -> None:
    backend, id = make_place(database), new_id()
    backend.commit(id, Change(set={"a": b"1"}, append=[message(i) for i in range(3)]))
    DAMAGE[damage](database, id)
    with pytest.raises(ConversationCorrupt):
        backend.load(id, 2)
    assert backend.load(id, 2) is None
    assert backend.exists(id) is False
    kept = Conversation.rows.using(database).get(key=id)
    assert kept.quarantined
    assert kept.expires_at is not None
    assert 6 * 86400 < kept.expires_at.timestamp() - time.time() < 8 * 86400
    assert list(Conversation.objects.using(database)) == []
    backend.commit(id, Change(append=[message(9)]))
    assert backend.load(id, 2).messages == [message(9)]  # type: ignore[union-attr]
    assert Conversation.rows.using(database).filter(key=id).count() == 2


def test_damage_is_found_by_a_commit_too(database: str) -> None:
    backend, id = make_place(database), new_id()
    backend.commit(id, Change(append=[message(i) for i in range(3)]))
    DAMAGE["last"](database, id)
    with pytest.raises(ConversationCorrupt):
        backend.commit(id, Change(append=[message(4)], window=2))
    assert backend.exists(id) is False


def test_a_load_amid_changes_is_of_one_moment(database: str) -> None:
    """Its two statements may see two versions; then they are sent again."""
    backend, id, rounds = make_place(database), new_id(), 40
    backend.commit(id, Change(ttl=600.0, append=[message(i) for i in range(5)]))
    done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            for turn in range(rounds):
                change = Change(keep_messages=turn % 4, append=[(f"m{turn}", b"%d" % turn)])
                backend.commit(id, change)
            done.set()
            return 0
        loads = 0
        while not done.is_set():
            record = backend.load(id, 50)
            assert record is not None
            assert len(record.messages) == record.message_count
            loads += 1
        return loads

    assert sum(in_threads(3, work)) > 0
    assert Conversation.rows.using(database).exclude(quarantined="").count() == 0


def test_a_race_of_many_writers(database: str) -> None:
    """Threads that load, change and commit with leases, as turns do, lose nothing."""
    store = ConversationStore("database", database_alias=database, ttl=600)
    made = store.create()
    made["turns"] = 0
    made.save()

    def take_turns(number: int) -> None:
        for _ in range(5):
            with store.get(made.id).turn(timeout=60) as conversation:
                conversation["turns"] += 1
                conversation.messages.append("user", f"from {number}")

    in_threads(6, take_turns)
    again = store.get(made.id)
    assert (again["turns"], len(again.messages)) == (30, 30)


@pytest.mark.parametrize("others_point_at_them", [True, False])
def test_a_purge_in_batches(
    database: str, others_point_at_them: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert purging.others_point_at_conversations() is True, "as the tickets of the tests do"
    monkeypatch.setattr(purging, "others_point_at_conversations", lambda: others_point_at_them)
    monkeypatch.setattr(purging, "SECONDS", 600.0)  # however busy this machine is
    backend = make_place(database)
    expired = [new_id() for _ in range(25)]
    for id in expired:
        backend.commit(id, Change(ttl=1e-6, append=[message(0)]))
    kept, in_turn = new_id(), new_id()
    backend.commit(kept, Change(ttl=math.inf))
    backend.commit(in_turn, Change(ttl=1e-6))
    backend.acquire(in_turn, "a", 60.0, 1)
    told: list[Any] = []
    counted = backend.purge(Selection(), dry_run=True)
    assert (counted.deleted, counted.dry_run) == (25, True)
    report = backend.purge(Selection(), batch_size=10, progress=lambda *p: told.append(p))
    assert report.deleted == 25
    assert told == [(10, 25), (20, 25), (25, 25)]
    assert backend.exists(kept)
    assert backend.renew(in_turn, "a", 60.0), "a turn is under way"
    assert Message.objects.using(database).count() == 0
    assert Conversation.rows.using(database).count() == 2
    backend.commit(expired[0], Change(unless_deleted=True)), "expired is not deleted"
    backend.purge(Selection(everything=True))
    for id in (kept, expired[0]):
        with pytest.raises(ConversationInterrupted):
            backend.commit(id, Change(unless_deleted=True))


def test_what_is_not_needed_any_more_is_purged(database: str) -> None:
    """Tombstones, quarantine, leases of what was never stored."""
    backend, deleted, leased, damaged = make_place(database), new_id(), new_id(), new_id()
    for id in (deleted, damaged):
        backend.commit(id, Change(append=[message(0)]))
    backend.delete(deleted)
    backend.acquire(leased, "a", 60.0, 1)
    DAMAGE["all"](database, damaged)
    with pytest.raises(ConversationCorrupt):
        backend.load(damaged, 1)
    rows = Conversation.rows.using(database)
    backend.purge(Selection())
    assert rows.count() == 3
    past = rows.get(key=deleted).created_at
    rows.update(expires_at=past)
    rows.update(leased_until=None)
    assert backend.purge(Selection()).deleted == 0, "they were no conversations"
    assert rows.count() == 0


def test_prefixes_share_nothing(database: str) -> None:
    one, other = make_place(database), make_place(database, key_prefix="tenant")
    id = new_id()
    one.commit(id, Change(owner="u1", append=[message(0)]))
    assert other.load(id, 1) is None
    assert other.find(id, message(0)[0]) is None
    assert other.read_messages(id, 0, 9) == []
    assert list(other.scan("u1")) == []
    other.commit(id, Change(owner="u2"))
    assert other.purge(Selection(everything=True)).deleted == 1
    assert one.exists(id)


def test_stores_of_tenants(database: str) -> None:
    stores = [
        ConversationStore("database", database_alias=database, key_prefix=prefix)
        for prefix in ("acme", "umbrella")
    ]
    conversation = stores[0].create()
    conversation["a"] = 1
    conversation.save()
    assert [store.exists(conversation.id) for store in stores] == [True, False]


async def test_the_event_loop_is_not_blocked(postgres: str) -> None:
    """While another transaction has the row of a conversation, everything else goes on."""
    backend, id = make_place(postgres), new_id()
    locked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        from django.db import transaction

        try:
            with transaction.atomic(using=postgres):
                backend.commit(id, Change(append=[message(0)]))
                locked.set()
                assert go_on.wait(60)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert await asyncio.to_thread(locked.wait, 60)
    commit = asyncio.create_task(backend.acommit(id, Change(append=[message(1)])))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not commit.done()
    go_on.set()
    committed = await commit
    assert committed.version == 2
    await asyncio.to_thread(thread.join)


def test_times_are_those_of_the_database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this machine is wrong by an hour."""
    real = time.time
    jump(monkeypatch, 1)
    backend, id = make_place(postgres), new_id()
    backend.commit(id, Change(ttl=60.0, append=[message(0)]))
    record = backend.load(id, 1)
    assert record is not None
    assert abs(record.created_at - real()) < 30
    jump(monkeypatch, -2)
    assert make_place(postgres).load(id, 1) is not None
    assert backend.load(id, 1) is not None, "and it was set meanwhile"
    again = backend.commit(id, Change(append=[message(1)]))
    assert abs(again.expires_at - 60 - real()) < 30


def test_a_database_that_cannot_be_reached(postgres: str) -> None:
    entry = connections.settings[postgres] | {"HOST": "/nowhere"}
    connections.settings["nowhere"] = entry
    try:
        backend = get_backend("database", database_alias="nowhere")
        for call in (
            lambda: backend.load(new_id(), 1),
            lambda: backend.exists(new_id()),
            lambda: backend.commit(new_id(), Change(append=[message(0)])),
            lambda: list(backend.scan()),
            lambda: backend.purge(Selection()),
        ):
            with pytest.raises(BackendUnavailable, match="nowhere"):
                call()
        health = backend.health()
        assert (health.connected, health.backend) == (False, "database")
        assert "nowhere" in health.detail
    finally:
        del connections["nowhere"], connections.settings["nowhere"]


def test_statements_that_are_prepared(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/database.md advises: the server finds the types of values, not the driver."""
    monkeypatch.setattr(purging, "others_point_at_conversations", lambda: False)
    options = {"server_side_binding": True, "prepare_threshold": 2}
    connections.settings["prepared"] = connections.settings[postgres] | {"OPTIONS": options}
    try:
        store = ConversationStore("database", database_alias="prepared", ttl=600)
        conversation = store.create("u1")
        for number in range(6):
            conversation["turns"] = number
            conversation.messages.append("user", f"message {number}")
            conversation.save()
            conversation = store.get(conversation.id)
        assert (conversation["turns"], len(conversation.messages)) == (5, 6)
        with connections["prepared"].cursor() as cursor:
            cursor.execute("SELECT statement FROM pg_prepared_statements")
            prepared = [statement for (statement,) in cursor.fetchall()]
        for beginning in ("WITH", "SELECT"):
            assert any(statement.startswith(beginning) for statement in prepared)
        assert [summary.id for summary in store.list("u1")] == [conversation.id]
        make_place(postgres).commit(new_id(), Change(ttl=1e-6, append=[message(0)]))
        assert store.purge().deleted == 1
        assert store.purge(everything=True).deleted == 1
    finally:
        connections["prepared"].close()
        del connections["prepared"], connections.settings["prepared"]


def test_an_unknown_alias() -> None:
    backend = get_backend("database", database_alias="nowhere")
    with pytest.raises(InvalidBackend, match="nowhere"):
        backend.exists(new_id())


def test_health(database: str) -> None:
    health = make_place(database).health()
    assert (health.connected, health.using_fallback) == (True, False)
    assert database in health.detail


def test_a_statement_of_a_peek_writes_nothing(database: str) -> None:
    backend, id = make_place(database), new_id()
    backend.commit(id, Change(ttl=600.0, append=[message(0)]))
    old = row_of(database, id).get().created_at.replace(year=2020)
    row_of(database, id).update(last_accessed=old)
    with statements(database) as sent:
        backend.peek(id, 1)
    assert [sql.split()[0] for sql in sent] == ["SELECT"] * len(sent)


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York"])
def test_a_project_without_time_zones(database: str, settings: Any, zone: str) -> None:
    settings.TIME_ZONE, settings.USE_TZ = zone, False
    backend, id = make_place(database), new_id()
    committed = backend.commit(id, Change(owner="u1", ttl=60.0, append=[message(0)]))
    record = backend.load(id, 1)
    assert record is not None
    assert abs(record.created_at - time.time()) < 30
    assert record.expires_at == pytest.approx(committed.expires_at, abs=1e-3)
    (summary,) = backend.scan("u1")
    assert abs(summary.modified_at.timestamp() - time.time()) < 30
    assert Conversation.objects.using(database).owned_by("u1").count() == 1
    assert backend.purge(Selection()).deleted == 0
    assert backend.purge(Selection(idle_for=0.0)).deleted == 1
