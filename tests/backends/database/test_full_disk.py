"""A database whose disk is full, and has room again later."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from django_convstate import ConversationStore
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.exceptions import BackendUnavailable
from django_convstate.testing import seed
from django_convstate.transfer import export_to, import_from, migrate, open_to_read, open_to_write
from tests.support.databases import QUICK, empty
from tests.support.full_disks import FILE_SIZE, Disk, SmallFile, limited_files, small_disk
from tests.support.postgres import running_postgres

SMALL, LARGE = "small-{:08}", "large-conversation"


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A PostgreSQL whose disk nobody else needs."""
    with running_postgres(f"{QUICK}autovacuum = off\n", FILE_SIZE) as host:
        yield host


@pytest.fixture(scope="module")
def limited(host: str, django_db_blocker: Any) -> Iterator[Disk]:
    with django_db_blocker.unblock(), limited_files(host) as disk:
        yield disk


@pytest.fixture(scope="module")
def mounted(host: str, django_db_blocker: Any) -> Iterator[Disk]:
    with django_db_blocker.unblock(), small_disk(host) as disk:
        yield disk


@pytest.fixture(params=["sqlite", "limited", "mounted"])
def disk(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[Disk]:
    """Each kind of disk in turn, with room."""
    found = request.getfixturevalue(request.param)
    disk = SmallFile(found) if request.param == "sqlite" else found
    with django_db_blocker.unblock():
        yield disk
        empty(disk.alias)


@pytest.fixture
def store(disk: Disk) -> ConversationStore:
    return ConversationStore("database", database_alias=disk.alias, ttl=600)


def large() -> str:
    """Return a text that takes room, because it can hardly be compressed."""
    return secrets.token_hex(30_000)


@pytest.fixture
def source() -> Iterator[ConversationStore]:
    """A store with small conversations, and a large one in the midst of them."""
    with closing(ConversationStore(LocMemBackend())) as store:
        for number in range(10):
            seed(
                [("user", f"message {number}")], {"n": number}, id=SMALL.format(number), store=store
            )
            if number == 5:
                seed([("user", large()) for _ in range(20)], {"n": "large"}, id=LARGE, store=store)
        yield store


def assert_is_full(error: BackendUnavailable, disk: Disk) -> None:
    """The error of the database is there for a log, and for nobody else."""
    assert disk.error not in str(error)
    assert disk.error in str(error.__cause__)


def test_a_conversation_is_saved_when_there_is_room_again(
    store: ConversationStore, disk: Disk
) -> None:
    conversation, other = (seed([("user", "hello")], store=store) for _ in range(2))
    said = [large() for _ in range(20)]
    for text in said:
        conversation.messages.append("user", text)
    with disk.full():
        with pytest.raises(BackendUnavailable) as caught:
            conversation.save()
        assert_is_full(caught.value, disk)
        with pytest.raises(BackendUnavailable):
            store.append(conversation.id, "user", large())
        with pytest.raises(BackendUnavailable), other.turn():
            other.messages.append("user", said[0])
        assert contents(store, conversation.id) == contents(store, other.id) == ["hello"]
    conversation.save()
    with store.get(conversation.id).turn() as turn:
        turn.messages.append("assistant", "bye")
    other.save()
    assert contents(store, conversation.id) == ["hello", *said, "bye"]
    assert contents(store, other.id) == ["hello", said[0]]


def test_an_import_is_run_again(
    store: ConversationStore, source: ConversationStore, disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    with open_to_write(path) as file:
        export_to(file, store=source)
    with disk.full(), open_to_read(path) as file:
        with pytest.raises(BackendUnavailable) as caught:
            import_from(file, store=store)
        assert_is_full(caught.value, disk)
        assert_whole_but_large(store)
    with open_to_read(path) as file:
        report = import_from(file, "skip", store=store)
    assert report.imported + report.skipped == 11
    assert report.imported >= 1
    assert migrate(source, store).verified == 11


def test_a_migration_is_run_again(
    store: ConversationStore, source: ConversationStore, disk: Disk
) -> None:
    with disk.full():
        with pytest.raises(BackendUnavailable) as caught:
            migrate(source, store)
        assert_is_full(caught.value, disk)
        assert_whole_but_large(store)
    report = migrate(source, store)
    assert report.copied >= 1
    assert (report.verified, report.source, report.target) == (11, 11, 11)


def assert_whole_but_large(store: ConversationStore) -> None:
    """What is there is whole, and the large one is not."""
    found = [store.get(summary.id) for summary in store.list()]
    assert LARGE not in [conversation.id for conversation in found]
    for conversation in found:
        assert conversation.id == SMALL.format(conversation["n"])
        assert contents(store, conversation.id) == [f"message {conversation['n']}"]


def contents(store: ConversationStore, id: str) -> list[Any]:
    return [message["content"] for message in store.get(id).messages]
