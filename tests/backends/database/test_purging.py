"""Purges: in transactions that are short, and again after one that was killed."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from django.db import connections, transaction

from django_convstate import get_backend
from django_convstate.backends.database import purging
from django_convstate.backends.database.models import Conversation, Message
from django_convstate.backends.records import Change
from django_convstate.backends.reports import Selection
from django_convstate.exceptions import ConversationInterrupted
from django_convstate.ids import new_id
from django_convstate.testing.twins import in_threads, message
from tests.support.databases import statements
from tests.support.places import make_place

EVERYTHING = Selection(everything=True)
# Purges batch by batch, and says after each how many it has deleted.
PROGRAM = """
import json, sys, django
from django.db import connections
django.setup()
connections.settings["own"] = json.loads(sys.argv[1])
connections.configure_settings(connections.settings)
from django_convstate import get_backend
from django_convstate.backends.database import purging
from django_convstate.backends.reports import Selection

purging.SECONDS = 600  # however busy this machine is

def say(done, total):
    print(done, flush=True)
    sys.stdin.readline()

backend = get_backend("database", database_alias="own")
backend.purge(Selection(), batch_size=10, progress=say)
"""


@pytest.fixture
def _nothing_points_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "others_point_at_conversations", lambda: False)


def expired(backend: Any, count: int, messages: int = 5) -> list[str]:
    ids = [new_id() for _ in range(count)]
    for id in ids:
        backend.commit(id, Change(ttl=1e-6, append=[message(i) for i in range(messages)]))
    return ids


def test_one_that_is_killed_is_begun_again(database: str) -> None:
    backend, kept = make_place(database), new_id()
    backend.commit(kept, Change(ttl=600.0, append=[message(0)]))
    expired(backend, 50)
    settings = connections.settings[database]
    keys = ("ENGINE", "NAME", "HOST", "PORT", "USER", "PASSWORD")
    entry = {key: str(settings[key]) for key in keys}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(entry)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as purge:
        assert purge.stdin is not None
        assert purge.stdout is not None
        assert purge.stdout.readline() == "10\n"
        purge.stdin.write("\n")
        purge.stdin.flush()
        assert purge.stdout.readline() == "20\n"
        purge.send_signal(signal.SIGKILL)
    assert Conversation.rows.using(database).count() == 31
    assert Message.objects.using(database).count() == 5 * 30 + 1, "nothing is half deleted"
    assert backend.purge(Selection(), dry_run=True).deleted == 30
    assert backend.purge(Selection()).deleted == 30
    assert [row.key for row in Conversation.rows.using(database)] == [kept]


def test_a_transaction_deletes_no_more_than_some_messages(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "PURGED_MESSAGES", 12)
    backend = make_place(database)
    expired(backend, 5)
    told: list[int] = []
    assert backend.purge(Selection(), progress=lambda done, _: told.append(done)).deleted == 5
    assert told == [2, 4, 5]
    assert Message.objects.using(database).count() == 0


def test_after_a_transaction_that_took_long_comes_a_smaller_one(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_place(database)
    expired(backend, 33, messages=1)
    told: list[int] = []

    def tell(done: int, total: int | None) -> None:
        told.append(done)
        slow = len(told) < 3
        monkeypatch.setattr(purging, "SECONDS", 0.0 if slow else 600.0)

    monkeypatch.setattr(purging, "SECONDS", 0.0)
    backend.purge(Selection(), batch_size=8, progress=tell)
    assert told == [8, 12, 14, 15, 17, 21, 29, 33]


@pytest.mark.usefixtures("_nothing_points_at_them")
@pytest.mark.parametrize("selection", [Selection(), EVERYTHING, Selection(owner="u1")])
def test_one_of_many_messages_is_deleted_in_pieces(
    database: str, monkeypatch: pytest.MonkeyPatch, selection: Selection
) -> None:
    monkeypatch.setattr(purging, "PURGED_MESSAGES", 10)
    backend, id = make_place(database), new_id()
    ttl = 1e-6 if selection.only_expired else 600.0
    messages = [message(i) for i in range(35)]
    backend.commit(id, Change(owner="u1", ttl=ttl, append=messages))
    with statements(database) as sent:
        report = backend.purge(selection)
    assert (report.examined, report.deleted) == (1, 1)
    deletes = [sql for sql in sent if sql.startswith('DELETE FROM "convstate_database_message"')]
    assert len(deletes) == 4
    assert Message.objects.using(database).count() == 0
    if selection.only_expired:
        assert Conversation.rows.using(database).count() == 0
    else:
        with pytest.raises(ConversationInterrupted):
            backend.commit(id, Change(unless_deleted=True))


@pytest.mark.usefixtures("_nothing_points_at_them")
@pytest.mark.parametrize("selection", [Selection(), EVERYTHING, Selection(idle_for=0.0)])
def test_what_is_deleted_in_pieces_is_not_seen_half(
    database: str, monkeypatch: pytest.MonkeyPatch, selection: Selection
) -> None:
    """Nor is it damage; and after the end of the purge the next one does the rest."""
    monkeypatch.setattr(purging, "PURGED_MESSAGES", 10)
    backend, id = make_place(database), new_id()
    ttl = 1e-6 if selection.only_expired else 600.0
    backend.commit(id, Change(ttl=ttl, append=[message(i) for i in range(35)]))

    def killing(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("DELETE") and Message.objects.using(database).count() <= 20:
            raise KeyboardInterrupt
        return execute(sql, params, many, context)

    with pytest.raises(KeyboardInterrupt), connections[database].execute_wrapper(killing):
        backend.purge(selection)
    assert 0 < Message.objects.using(database).count() < 35
    assert backend.load(id, 9) is None
    assert backend.exists(id) is False
    assert list(backend.scan()) == []
    backend.commit(id, Change(ttl=600.0, append=[message(99)]))
    assert backend.purge(Selection()).deleted == 0, "it was counted as deleted already"
    assert Message.objects.using(database).count() == 1
    assert backend.load(id, 9).messages == [message(99)]  # type: ignore[union-attr]


def test_it_goes_on_behind_what_others_have_locked(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_place(postgres)
    ids = expired(backend, 30)
    with transaction.atomic(using=postgres):
        list(Conversation.rows.using(postgres).filter(key__in=ids[:15]).select_for_update())
        (report,) = in_threads(1, lambda _: backend.purge(Selection(), batch_size=10))
    assert (report.examined, report.deleted) == (30, 15)
    assert backend.purge(Selection(), batch_size=10).deleted == 15


@pytest.mark.usefixtures("_nothing_points_at_them")
@pytest.mark.parametrize("selection", [Selection(), EVERYTHING])
def test_one_of_many_messages_that_others_have_locked_is_left_whole(
    postgres: str, monkeypatch: pytest.MonkeyPatch, selection: Selection
) -> None:
    monkeypatch.setattr(purging, "PURGED_MESSAGES", 10)
    backend = make_place(postgres)
    ttl = 1e-6 if selection.only_expired else 600.0
    backend.commit(new_id(), Change(ttl=ttl, append=[message(i) for i in range(35)]))
    with transaction.atomic(using=postgres):
        list(Conversation.rows.using(postgres).select_for_update())
        (report,) = in_threads(1, lambda _: backend.purge(selection))
        assert report.deleted == 0
        assert Message.objects.using(postgres).count() == 35
    assert backend.purge(selection).deleted == 1
    assert Message.objects.using(postgres).count() == 0


@pytest.mark.usefixtures("_nothing_points_at_them")
def test_what_has_expired_takes_a_statement_for_each_batch(postgres: str) -> None:
    """Within a transaction of the caller's, too, which it leaves as it is."""
    backend = make_place(postgres)
    expired(backend, 20)
    with statements(postgres) as sent:
        assert backend.purge(Selection(), batch_size=10).deleted == 20
    assert len([sql for sql in sent if "DELETE" in sql]) == 3, "the last finds no more"
    assert len(sent) == 4, "and one counts"
    expired(backend, 20)
    with transaction.atomic(using=postgres), statements(postgres) as sent:
        assert backend.purge(Selection(), batch_size=10).deleted == 20
        assert not [sql for sql in sent if "synchronous_commit" in sql]


@pytest.mark.parametrize("others_point", [True, False])
def test_nobody_waits_for_the_disk_and_everybody_has_a_rest(
    postgres: str, monkeypatch: pytest.MonkeyPatch, others_point: bool
) -> None:
    monkeypatch.setattr(purging, "others_point_at_conversations", lambda: others_point)
    rests: list[float] = []
    monkeypatch.setattr("time.sleep", rests.append)
    backend = make_place(postgres)
    expired(backend, 20)
    with statements(postgres) as sent:
        assert backend.purge(Selection(), batch_size=10).deleted == 20
    assert len([sql for sql in sent if "synchronous_commit" in sql]) >= 2
    assert len(rests) == 2
    assert all(rest > 0 for rest in rests)
    with connections[postgres].cursor() as cursor:
        cursor.execute("SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'")
        before = cursor.fetchone()
        cursor.execute("SELECT setting FROM pg_settings WHERE name = 'synchronous_commit'")
        assert cursor.fetchone() == before


def test_a_maximum_age_that_was_longer_when_it_was_saved(database: str) -> None:
    backend, id = make_place(database), new_id()
    backend.commit(id, Change(ttl=600.0, append=[message(0)]))
    shorter = get_backend("database", database_alias=database, max_age=1e-6)
    assert shorter.purge(Selection(), dry_run=True).deleted == 1
    assert backend.exists(id)
    assert shorter.purge(Selection()).deleted == 1
    assert not backend.exists(id)
