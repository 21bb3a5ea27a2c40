"""Any one field of what is stored may be damaged: an operation finds that out, or works. It raises
no other error, it is no outage, and others are listed nevertheless."""

import asyncio
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from django_convstate import ConversationStore
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create, Diverged, Record, Replacement
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.operations import Operations
from django_convstate.backends.reports import Selection
from django_convstate.exceptions import (
    BackendUnavailable,
    ConversationConflict,
    ConversationCorrupt,
    ConversationError,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationTooLarge,
    InvalidConversationType,
    InvalidConversationValue,
)
from django_convstate.ids import new_id
from tests.support.messages import pairs
from tests.support.redis import raw

pytestmark = pytest.mark.usefixtures("valkey")

OWNER = "owner-1"
LEASE = "a lease"
# What an operation may say of a sound conversation, too, or of a value in it.
ANSWERS = (
    ConversationCorrupt,
    ConversationConflict,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationType,
    InvalidConversationValue,
    Diverged,
)
VALUES = [
    *(b"", b"\xff\xfe", b"-1", b"0", b"1", b"1e400", b"nan", b"inf", b"0x10", b" 5", b"text"),
    *(b"9" * 15, b"9" * 400, bytes(50), b"\xff" * 50, bytes(49), b"\xff" * 30, b"{", b"{}"),
    *(b"\xed\xa0\x80", bytes(10) + b"\x03\xed\xa0\x80{}"),  # half a pair, which is no UTF-8
    *(bytes(11), b"\xff" * 11, bytes(10) + b"\xff" + b"a", bytes(10) + b"\x02\xff\xfe{}"),
    None,  # it is missing
]
FIELDS = ["id", "v", "o", "c", "a", "t", "p", "w", "x", "e", "i", "h"]

Damage = Callable[[Any, tuple[str, ...], str, str], None]  # of the client, the keys, queue, index


def field(name: str, value: bytes | None) -> Damage:
    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        if value is None:
            client.hdel(keys[0], name)
        else:
            client.hset(keys[0], name, value)

    return damage


def packed(name: str, at: int, value: bytes) -> Damage:
    """Change some bytes within a field."""

    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        data = client.hget(keys[0], name)
        client.hset(keys[0], name, data[:at] + value + data[at + len(value) :])

    return damage


def element(at: int, value: bytes | None) -> Damage:
    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        if value is None:
            client.ltrim(keys[2], 1, -1)
        else:
            client.lset(keys[2], at, value)

    return damage


def entry(part: int, value: bytes | None) -> Damage:
    """Change the value of the first entry of a hash: of the state, or of the ids."""

    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        (name, *_) = client.hkeys(keys[part])
        if value is None:
            client.hdel(keys[part], name)
        else:
            client.hset(keys[part], name, value)

    return damage


def renamed_entry(part: int, value: bytes) -> Damage:
    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        (name, *_) = client.hkeys(keys[part])
        client.hset(keys[part], value, client.hget(keys[part], name))
        client.hdel(keys[part], name)

    return damage


def other_type(part: int, kind: str) -> Damage:
    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        key = [*keys, queue, index, f"{index}:saved"][part]
        client.delete(key)
        put(client, key, kind)

    return damage


def put(client: Any, key: str, kind: str) -> None:
    match kind:
        case "string":
            client.set(key, b"text")
        case "hash":
            client.hset(key, "a", "b")
        case "list":
            client.rpush(key, "a")
        case "set":
            client.sadd(key, "a")
        case "zset":
            client.zadd(key, {"a": 1})
        case "stream":
            client.xadd(key, {"a": "b"})


def in_queue(value: bytes) -> Damage:
    return lambda client, keys, queue, index: client.set(queue, value)


def in_index(member: bytes, score: float) -> Damage:
    return lambda client, keys, queue, index: client.zadd(index, {member: score})


def in_saved(member: bytes, score: float) -> Damage:
    return lambda client, keys, queue, index: client.zadd(f"{index}:saved", {member: score})


def tombstone(value: bytes | None) -> Damage:
    def damage(client: Any, keys: tuple[str, ...], queue: str, index: str) -> None:
        client.delete(*keys)
        if value is None:
            client.hset(keys[0], "other", "field")
        else:
            client.hset(keys[0], "gone", value)

    return damage


KINDS = ["string", "hash", "list", "set", "zset", "stream"]
PACKED = [b"\xff" * 4, bytes(4), b"\x01\0\0\0", b"\xff" * 8, struct.pack("<d", float("nan"))]
DAMAGES: dict[str, Damage] = {
    **{f"meta {n} = {v!r}"[:60]: field(n, v) for n in FIELDS for v in VALUES},
    **{f"p at {at} = {v!r}": packed("p", at, v) for at in range(0, 48, 4) for v in PACKED},
    **{f"w at {at} = {v!r}": packed("w", at, v) for at in range(0, 30, 2) for v in PACKED},
    **{f"message {at} = {v!r}"[:60]: element(at, v) for at in (0, 1, 2) for v in VALUES},
    **{f"state = {v!r}"[:60]: entry(1, v) for v in VALUES},
    **{f"state key {v!r}"[:60]: renamed_entry(1, v) for v in VALUES if v is not None},
    **{f"ids = {v!r}"[:60]: entry(3, v) for v in VALUES},
    **{f"ids key {v!r}"[:60]: renamed_entry(3, v) for v in VALUES if v is not None},
    **{f"type {part} {kind}": other_type(part, kind) for part in range(7) for kind in KINDS},
    **{f"queue {v!r}"[:60]: in_queue(v) for v in VALUES if v is not None},
    **{
        f"queue until {t}": in_queue(struct.pack("<16sd", b"x" * 16, t))
        for t in (float("inf"), float("nan"), 1e300, -1e300, 0.0)
    },
    **{f"index {v!r}"[:60]: in_index(v, 1e300) for v in VALUES if v is not None},
    "index score": in_index(b"other", float("-inf")),
    **{f"saved {v!r}"[:60]: in_saved(v, 1e300) for v in VALUES if v is not None},
    **{f"saved at {t}": in_saved(b"other", t) for t in (float("-inf"), float("inf"), -1e300, 0.5)},
    **{f"gone {v!r}"[:60]: tombstone(v) for v in VALUES},
}


def operations(id: str, message: str) -> dict[str, Callable[[Any], Any]]:
    """Each on a backend, by name. Their twins begin with an a."""
    everything = Change(
        set={"b": b"1"},
        unset=["a"],
        increment={"n": 1},
        append=[("theirs", b"{}"), *pairs(b"{}")],
        once=["theirs"],
        replace=[Replacement(id=message, old=None, new=b"[]")],
        window=10,
        max_state_bytes=10_000,
        max_messages=3,
        drop_oldest=True,
    )
    moments: Any = dict.fromkeys(("created_at", "modified_at", "last_accessed"), time.time())
    record = Record(
        id=id,
        version=1,
        owner=None,
        ttl=60.0,
        expires_at=time.time() + 60,
        state={},
        messages=[],
        message_count=1,
        **moments,
    )
    return {
        "load": lambda b: b.load(id, 2),
        "aload": lambda b: b.aload(id, 2),
        "peek": lambda b: b.peek(id, 10),
        "apeek": lambda b: b.apeek(id, 10),
        "commit": lambda b: b.commit(id, Change(append=pairs(b"{}"), owner=OWNER)),
        "acommit": lambda b: b.acommit(id, Change(append=pairs(b"{}"), visitor="v")),
        "everything": lambda b: b.commit(id, everything),
        "truncation": lambda b: b.commit(id, Change(keep_messages=1, window=10)),
        "existing": lambda b: b.commit(id, Change(create=Create.MUST_EXIST, set={"a": b"2"})),
        "find": lambda b: b.find(id, message),
        "afind": lambda b: b.afind(id, "theirs"),
        "find by position": lambda b: b.find(id, "#0"),
        "read_messages": lambda b: list(b.read_messages(id, 0, 100)),
        "aread_messages": lambda b: b.aread_messages(id, 1, 100),
        "exists": lambda b: b.exists(id),
        "touch": lambda b: b.touch(id),
        "atouch": lambda b: b.atouch(id, 100.0),
        "rename": lambda b: b.rename(id, b.id_beside(id)),
        "arename": lambda b: b.arename(id, b.id_beside(id), 1),
        "restore": lambda b: b.restore(id, record, pairs(b"{}"), unless_deleted=True),
        "acquire": lambda b: b.acquire(id, LEASE, 5.0, 2),
        "aacquire": lambda b: b.aacquire(id, LEASE, 5.0, 2),
        "renew": lambda b: b.renew(id, LEASE, 5.0),
        "arenew": lambda b: b.arenew(id, LEASE, 5.0),
        "in turn": lambda b: b.commit(id, Change(lease=LEASE, release=True, set={"a": b"1"})),
        "release": lambda b: b.release(id, LEASE),
        "arelease": lambda b: b.arelease(id, LEASE),
        "purge of the owner": lambda b: b.purge(Selection(owner=OWNER, idle_for=1e6)),
        "purge": lambda b: b.purge(Selection(idle_for=1e6), dry_run=True),
        "delete": lambda b: b.delete(id),
        "adelete": lambda b: b.adelete(id, 1),
    }


class Bench:
    """A prefix of its own, with one sound conversation and one that is damaged anew each time."""

    def __init__(self) -> None:
        prefix = f"fuzz-{os.getpid()}-{random.getrandbits(40)}"
        self.primary = RedisBackend(cache_alias="django_redis", key_prefix=prefix)
        self.failover = FailoverBackend(self.primary, LocMemBackend())
        self.client = raw()
        self.ops = Operations(prefix, None)
        self.sound = new_id()
        self.primary.commit(self.sound, Change(owner=OWNER, set={"a": b"1"}, append=pairs(b"{}")))

    def damaged(self, damage: Damage) -> tuple[str, str]:
        """Return the ids of a conversation and of a message in it."""
        id, message = new_id(), f"m{random.getrandbits(40)}"
        change = Change(
            owner=OWNER,
            set={"a": b"1", "n": b"5"},
            append=[*pairs(b'{"role":"user"}'), (message, b"{}"), ("theirs", b"{}")],
        )
        self.primary.commit(id, change)
        self.primary.acquire(id, LEASE, 5.0, 1)
        damage(
            self.client, self.ops.keys(id), self.ops.queue_key(id), self.ops.index.keys(OWNER)[0]
        )
        return id, message

    def clean(self, id: str) -> None:
        self.client.delete(*self.ops.keys(id), self.ops.queue_key(id), *self.ops.index.keys(OWNER))

    def check_listing(self, name: str) -> None:
        """The sound one is listed, whatever is wrong with the others."""
        of_all = {summary.id for summary in self.primary.scan(limit=10**6, keys=["a", "n"])}
        assert self.sound in of_all, name
        with suppress(ConversationCorrupt):
            list(self.primary.scan(OWNER, keys=["a"], limit=3))

    def close(self) -> None:
        self.failover.close()
        with suppress(BackendUnavailable):
            self.primary.purge(Selection(everything=True))
        for key in self.client.scan_iter(f"{self.ops.prefix}:*", count=1000):
            self.client.delete(key)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def use(backend: ConversationStateBackend, use_it: Callable[[Any], Any], name: str) -> bool:
    """Do it, read all that it answers, and tell whether damage was found."""
    try:
        answer = use_it(backend)
        if asyncio.iscoroutine(answer):
            answer = run(backend, answer)
        if isinstance(answer, Record):
            list(answer.messages)
    except ANSWERS as error:
        return isinstance(error, ConversationCorrupt)
    except (ConversationError, Exception) as error:
        raise AssertionError(f"{name}: {error!r} {error.__cause__!r}") from error
    return False


def run(backend: Any, answer: Any) -> Any:
    async def visit() -> Any:
        try:
            return await answer
        finally:
            await getattr(backend, "primary", backend)._clients.aclose()

    return asyncio.run(visit())


# Each part is an eighth of all damages, of every kind some.
PARTS = [0, 1, *(pytest.param(part, marks=pytest.mark.slow) for part in range(2, 8))]


@pytest.mark.parametrize("part", PARTS)
def test_damage_is_found_or_harmless(bench: Bench, part: int) -> None:
    wrong = []
    for name, damage in list(DAMAGES.items())[part::8]:
        for number, operation in enumerate(operations("", "")):
            # Twins share their script and their reader: of each pair one is taken, in turn.
            if operation.startswith("a") and operation != "acquire" and (hash(name) + number) % 4:
                continue
            id, message = bench.damaged(damage)
            for backend in (bench.primary, bench.failover):
                what = f"{name}: {operation} ({backend.__class__.__name__})"
                try:
                    if use(backend, operations(id, message)[operation], what):
                        again = use(backend, operations(id, message)[operation], what)
                        assert not again, f"{what}: not quarantined"
                except AssertionError as error:
                    wrong.append(str(error))
            bench.clean(id)
    assert not wrong, "\n".join(wrong)
    assert not bench.failover.health().using_fallback, "an outage"


@pytest.mark.parametrize("part", range(4))
def test_damage_is_in_the_way_of_no_listing(bench: Bench, part: int) -> None:
    for name, damage in list(DAMAGES.items())[part::4]:
        id, _ = bench.damaged(damage)
        bench.check_listing(name)
        bench.clean(id)


def test_a_conversation_with_damage_is_read_or_corrupt(bench: Bench) -> None:
    store = ConversationStore(bench.failover)
    for name, damage in DAMAGES.items():
        id, _ = bench.damaged(damage)
        with suppress(ConversationCorrupt, ConversationNotFound, InvalidConversationValue):
            conversation = store.get(id)
            conversation.messages.for_llm(10)
            dict(conversation)
        assert store.health().connected, name
        bench.clean(id)
