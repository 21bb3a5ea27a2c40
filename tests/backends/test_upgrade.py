"""Conversations that version 0.1 has stored: they are read as they are, and written on."""

import asyncio
import json
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from django.core.cache import caches

from django_convstate import (
    ConversationCorrupt,
    ConversationStore,
    ConversationTooLarge,
    MessageNotFound,
)
from django_convstate.backends.base import ConversationStateBackend, Diverged, Replacement
from django_convstate.backends.records import Change, Record
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.support.documents import (
    ID,
    IMPOSSIBLE_FIELDS,
    check_corrupt,
    check_corrupt_if_cut_off,
)
from tests.support.messages import bodies, pairs
from tests.support.places import make_place
from tests.support.redis import key_of, raw

TTL: Final = 600.0
CREATED: Final = time.time() - 5000
STATE: Final[dict[str, Any]] = {"city": "Jaipur", "turns": 3, "form": {"name": "Ana", "age": 7}}
MESSAGES: Final[list[dict[str, Any]]] = [
    {"role": "user", "content": f"message {number} é", "timestamp": "2026-10-01T10:00:00+00:00"}
    for number in range(6)
]
# One commit of 0.1: a hash of its id, version, message count, and when the conversation expires.
LOG: Final = struct.pack("<8sIId", b"12345678", 3, 6, CREATED + TTL)


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def in_redis(id: str, prefix: str = "convstate") -> None:
    """Store a conversation as 0.1 did, by plain commands."""
    messages = [encoded(message) for message in MESSAGES]
    meta = {
        "id": id,
        "v": 3,
        "o": "u1",
        "c": round(CREATED * 1000),
        "a": round(time.time() * 1000),
        "t": round(TTL * 1000),
        "x": 0,
        "b": sum(map(len, messages)),
        "l": LOG,
    }
    client = raw()
    state = {key: encoded(value) for key, value in STATE.items()}
    client.hset(key_of(id, "meta", prefix), mapping=meta)
    client.hset(key_of(id, "state", prefix), mapping=state)
    client.rpush(key_of(id, "messages", prefix), *messages)
    for part in ("meta", "state", "messages"):
        client.pexpire(key_of(id, part, prefix), round(TTL * 1000))


def document_of(id: str) -> dict[str, Any]:
    return {
        "convstate": 1,
        "id": id,
        "version": 3,
        "owner": "u1",
        "created_at": CREATED,
        "last_accessed": time.time(),
        "ttl": TTL,
        "commits": LOG.hex(),
        "state": STATE,
        "messages": MESSAGES,
    }


def in_a_cache(alias: str, id: str) -> None:
    caches[alias].set(f"convstate:doc:{id}", encoded(document_of(id)), TTL)


@pytest.fixture(
    params=[
        "standalone",
        "default",
        "file",
        pytest.param("database", marks=pytest.mark.django_db(transaction=True)),
        "django_redis",
    ]
)
def old(request: pytest.FixtureRequest) -> Iterator[tuple[ConversationStateBackend, str]]:
    """A backend, and the id of a conversation that 0.1 has stored in it."""
    place: str = request.param
    if place in ("standalone", "django_redis"):
        request.getfixturevalue("valkey")
    backend, id = make_place(place), new_id()
    if place == "standalone":
        in_redis(id)
    else:
        in_a_cache(place, id)
    yield backend, id
    backend.close()


Old = tuple[ConversationStateBackend, str]


def loaded(backend: ConversationStateBackend, id: str, window: int = 100) -> Record:
    record = backend.load(id, window)
    assert record is not None
    return record


def contents(record: Record) -> list[Any]:
    return [json.loads(body)["content"] for body in bodies(record.messages)]


def test_it_is_read_as_it_is(old: Old) -> None:
    backend, id = old
    record = loaded(backend, id, 4)
    assert (record.version, record.owner, record.ttl) == (3, "u1", TTL)
    assert record.created_at == pytest.approx(CREATED, abs=0.002)
    assert record.expires_at == pytest.approx(time.time() + TTL, abs=5)
    assert {key: json.loads(value) for key, value in record.state.items()} == STATE
    assert (record.message_count, record.dropped) == (6, 0)
    assert [message_id for message_id, _ in record.messages] == ["#2", "#3", "#4", "#5"]
    assert [json.loads(body) for body in bodies(record.messages)] == MESSAGES[2:]
    assert record.first is not None
    assert record.first[0] == "#0"
    page = backend.read_messages(id, 1, 3)
    assert [(each, json.loads(body)) for each, body in page] == [
        ("#1", MESSAGES[1]),
        ("#2", MESSAGES[2]),
    ]
    found = backend.find(id, "#1")
    assert found is not None
    assert (found[0], json.loads(found[1])) == (1, MESSAGES[1])
    for wrong in ("#6", "#-1", "#", "1", "0" * 20):
        assert backend.find(id, wrong) is None
    if backend.can_scan:
        (summary,) = [each for each in backend.scan() if each.id == id]
        assert (summary.version, summary.message_count, summary.owner) == (3, 6, "u1")


def test_reading_changes_nothing_but_the_expiry(old: Old) -> None:
    backend, id = old
    first = loaded(backend, id)
    second = loaded(backend, id)
    assert (first.version, first.state, list(first.messages)) == (
        second.version,
        second.state,
        list(second.messages),
    )


def test_users_read_update_and_redact_its_messages(old: Old) -> None:
    backend, id = old
    store = ConversationStore(backend, window=3)
    conversation = store.get(id, owner="u1")
    assert conversation["city"] == "Jaipur"
    assert [message.id for message in conversation.messages.all()] == [f"#{n}" for n in range(6)]
    assert dict(conversation.messages[0]) == MESSAGES[0]
    conversation.messages.update("#4", content="changed")
    conversation.messages.redact("#1")  # which the window does not reach
    with pytest.raises(MessageNotFound):
        conversation.messages.update("#6", content="changed")
    conversation["form"]["age"] = 8
    conversation.incr("turns")
    mine = conversation.messages.append("user", "new")
    conversation.save()

    again = store.get(id)
    assert again["form"] == {"name": "Ana", "age": 8}
    assert again["turns"] == 4
    messages = again.messages.all()
    assert [message.id for message in messages] == [*(f"#{n}" for n in range(6)), mine]
    assert messages[4]["content"] == "changed"
    assert messages[4]["role"] == "user"
    assert messages[1]["redacted"] is True
    assert "content" not in messages[1]
    assert [dict(messages[at]) for at in (0, 2, 3, 5)] == [MESSAGES[at] for at in (0, 2, 3, 5)]
    assert again.messages.find("#4")["content"] == "changed"
    assert again.messages.find(mine)["content"] == "new"
    # A second change of the same message, which is no element of 0.1 any more.
    again.messages.update("#4", content="again")
    again.save()
    assert store.get(id).messages.find("#4")["content"] == "again"


def test_a_change_from_stale_bytes_is_refused(old: Old) -> None:
    backend, id = old
    (_, stored) = backend.find(id, "#2") or (0, b"")
    backend.commit(id, Change(replace=[Replacement(id="#2", old=stored, new=b'{"by":"them"}')]))
    with pytest.raises(Diverged) as caught:
        backend.commit(id, Change(replace=[Replacement(id="#2", old=stored, new=b'{"by":"us"}')]))
    assert caught.value.messages == {"#2": b'{"by":"them"}'}
    with pytest.raises(Diverged) as caught:
        backend.commit(id, Change(replace=[Replacement(id="#9", old=None, new=b"{}")]))
    assert caught.value.messages == {"#9": None}


def test_it_is_appended_to(old: Old) -> None:
    backend, id = old
    change = Change(
        append=pairs(b'{"content":"a"}', b'{"content":"b"}'), window=3, seen=(6, b"\0" * 10)
    )
    committed = backend.commit(id, change)
    assert (committed.version, committed.message_count) == (4, 8)
    assert list(committed.others) == []
    assert backend.commit(id, change).repeated
    named = Change(append=[("theirs", b'{"content":"c"}')], once=["theirs"])
    assert list(backend.commit(id, named).existing) == []
    again = Change(
        append=[("theirs", b'{"content":"c"}'), *pairs(b'{"content":"d"}')], once=["theirs"]
    )
    assert list(backend.commit(id, again).existing) == ["theirs"]
    record = loaded(backend, id)
    assert [each for each, _ in record.messages][:6] == [f"#{n}" for n in range(6)]
    assert contents(record)[6:] == ["a", "b", "c", "d"]
    assert contents(record)[:6] == [message["content"] for message in MESSAGES]
    assert (backend.find(id, "theirs") or (0,))[0] == 8
    assert (backend.find(id, change.append[1][0]) or (0,))[0] == 7


def test_it_is_truncated(old: Old) -> None:
    backend, id = old
    assert backend.commit(id, Change(keep_messages=2)).message_count == 2
    assert backend.find(id, "#2") is None
    backend.commit(id, Change(keep_messages=1, append=pairs(b'{"content":"new"}')))
    record = loaded(backend, id)
    assert contents(record) == [MESSAGES[0]["content"], "new"]
    backend.commit(id, Change(keep_messages=0))
    assert loaded(backend, id).message_count == 0


def test_its_oldest_messages_are_dropped_and_ids_stay(old: Old) -> None:
    backend, id = old
    change = Change(append=pairs(b'{"content":"new"}'), max_messages=4, drop_oldest=True)
    committed = backend.commit(id, change)
    assert (committed.message_count, committed.dropped) == (4, 3)
    record = loaded(backend, id)
    assert [each for each, _ in record.messages][:3] == ["#3", "#4", "#5"]
    assert (backend.find(id, "#3") or (0,))[0] == 3
    assert backend.find(id, "#2") is None
    (_, stored) = backend.find(id, "#5") or (0, b"")
    backend.commit(id, Change(replace=[Replacement(id="#5", old=stored, new=b'{"content":"x"}')]))
    assert contents(loaded(backend, id)) == ["message 3 é", "message 4 é", "x", "new"]


def test_it_is_renamed(old: Old) -> None:
    backend, id = old
    beside = backend.id_beside(id)
    assert backend.rename(id, beside, 3)
    assert not backend.exists(id)
    record = loaded(backend, beside)
    assert (record.version, record.owner, record.message_count) == (3, "u1", 6)
    assert {key: json.loads(value) for key, value in record.state.items()} == STATE
    assert [each for each, _ in record.messages] == [f"#{n}" for n in range(6)]
    assert record.created_at == pytest.approx(CREATED, abs=0.002)
    backend.commit(beside, Change(append=pairs(b'{"content":"new"}')))
    assert loaded(backend, beside).message_count == 7


def test_it_is_copied_by_restore(old: Old) -> None:
    backend, id = old
    record, copy = loaded(backend, id), new_id()
    backend.restore(copy, record, record.messages)
    restored = loaded(backend, copy)
    assert restored.state == record.state
    assert list(restored.messages) == list(record.messages)
    assert (restored.version, restored.created_at) == (record.version, record.created_at)


def test_it_is_deleted_and_stays_so(old: Old) -> None:
    backend, id = old
    assert backend.delete(id, 3)
    assert backend.load(id, 5) is None


def test_its_limits_hold(old: Old) -> None:
    backend, id = old
    size = sum(len(key.encode()) + len(encoded(value)) for key, value in STATE.items())
    room = Change(set={"k": b'"' + b"x" * 97 + b'"'}, max_state_bytes=size + 100)
    backend.commit(id, room)
    with pytest.raises(ConversationTooLarge, match="MAX_STATE_BYTES"):
        backend.commit(id, Change(set={"l": b"1"}, max_state_bytes=size + 100))
    with pytest.raises(ConversationTooLarge, match="MAX_MESSAGES"):
        backend.commit(id, Change(append=pairs(b"{}"), max_messages=6))


@pytest.mark.usefixtures("valkey")
class TestInRedis:
    @pytest.fixture
    def backend(self) -> Iterator[RedisBackend]:
        backend = RedisBackend(cache_alias="django_redis")
        yield backend
        backend.close()

    @pytest.mark.parametrize(
        "use",
        [
            lambda backend, id: backend.load(id, 5),
            lambda backend, id: backend.peek(id, 5),
            lambda backend, id: backend.touch(id),
            lambda backend, id: backend.commit(id, Change(set={"city": b'"Agra"'})),
            lambda backend, id: backend.commit(id, Change(append=pairs(b"{}"))),
            lambda backend, id: backend.commit(id, Change(append=[("theirs", b"{}")])),
            lambda backend, id: backend.commit(id, Change(keep_messages=3)),
            lambda backend, id: asyncio.run(acommit(backend, id)),
        ],
    )
    def test_every_key_keeps_a_ttl(
        self, backend: RedisBackend, use: Callable[[RedisBackend, str], object]
    ) -> None:
        id = new_id()
        in_redis(id)
        use(backend, id)
        keys = raw().keys(f"*{id}*")
        assert len(keys) >= 3
        assert all(TTL * 500 < raw().pttl(key) <= TTL * 1100 + 500 for key in keys)
        meta = raw().pexpiretime(key_of(id, "meta"))
        assert all(raw().pexpiretime(key) >= meta for key in keys), "no part is gone first"

    def test_a_commit_removes_the_log_and_the_size_of_0_1(self, backend: RedisBackend) -> None:
        id = new_id()
        in_redis(id)
        backend.load(id, 5)
        assert raw().hexists(key_of(id, "meta"), "l"), "what only reads, rewrites nothing"
        backend.commit(id, Change(set={"city": b'"Agra"'}))
        assert not {b"l", b"b"} & set(raw().hkeys(key_of(id, "meta")))
        record = loaded(backend, id)
        assert (record.version, record.message_count) == (4, 6)
        size = sum(len(encoded(message)) for message in MESSAGES)
        state = sum(len(key.encode()) + len(value) for key, value in record.state.items())
        (summary,) = [each for each in backend.scan("u1") if each.id == id]
        assert summary.size == size + state

    def test_a_large_old_state_can_still_be_made_smaller(self, backend: RedisBackend) -> None:
        id = new_id()
        in_redis(id)
        backend.commit(id, Change(set={"city": b'"A"'}, max_state_bytes=10))
        assert loaded(backend, id).state["city"] == b'"A"'

    def test_damage_is_quarantined(self, backend: RedisBackend) -> None:
        id = new_id()
        in_redis(id)
        raw().hset(key_of(id, "meta"), "t", "text")
        with pytest.raises(ConversationCorrupt):
            backend.load(id, 5)
        assert backend.load(id, 5) is None


async def acommit(backend: RedisBackend, id: str) -> None:
    await backend.acommit(id, Change(append=pairs(b"{}")))
    await backend.aclose()


class TestInACache:
    @pytest.mark.parametrize(("field", "value"), IMPOSSIBLE_FIELDS)
    def test_a_field_with_an_impossible_value_is_corrupt(self, field: str, value: Any) -> None:
        check_corrupt(encoded(document_of(ID) | {field: value}))

    def test_a_document_cut_off_at_any_byte_is_corrupt(self) -> None:
        check_corrupt_if_cut_off(encoded(document_of(ID)))

    def test_a_commit_keeps_the_ttl(self, valkey: None) -> None:
        backend, id = make_place("django_redis"), new_id()
        in_a_cache("django_redis", id)
        backend.commit(id, Change(append=pairs(b"{}")))
        cache: Any = caches["django_redis"]
        assert TTL / 2 < cache.ttl(f"convstate:doc:{id}") <= TTL
        assert cache.get(f"convstate:doc:{id}").startswith(b"CVS2"), "it is of this format now"
