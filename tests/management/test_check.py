"""What check_sessions finds, and what it leaves alone."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from django_convstate import ConversationCorrupt, conversations
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.database.models import Conversation, Message
from django_convstate.ids import hashed_id
from tests.management.conftest import PREFIX
from tests.support.backends import SharedBackend
from tests.support.commands import make, pass_by, run
from tests.support.databases import ALIASES
from tests.support.redis import raw

on_redis = pytest.mark.parametrize("kept", ["redis"], indirect=True)
on_databases = pytest.mark.parametrize("kept", ALIASES, indirect=True)


def key(id: str, part: str) -> str:
    return f"{PREFIX}:{{{id}}}:{part}"


def index_of(owner: str) -> str:
    (found,) = [
        each.decode()
        for each in raw().scan_iter(f"{PREFIX}:owner:*}}")
        if raw().zscore(each, next(iter(conversations.list(owner))).id) is not None
    ]
    return str(found)


def found() -> list[tuple[str, str, str]]:
    """Return kind, id and place of what check_sessions finds."""
    out = io.StringIO()
    code = 0
    try:
        call_command("check_sessions", "--json", stdout=out)
    except CommandError as error:
        code = error.returncode
    report = json.loads(out.getvalue())
    assert code == (4 if report["findings"] else 0)
    kinds = [each["kind"] for each in report["findings"]]
    assert {kind: count for kind, count in report["kinds"].items() if count} == {
        kind: kinds.count(kind) for kind in kinds
    }
    assert report["found"] == len(kinds)
    for each in report["findings"]:
        assert each["log_id"] == (hashed_id(each["id"]) if each["id"] else None)
    return [(each["kind"], each["id"], each["where"]) for each in report["findings"]]


def everything() -> dict[bytes, Any]:
    """Return all that is in Redis, and when each key expires (ms since the epoch)."""
    keys = sorted(raw().scan_iter(f"{PREFIX}:*"))
    return {each: (raw().dump(each), raw().pexpiretime(each)) for each in keys}


def persist(part: str) -> Callable[[str], Any]:
    return lambda id: raw().persist(key(id, part))


ON_REDIS: dict[str, tuple[Callable[[str], Any], list[tuple[str, str]]]] = {
    "a hash of another type": (
        lambda id: raw().set(key(id, "meta"), "x", ex=60),
        [("damaged", "meta")],
    ),
    "a field that makes no sense": (
        lambda id: raw().hset(key(id, "meta"), "v", "x"),
        [("damaged", "meta")],
    ),
    "a field that a script stumbles over": (
        lambda id: raw().hset(key(id, "meta"), "w", "x" * 30),
        [("damaged", "meta")],
    ),
    "a message that makes no sense": (
        lambda id: raw().lset(key(id, "messages"), 0, "x"),
        [("damaged", "meta")],
    ),
    "no messages": (lambda id: raw().delete(key(id, "messages")), [("partial", "meta")]),
    "no state": (lambda id: raw().delete(key(id, "state")), [("partial", "meta")]),
    "no hash": (
        lambda id: raw().delete(key(id, "meta")),
        [("orphaned", "messages"), ("orphaned", "owner"), ("orphaned", "state")],
    ),
    "nothing but the index": (
        lambda id: raw().delete(*(key(id, part) for part in ("meta", "state", "messages"))),
        [("orphaned", "owner")],
    ),
    "no entry in the index": (
        lambda id: raw().zrem(index_of("u1"), id),
        [("unlisted", "owner")],
    ),
    "no index": (lambda id: raw().delete(index_of("u1")), [("unlisted", "owner")]),
    "a hash without TTL": (
        persist("meta"),
        [("partial", "messages"), ("partial", "state"), ("without_ttl", "meta")],
    ),
    "messages without TTL": (persist("messages"), [("without_ttl", "messages")]),
    "messages that expire too early": (
        lambda id: raw().pexpire(key(id, "messages"), 60_000),
        [("partial", "messages")],
    ),
    "an index without TTL": (
        lambda id: raw().persist(index_of("u1")),
        [("without_ttl", "owner")],
    ),
    "an index of another type": (
        lambda id: raw().set(index_of("u1"), "x", ex=600),
        [("damaged", "owner"), ("unlisted", "owner")],
    ),
    "an order of an index without TTL": (
        lambda id: raw().persist(f"{index_of('u1')}:saved"),
        [("without_ttl", "owner")],
    ),
    "an order of an index of another type": (
        lambda id: raw().set(f"{index_of('u1')}:saved", "x", ex=600),
        [("damaged", "owner")],
    ),
    "leases without TTL": (
        lambda id: raw().hset(key(id, "line"), "a", "b"),
        [("without_ttl", "line")],
    ),
    "a tombstone without TTL": (
        lambda id: (conversations.delete(id), raw().persist(key(id, "meta"))),
        [("without_ttl", "meta")],
    ),
}


@on_redis
@pytest.mark.parametrize("damage", ON_REDIS)
def test_damage_in_redis_is_found_and_left_alone(kept: str, damage: str) -> None:
    sound, hurt = make("u2"), make("u1")
    assert found() == []
    inflict, expected = ON_REDIS[damage]
    inflict(hurt.id)
    before = everything()
    seen = sorted(
        (kind, "owner" if ":owner:" in where else where.rpartition(":")[2])
        for kind, _, where in found()
    )
    assert seen == expected
    assert all(id in (hurt.id, "") for _, id, _ in found())
    assert everything() == before
    assert conversations.get(sound.id)["city"] == "Jaipur"


@on_redis
def test_what_is_left_of_an_expired_one_is_no_damage(kept: str) -> None:
    make("u1")
    pass_by(86400 + 60)
    assert any(b":messages" in each for each in everything())
    assert list(conversations.list()) == []
    assert found() == []


@on_redis
def test_what_lives_for_ever_is_no_damage(kept: str) -> None:
    make("u1", ttl=float("inf"))
    assert found() == []


@on_redis
def test_the_quarantine_is_listed_once(kept: str) -> None:
    hurt = make("u1")
    raw().hset(key(hurt.id, "meta"), "v", "x")
    with pytest.raises(ConversationCorrupt):
        conversations.get(hurt.id)
    assert found() == [("quarantined", hurt.id, key(hurt.id, "*:corrupt"))]


@on_redis
def test_keys_of_others_are_no_damage(kept: str) -> None:
    for name in ("x", "other:{a}:meta", "{a}:else", "owner:x"):
        raw().set(f"{PREFIX}:{name}", "x", ex=60)
    raw().set(f"{PREFIX}:".encode() + b"{\xff}:meta", "x", ex=60)
    assert [kind for kind, *_ in found()] == []


@on_redis
def test_the_pages_of_a_large_index_are_all_read(kept: str) -> None:
    for _ in range(3):
        make("u1")
    index = index_of("u1")
    score = raw().zscore(index, next(iter(conversations.list("u1"))).id)
    raw().zadd(index, {f"gone-{number}": score for number in range(1200)})
    assert len([where for kind, _, where in found_all() if kind == "orphaned"]) == 1200


def found_all() -> list[tuple[str, str, str]]:
    return [(each.kind, each.id, each.where) for each in conversations.find_damage()]


def execute(sql: str, *params: Any) -> Callable[[str, int], Any]:
    def run(alias: str, pk: int) -> None:
        connection = connections[alias]
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            cursor.execute(sql, [*params, pk])

    return run


ROW, MESSAGE = "convstate_database_conversation", "convstate_database_message"
IN_DATABASES: dict[str, tuple[Callable[[str, int], Any], list[tuple[str, str]]]] = {
    "a state that makes no sense": (
        execute(f"UPDATE {ROW} SET state = %s WHERE id = %s", b"\x01"),
        [("damaged", ROW)],
    ),
    "a log of commits that makes no sense": (
        execute(f"UPDATE {ROW} SET commits = %s WHERE id = %s", b"\x01"),
        [("damaged", ROW)],
    ),
    "a message that is missing": (
        execute(f"DELETE FROM {MESSAGE} WHERE conversation_id = %s"),
        [("partial", ROW)],
    ),
    "a message too many": (
        execute(f"UPDATE {ROW} SET message_count = 0 WHERE id = %s"),
        [("partial", ROW)],
    ),
    "a message at another place": (
        execute(f"UPDATE {MESSAGE} SET position = 7 WHERE conversation_id = %s"),
        [("partial", ROW)],
    ),
    "a message that makes no sense": (
        execute(f"UPDATE {MESSAGE} SET data = %s WHERE conversation_id = %s", b"\x01"),
        [("damaged", MESSAGE)],
    ),
    "a message with another id": (
        execute(f"UPDATE {MESSAGE} SET message_id = 'x' WHERE conversation_id = %s"),
        [("damaged", MESSAGE)],
    ),
    "no expiry": (
        execute(f"UPDATE {ROW} SET expires_at = NULL WHERE id = %s"),
        [("without_ttl", ROW)],
    ),
}


@on_databases
@pytest.mark.parametrize("damage", IN_DATABASES)
def test_damage_in_a_database_is_found_and_left_alone(kept: str, damage: str) -> None:
    sound, hurt = make("u2"), make("u1")
    assert found() == []
    inflict, expected = IN_DATABASES[damage]
    inflict(kept, Conversation.rows.using(kept).get(key=hurt.id).pk)
    before = rows_of(kept)
    assert [(kind, where.split()[0]) for kind, _, where in found()] == expected
    assert [id for _, id, _ in found()] == [hurt.id]
    assert rows_of(kept) == before
    assert conversations.get(sound.id)["city"] == "Jaipur"


def rows_of(alias: str) -> list[Any]:
    models: tuple[Any, ...] = (Conversation, Message)
    return [list(model._base_manager.using(alias).order_by("pk").values()) for model in models]


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_messages_without_their_conversation_are_found(kept: str) -> None:
    """As in a dump that was restored without its foreign keys."""
    hurt = make("u1")
    make("u2")
    pk = Conversation.rows.using(kept).get(key=hurt.id).pk
    execute(f"DELETE FROM {ROW} WHERE id = %s")(kept, pk)
    assert [(kind, id, where.split()[0]) for kind, id, where in found()] == [
        ("orphaned", "", MESSAGE)
    ]
    Message.objects.using(kept).filter(conversation=pk).delete()


@on_databases
def test_expired_rows_and_tombstones_are_no_damage(kept: str) -> None:
    make("u1")
    conversations.delete(make("u1").id)
    pass_by(86400 + 60)
    make("u1", ttl=float("inf"))
    assert found() == []


@on_databases
def test_rows_in_quarantine_are_listed(kept: str) -> None:
    hurt = make("u1")
    execute(f"UPDATE {ROW} SET state = %s WHERE id = %s", b"\x01")(
        kept, Conversation.rows.using(kept).get(key=hurt.id).pk
    )
    with pytest.raises(ConversationCorrupt):
        conversations.get(hurt.id)
    assert [(kind, id) for kind, id, _ in found()] == [("quarantined", hurt.id)]


@on_databases
def test_more_than_a_page_is_looked_at(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGE", "MESSAGES_PAGE"):
        monkeypatch.setattr(f"django_convstate.backends.database.damage.{name}", 2)
    ids = [make(f"u{number}").id for number in range(5)]
    execute(f"UPDATE {MESSAGE} SET message_id = 'x' WHERE id > %s")(kept, 0)
    assert sorted(id for _, id, _ in found()) == sorted(ids)
    with pytest.raises(CommandError, match=r"Found 5 damaged; 5 conversations looked at\."):
        run("check_sessions")


def test_all_nodes_of_a_cluster_are_looked_at(settings: Any, cluster: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "cluster", "KEY_PREFIX": PREFIX, "TTL": 86400}
    hurt = [make("u1") for _ in range(12)]
    make("u2")
    assert found() == []
    for each in hurt:
        raw("cluster").delete(key(each.id, "meta"))
    kinds = [kind for kind, *_ in found()]
    assert kinds == ["orphaned"] * 36  # the state, the messages and the entry of the index
    conversations.backend.erase()
    conversations.close()


@pytest.mark.parametrize("kept", ["redis"], indirect=True)
def test_failover_looks_into_its_primary(kept: str, settings: Any) -> None:
    hurt = make("u1")
    assert conversations.backend.can_fall_back is False
    assert type(conversations.backend).__name__ == "FailoverBackend"
    raw().delete(key(hurt.id, "messages"))
    assert [(kind, id) for kind, id, _ in found()] == [("partial", hurt.id)]


def test_a_table_shows_the_first_and_counts_all(
    settings: Any, valkey: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONVERSATION_STATE_BACKEND = "redis"
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis", "KEY_PREFIX": PREFIX}
    hurt = [make("u1") for _ in range(3)]
    for each in hurt:
        raw().delete(key(each.id, "messages"))
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"Found 3 partial; 3 conversations looked at\."):
        call_command("check_sessions", "--limit=1", stdout=out)
    shown = out.getvalue()
    assert sum(each.id in shown for each in hurt) == 1
    assert sum(hashed_id(each.id) in shown for each in hurt) == 1
    assert "The first 1 of 3; --limit shows more." in shown
    conversations.backend.erase()
    conversations.close()


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [
        ("locmem", "locmem lives inside each server process: nothing to check from here."),
        ("cache", "The cache backend cannot list conversations, so it finds none to check."),
    ],
)
def test_where_it_cannot_look_it_says_so(settings: Any, backend: str, sentence: str) -> None:
    settings.CONVERSATION_STATE_BACKEND = backend
    with pytest.raises(CommandError) as error:
        run("check_sessions")
    assert (str(error.value), error.value.returncode) == (sentence, 1)


def test_a_backend_that_does_not_look_says_so(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedBackend, "find_damage", ConversationStateBackend.find_damage)
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    with pytest.raises(CommandError, match=r"^The shared backend cannot look for damage\.$"):
        run("check_sessions")
