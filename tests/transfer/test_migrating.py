"""From each backend that can list to each other, with writers that go on."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from django_convstate import BackendUnavailable, ConversationStore, InvalidBackend
from django_convstate.administration import repository_of
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Record
from django_convstate.testing import seed
from django_convstate.transfer import MigrationReport, migrate
from django_convstate.transfer.comparing import was_deleted
from tests.support.archives import LISTING, assert_same, whole_of
from tests.support.messages import pairs

SOURCES = ["standalone", "sqlite", "postgres"]
PAIRS = [
    *((source, target) for source in SOURCES for target in SOURCES),
    *((source, "default") for source in SOURCES),
    ("locmem", "locmem"),
    ("failover", "sqlite"),
]
Make = Callable[[str], ConversationStore]


def fill(store: ConversationStore, count: int) -> list[str]:
    return [
        seed(
            [("user", f"message {number}"), {"item": number}],
            {"title": f"number {number}"},
            owner="u1",
            ttl=3600 + number,
            store=store,
        ).id
        for number in range(count)
    ]


def assert_copied(source: ConversationStore, target: ConversationStore) -> None:
    ids = [summary.id for summary in source.list(limit=10_000)]
    for id in ids:
        assert_same(whole_of(target, id), whole_of(source, id))
    if target.backend.can_scan:
        assert [summary.id for summary in target.list(limit=10_000)] == ids


@pytest.mark.parametrize(("source_place", "target_place"), PAIRS)
class TestEachPair:
    def test_everything_is_copied_and_verified(
        self, make_store: Make, source_place: str, target_place: str
    ) -> None:
        source, target = make_store(source_place), make_store(target_place)
        ids = fill(source, 12)
        before = [whole_of(source, id) for id in ids]
        seen: list[tuple[int, int | None]] = []
        report = migrate(source, target, progress=lambda *done: seen.append(done))
        assert (report.copied, report.source, report.verified) == (12, 12, 12)
        assert report.target == (12 if target.backend.can_scan else None)
        assert report.is_complete
        assert seen[11] == (12, None)
        assert seen[-1] == (12, 12)
        assert_copied(source, target)
        for id, whole in zip(ids, before, strict=True):
            assert_same(whole_of(source, id), whole)

    def test_a_second_run_copies_what_has_changed(
        self, make_store: Make, source_place: str, target_place: str
    ) -> None:
        source, target = make_store(source_place), make_store(target_place)
        changed, touched, deleted, moved, *_ = fill(source, 6)
        assert migrate(source, target).copied == 6
        conversation = source.get(changed)
        conversation.messages.append("assistant", "a later answer")
        conversation["title"] = "a new title"
        conversation.save()
        assert source.touch(touched, 7200)
        source.delete(deleted)
        handle = source.get(moved)
        handle.cycle_id()
        handle.save()
        fill(source, 1)
        report = migrate(source, target)
        assert report.is_complete
        assert (report.source, report.verified) == (6, 6)
        if target.backend.can_scan:
            assert report.deleted == 2
            assert report.target == 6
            assert not target.exists(deleted)
            assert not target.exists(moved)
        assert_copied(source, target)
        assert migrate(source, target).copied == 0


class Gone(BaseException):
    """As if the process were killed."""


@pytest.mark.parametrize("source_place", ["standalone", "sqlite"])
def test_one_that_was_killed_is_run_again(make_store: Make, source_place: str) -> None:
    source, target = make_store(source_place), make_store("locmem")
    ids = fill(source, 10)

    def die(done: int, total: int | None) -> None:
        if done == 5:
            raise Gone

    with pytest.raises(Gone):
        migrate(source, target, progress=die)
    copied = [summary.id for summary in target.list()]
    assert 4 <= len(copied) <= 5
    source.delete(copied[0])
    report = migrate(source, target)
    assert report.is_complete
    assert (report.verified, report.deleted) == (9, 1)
    assert {summary.id for summary in target.list()} == set(ids) - {copied[0]}


@pytest.mark.parametrize(
    ("source_place", "target_place"),
    [(source, target) for source in SOURCES for target in SOURCES if source != target],
)
def test_while_others_write(make_store: Make, source_place: str, target_place: str) -> None:
    """They append, begin and delete; a last run, when they have stopped, catches up."""
    source, target = make_store(source_place), make_store(target_place)
    ids = fill(source, 30)
    may_write, stop = threading.Semaphore(5), threading.Event()

    def write() -> None:
        written = 0
        try:
            while may_write.acquire() and not stop.is_set():
                conversation = source.get(ids[written % 20])
                conversation.messages.append("user", f"meanwhile {written}")
                conversation.save()
                if written % 10 == 0:
                    source.delete(seed([("user", "short")], store=source).id)
                    fill(source, 1)
                written += 1
        finally:
            connections.close_all()

    def let_them_write(done: int, total: int | None) -> None:
        if done % 4 == 0:
            may_write.release()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        report = migrate(source, target, progress=let_them_write)
    finally:
        stop.set()
        may_write.release()
        thread.join()
    assert report.differing == report.newer == report.refused == 0
    assert report.verified + report.changed == report.source
    report = migrate(source, target)
    assert report.is_complete
    assert report.source == report.target == len(list(source.list()))
    assert_copied(source, target)


def test_what_the_target_has_saved_later_is_left_alone(make_store: Make) -> None:
    source, target = make_store("locmem"), make_store("locmem")
    changed, _ = fill(source, 2)
    migrate(source, target)
    conversation = target.get(changed)
    conversation.messages.append("user", "in the new store")
    conversation.save()
    [own] = fill(target, 1)
    report = migrate(source, target)
    assert (report.copied, report.newer, report.only_in_target) == (0, 1, 1)
    assert not report.is_complete
    assert target.get(changed).messages[-1]["content"] == "in the new store"
    assert target.exists(own)


def test_a_target_that_is_used_keeps_what_was_deleted_in_the_source(make_store: Make) -> None:
    source, target = make_store("locmem"), make_store("locmem")
    [id] = fill(source, 1)
    migrate(source, target)
    source.delete(id)
    report = migrate(source, target, target_is_used=True)
    assert (report.deleted, report.only_in_target) == (0, 1)
    assert target.exists(id)


def test_what_was_copied_wrongly_is_copied_again(make_store: Make) -> None:
    source, target = make_store("locmem"), make_store("locmem")
    [id] = fill(source, 1)
    migrate(source, target)
    whole = whole_of(target, id)
    whole.record.state = {"title": b'"another"'}
    repository_of(target).restore(id, whole.record, iter(whole.messages), replaces=1)
    report = migrate(source, target)
    assert (report.copied, report.verified) == (1, 1)
    assert_copied(source, target)


def test_what_a_target_does_not_keep_as_it_was_is_told(make_store: Make) -> None:
    class Forgetful(LocMemBackend):
        def restore(self, id: str, record: Record, messages: Any, **options: Any) -> None:
            super().restore(id, record, list(messages)[1:], **options)

    source = make_store("locmem")
    fill(source, 3)
    report = migrate(source, ConversationStore(Forgetful()))
    assert (report.verified, report.differing, report.is_complete) == (0, 3, False)


def test_what_is_too_large_for_the_target_is_told(make_store: Make) -> None:
    source = make_store("locmem")
    fill(source, 3)
    seed([("user", "x" * 20_000)], store=source)
    report = migrate(source, ConversationStore(LocMemBackend(max_bytes=15_000)))
    assert (report.verified, report.refused, report.is_complete) == (3, 1, False)


def test_what_the_target_refuses_is_told(make_store: Make) -> None:
    source, target = make_store("locmem"), make_store("sqlite")
    fill(source, 2)
    old = Change(owner="a\0b", append=pairs(b'{"said":1}'))  # as former versions have kept it
    source.backend.commit("old", old)
    report = migrate(source, target)
    assert (report.verified, report.refused, report.is_complete) == (2, 1, False)


def test_a_source_that_cannot_list_is_refused(make_store: Make) -> None:
    with pytest.raises(InvalidBackend, match="cannot list"):
        migrate(make_store("default"), make_store("locmem"))


def test_an_outage_of_the_source_is_none_of_its_conversations(make_store: Make) -> None:
    """What is remembered for an outage is not taken for what is stored."""

    class Away(LocMemBackend):
        is_away = False

        def peek(self, id: str, window: int) -> Record | None:
            found = super().peek(id, window)
            if found is not None and self.is_away:
                found.degraded = True
            return found

    source, target = ConversationStore(backend := Away()), make_store("locmem")
    fill(source, 1)
    backend.is_away = True
    with pytest.raises(BackendUnavailable):
        migrate(source, target)
    assert list(target.list()) == []


@pytest.mark.parametrize("place", [*LISTING, "default"])
def test_whether_it_was_deleted(make_store: Make, place: str) -> None:
    store = make_store(place)
    kept, deleted = fill(store, 2)
    store.delete(deleted)
    before = whole_of(store, kept)
    repository = repository_of(store)
    assert was_deleted(repository, deleted)
    assert not was_deleted(repository, kept)
    assert not was_deleted(repository, "never-there")
    assert not store.exists("never-there")
    assert_same(whole_of(store, kept), before)


def test_a_report_is_complete_where_there_is_nothing() -> None:
    assert MigrationReport().is_complete
