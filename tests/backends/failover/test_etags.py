"""What this process has seen in Redis is sent once, and never taken for what is stored if it is
not."""

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationCorrupt, ConversationStore
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Acquired, Change, Committed, Record, Replacement
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.toolkit.writer import Writer, lone_commit
from django_convstate.ids import new_id
from tests.support.messages import pairs
from tests.support.places import on
from tests.support.redis import commands_of, key_of, raw
from tests.support.servers import AT_ONCE, Server, free_ports, running, wait_until

pytestmark = pytest.mark.usefixtures("valkey")

WINDOW = 5
CONTENTS = (
    *("id", "version", "owner", "created_at", "modified_at", "ttl", "state", "messages"),
    *("message_count", "dropped", "first", "last_key", "etag", "degraded"),
)


def process(primary: RedisBackend | None = None) -> FailoverBackend:
    """Return what a process has: its connections, and its memory."""
    primary = primary or RedisBackend(cache_alias="django_redis")
    return FailoverBackend(primary, LocMemBackend(max_conversations=10**6))


@pytest.fixture
def backend() -> Iterator[FailoverBackend]:
    backend = process()
    yield backend
    backend.close()


@pytest.fixture
def others() -> Iterator[RedisBackend]:
    """Another process, which loads all each time."""
    others = RedisBackend(cache_alias="django_redis")
    yield others
    others.close()


def is_sent(use: Callable[[], object]) -> bool:
    """Tell whether the server reads messages while `use` runs."""
    _, called = commands_of(use)
    return any(name == "LRANGE" for name, *_ in called)


def assert_same(loaded: Record | None, peeked: Record | None) -> None:
    """Check that both are what is stored, and that the times are right."""
    assert (loaded is None) == (peeked is None)
    if loaded is None or peeked is None:
        return
    for name in CONTENTS:
        assert getattr(loaded, name) == getattr(peeked, name), name
    assert loaded.last_accessed == peeked.last_accessed
    assert loaded.expires_at == pytest.approx(peeked.expires_at, abs=0.005)


def assert_exact(backend: FailoverBackend, id: str, window: int = WINDOW) -> None:
    """Check that a load returns what one returns that sends all."""
    loaded = backend.load(id, window)
    assert_same(loaded, backend.primary.peek(id, window))


def begin(backend: FailoverBackend, count: int = 3, **change: Any) -> str:
    """Begin a conversation that the process has loaded and need not load again."""
    id, bodies = new_id(), [b'{"n":%d}' % number for number in range(count)]
    first: dict[str, Any] = {"ttl": 600.0, "append": pairs(*bodies), "set": {"k": b"1"}}
    backend.commit(id, Change(**first | change))
    assert not is_sent(lambda: backend.load(id, WINDOW))
    return id


def received(use: Callable[[], object]) -> int:
    """Return how many bytes the server sends while `use` runs."""
    client = raw()

    def sent() -> int:
        return int(client.info("stats")["total_net_output_bytes"])

    sent()
    first, second = sent(), sent()
    use()
    return sent() - second - (second - first)


def say(number: int) -> Change:
    texts = (b'{"role":"user","text":"%200d"}', b'{"role":"assistant","text":"%200d"}')
    return Change(set={"step": b"%d" % number}, append=pairs(*(text % number for text in texts)))


class TestBytes:
    def test_a_turn_of_a_conversation_that_was_served_here_last(
        self, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend)
        conversation = store.create()
        for number in range(10):
            conversation["step"] = number
            conversation.messages.append("user", "x" * 200)
            conversation.messages.append("assistant", "y" * 200)
        conversation.save()
        id = conversation.id

        def turn() -> None:
            conversation = store.get(id)
            conversation["step"] = 11
            conversation.messages.append("user", "x" * 200)
            conversation.messages.append("assistant", "y" * 200)
            conversation.save()

        turn()
        assert 0 < received(turn) <= 300

    def test_of_one_with_a_lease(self, backend: FailoverBackend) -> None:
        id = begin(backend, 20)
        with_lease = say(1)
        with_lease.lease, with_lease.release = "lease", True

        def turn() -> None:
            assert backend.acquire(id, "lease", 5.0, WINDOW).record is not None
            backend.commit(id, with_lease)

        assert 0 < received(turn) <= 300

    def test_by_the_twins(self, backend: FailoverBackend) -> None:
        id = begin(backend, 20)

        async def turn() -> None:
            await backend.aload(id, WINDOW)
            await backend.acommit(id, say(1))
            await backend.aacquire(id, "lease", 5.0, WINDOW)
            await backend.aclose()

        asyncio.run(turn())
        assert not is_sent(lambda: asyncio.run(turn()))
        assert_exact(backend, id)


Tamper = Callable[[RedisBackend, str], object]


def restore(others: RedisBackend, id: str) -> None:
    record = others.peek(id, 100)
    assert record is not None
    bodies = [b'{"restored":%d}' % number for number in range(record.message_count)]
    others.restore(id, record, pairs(*bodies), replaces=record.version)


def begin_anew(others: RedisBackend, id: str) -> None:
    others.delete(id)
    others.commit(id, Change(set={"k": b"1"}, ttl=600.0, append=pairs(b"a", b"b", b"c")))


def update(others: RedisBackend, id: str) -> None:
    [*_, (message_id, _)] = others.read_messages(id, 0, 3)
    others.commit(id, Change(replace=[Replacement(id=message_id, old=None, new=b'{"new":1}')]))


def rename_away_and_back(others: RedisBackend, id: str) -> None:
    other_id = new_id()
    assert others.rename(id, other_id)
    others.delete(id)
    others.commit(other_id, Change(set={"moved": b"1"}))
    assert others.rename(other_id, id)


BY_OTHERS: dict[str, Tamper] = {
    "says something": lambda others, id: others.commit(id, Change(append=pairs(b"{}"))),
    "sets a value": lambda others, id: others.commit(id, Change(set={"k": b"2"})),
    "claims it": lambda others, id: others.commit(id, Change(owner="u1")),
    "counts": lambda others, id: others.commit(id, Change(increment={"k": 1})),
    "commits nothing": lambda others, id: others.commit(id, Change()),
    "deletes it": lambda others, id: others.delete(id),
    "begins it anew": begin_anew,
    "restores another": restore,
    "updates a message": update,
    "renames it": lambda others, id: others.rename(id, new_id()),
    "renames it away and back": rename_away_and_back,
    "touches it": lambda others, id: others.touch(id),
    "touches it for longer": lambda others, id: others.touch(id, 1234.0),
    "has it never expire": lambda others, id: others.touch(id, math.inf),
    "truncates it": lambda others, id: others.commit(id, Change(keep_messages=1)),
    "drops the oldest": lambda others, id: others.commit(
        id, Change(append=pairs(b"{}"), max_messages=3, drop_oldest=True)
    ),
}


class TestWhatOthersDo:
    @pytest.mark.parametrize("tamper", BY_OTHERS.values(), ids=BY_OTHERS)
    def test_is_seen(self, backend: FailoverBackend, others: RedisBackend, tamper: Tamper) -> None:
        id = begin(backend)
        tamper(others, id)
        assert_exact(backend, id)
        assert_exact(backend, id)

    @pytest.mark.parametrize("tamper", BY_OTHERS.values(), ids=BY_OTHERS)
    def test_is_seen_with_a_commit_behind_it(
        self, backend: FailoverBackend, others: RedisBackend, tamper: Tamper
    ) -> None:
        id = begin(backend)
        tamper(others, id)
        backend.commit(id, Change(set={"mine": b"1"}, ttl=600.0, append=pairs(b"{}")))
        assert_exact(backend, id)

    @pytest.mark.parametrize("tamper", BY_OTHERS.values(), ids=BY_OTHERS)
    def test_is_seen_by_a_turn(
        self, backend: FailoverBackend, others: RedisBackend, tamper: Tamper
    ) -> None:
        id = begin(backend)
        tamper(others, id)
        acquired = backend.acquire(id, "lease", 5.0, WINDOW)
        assert_same(acquired.record, others.peek(id, WINDOW))

    @pytest.mark.parametrize("part", ["state", "messages", "ids", "meta"])
    @pytest.mark.parametrize("lease", [None, "lease"])
    def test_an_evicted_part_is_missed(
        self, backend: FailoverBackend, part: str, lease: str | None
    ) -> None:
        id = begin(backend, append=[("theirs", b"{}")])
        raw().delete(key_of(id, part))

        def load() -> Record | None:
            if lease is None:
                return backend.load(id, WINDOW)
            return backend.acquire(id, lease, 5.0, WINDOW).record

        if part == "meta":
            assert load() is None
        else:
            with pytest.raises(ConversationCorrupt, match="missing"):
                load()
        assert load() is None, "it is not served from memory"

    def test_what_has_no_etag_yet_is_sent_until_it_has_one(self, backend: FailoverBackend) -> None:
        """As a former version has stored it."""
        id = begin(backend)
        raw().hdel(key_of(id, "meta"), "h")
        for _ in range(2):
            assert is_sent(lambda: backend.load(id, WINDOW))
        backend.commit(id, say(1))
        assert is_sent(lambda: backend.load(id, WINDOW))
        backend.commit(id, say(2))
        assert not is_sent(lambda: backend.load(id, WINDOW))
        assert_exact(backend, id)

    def test_what_was_changed_by_hand_is_sent_if_its_chain_is_dropped(
        self, backend: FailoverBackend
    ) -> None:
        id = begin(backend)
        raw().hset(key_of(id, "state"), "k", "7")
        raw().hdel(key_of(id, "meta"), "h")
        assert_exact(backend, id)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A primary and its replica, both in step."""
    ports = free_ports(2)
    primary = Server(tmp_path, ports[0], *AT_ONCE)
    replica = Server(tmp_path, ports[1], *AT_ONCE, "--replicaof", f"127.0.0.1 {ports[0]}")
    with running([primary, replica]):

        def in_step() -> bool:
            with replica.client() as client:
                return bool(client.info("replication").get("master_link_status") == "up")

        wait_until(in_step)
        yield primary, replica


@pytest.mark.parametrize("is_retried", [False, True])
@pytest.mark.parametrize("by_others", [False, True])
def test_a_replica_that_was_promoted_without_the_last_commits(
    settings: Any, pair: tuple[Server, Server], is_retried: bool, by_others: bool
) -> None:
    """There other commits have the versions of those that are lost, and as many messages."""
    primary, replica = pair
    old = on(settings, f"redis://127.0.0.1:{primary.port}")
    backend = process(old)
    id = new_id()
    backend.commit(id, say(0))
    with primary.client() as client:
        client.set("marker", 1)
        assert client.wait(1, 5000) == 1
    with replica.client() as client:
        client.replicaof("NO", "ONE")
    lost = say(1)
    backend.commit(id, lost)
    version = backend.load(id, WINDOW).version  # type: ignore[union-attr]
    backend.primary = new = on(settings, f"redis://127.0.0.1:{replica.port}")
    if by_others:
        (other := process(new)).commit(id, say(2))
        other.close()
    if is_retried:
        backend.commit(id, lost)
    if not (by_others or is_retried):
        backend.commit(id, say(3))
    assert_exact(backend, id)
    record = backend.load(id, WINDOW)
    assert record is not None
    assert record.version == version + (by_others and is_retried)
    backend.close()
    old.close()


class LosesAnswers(RedisBackend):
    """Has each commit applied twice, as where an answer was lost; the first time, others commit
    in between."""

    meanwhile: Callable[[], object] | None = None

    def commit(self, id: str, change: Change) -> Committed:
        super().commit(id, change)
        if self.meanwhile:
            self.meanwhile()
        return super().commit(id, change)


class Away(RedisBackend):
    """Cannot be reached while it is `away`."""

    away = False

    def commit(self, id: str, change: Change) -> Committed:
        if self.away:
            raise BackendUnavailable("It is away.")
        return super().commit(id, change)

    def peek(self, id: str, window: int) -> Record | None:
        if self.away:
            raise BackendUnavailable("It is away.")
        return super().peek(id, window)


THERE = "00000000000000000001"  # an id that can be no key any more


# What is certain after it, and need not be sent, and what is.
PLAIN: dict[str, Change] = {
    "nothing": Change(),
    "values": Change(set={"k": b"2", "l": b"{}"}),
    "a value less": Change(unset=["k", "missing"]),
    "counters": Change(increment={"k": 4, "new": -2}),
    "counters of what is set": Change(set={"k": b"7"}, increment={"k": 4}),
    "counters of what is dropped": Change(unset=["k"], increment={"k": 4}),
    "a value set and dropped": Change(set={"k": b"7"}, unset=["k"]),
    "an owner": Change(owner="u1"),
    "a ttl": Change(ttl=1234.5),
    "no end": Change(ttl=math.inf),
    "messages": Change(append=pairs(b"{}", b"[]")),
    "many messages": Change(append=pairs(*[b"%d" % number for number in range(200)])),
    "a message with an id of its own": Change(append=[("theirs", b"{}"), ("too", b"{}")]),
    "ids that are not in order": Change(append=pairs(b"1", b"2", b"3")[::-1]),
    "ids before those that are there": Change(append=[(THERE, b"1"), ("1" * 20, b"2")]),
    "an id of next year": Change(append=[("03" + "f" * 18, b"1"), *pairs(b"2")]),
    "the same id twice": Change(append=[("theirs", b"1"), ("theirs", b"2")]),
    "an id that may be there": Change(append=[("theirs", b"1")], once=["theirs"]),
    "room enough": Change(append=pairs(b"1"), max_messages=100, drop_oldest=True),
    "what it began from": Change(set={"k": b"2"}, expected={"k": b"1"}),
}
SELDOM: dict[str, Change] = {
    "an id that is there": Change(append=[("first", b"1"), *pairs(b"2")], once=["first"]),
    "a shorter conversation": Change(keep_messages=2, append=pairs(b"{}", b"[]")),
    "as many messages as before": Change(keep_messages=3, append=pairs(b"{}")),
    "all messages dropped": Change(keep_messages=0),
    "the oldest dropped": Change(append=pairs(b"1"), max_messages=3, drop_oldest=True),
    "a message updated": Change(replace=[Replacement(id="first", old=None, new=b"2")]),
}


class TestOwnCommits:
    @pytest.mark.parametrize("change", PLAIN.values(), ids=PLAIN)
    def test_are_known_as_they_are_stored(
        self, backend: FailoverBackend, others: RedisBackend, change: Change
    ) -> None:
        id = begin(backend)
        backend.commit(id, replace(change, commit=lone_commit()))
        assert not is_sent(lambda: backend.load(id, WINDOW))
        assert_exact(backend, id)
        backend.commit(id, say(1))
        assert not is_sent(lambda: backend.load(id, WINDOW))
        assert_exact(backend, id)
        for window in (1, 2, 50, 100, 1000):
            assert_exact(backend, id, window)

    @pytest.mark.parametrize("change", [*PLAIN.values(), *SELDOM.values()], ids=[*PLAIN, *SELDOM])
    def test_that_begin_a_conversation_or_do_what_is_rare(
        self, backend: FailoverBackend, change: Change
    ) -> None:
        id, new = begin(backend, append=[("first", b"1"), *pairs(b"2", b"3")]), new_id()
        for each in (id, new):
            if each == new and (change.replace or change.expected):
                continue
            backend.commit(each, replace(change, commit=lone_commit()))
            assert_exact(backend, each)
            backend.commit(each, say(2))
            assert_exact(backend, each)

    def test_with_a_window_that_the_first_message_leaves(self, backend: FailoverBackend) -> None:
        id = begin(backend, 2)
        for number in range(120):
            backend.commit(id, say(number))
            assert_exact(backend, id, 3 if number % 7 else 200)
        assert not is_sent(lambda: backend.load(id, 100))
        assert is_sent(lambda: backend.load(id, 242))

    def test_that_are_sent_twice(self, others: RedisBackend) -> None:
        primary = LosesAnswers(cache_alias="django_redis")
        backend = process(primary)
        id = new_id()
        for number in range(3):
            primary.meanwhile = (lambda: others.commit(id, say(0))) if number else None
            backend.commit(id, say(number))
            assert_exact(backend, id)
        backend.close()

    def test_that_are_merged_with_those_of_others(
        self, backend: FailoverBackend, others: RedisBackend
    ) -> None:
        here, there = ConversationStore(backend), ConversationStore(others)
        conversation = here.create()
        conversation["nested"] = {"a": 1}
        conversation.save()
        id = conversation.id
        for number in range(3):
            mine, theirs = here.get(id), there.get(id)
            theirs["nested"]["theirs"] = number
            theirs.save()
            mine["nested"]["mine"] = number
            mine.save()
            assert_exact(backend, id)
            assert here.get(id)["nested"] == {"a": 1, "mine": number, "theirs": number}

    def test_by_threads_at_once(self, backend: FailoverBackend) -> None:
        id = begin(backend)

        def talk(number: int) -> None:
            for each in range(20):
                backend.commit(id, Change(increment={"n": 1}, append=pairs(b"[%d]" % each)))
                backend.load(id, number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(talk, range(2, 6)))
        assert_exact(backend, id)
        record = backend.load(id, WINDOW)
        assert record is not None
        assert (record.message_count, record.state["n"]) == (83, b"80")

    def test_are_not_changed_by_who_has_loaded_them(self, backend: FailoverBackend) -> None:
        id, change = begin(backend), say(1)
        backend.commit(id, change)
        change.set["step"] = b"77"  # type: ignore[index]
        for load in (lambda: backend.load(id, WINDOW), lambda: backend.load(id, 1)):
            record = load()
            assert record is not None
            record.state["k"] = b"changed"
            record.state.clear()
            record.messages.packed.clear()  # type: ignore[attr-defined]
            assert_exact(backend, id)

    @pytest.mark.parametrize("is_loaded", [False, True])
    def test_that_are_sent_again_in_an_outage(self, is_loaded: bool) -> None:
        primary, id = Away(cache_alias="django_redis"), new_id()
        backend, writer = process(primary), Writer()
        for number in (1, 2):
            change = replace(say(number), increment={"n": 1}, commit=writer.begin(id))
            backend.commit(id, change)
            if is_loaded:
                backend.load(id, WINDOW)
        primary.away = True
        try:
            assert backend.commit(id, change).repeated
            record = backend.load(id, WINDOW)
            assert record is not None
            assert (record.message_count, record.state["n"]) == (4, b"2")
        finally:
            primary.away = False
            backend.close()
        assert_exact(backend, id)
        backend.close()

    def test_are_known_in_an_outage(self, backend: FailoverBackend) -> None:
        id = begin(backend)
        backend.commit(id, say(1))
        loaded = backend.load(id, WINDOW)
        backend.primary = RedisBackend(cache_alias="unreachable")
        known = backend.load(id, WINDOW)
        assert loaded is not None
        assert known is not None
        assert known.degraded
        for name in ("version", "state", "messages", "created_at", "ttl", "first", "last_key"):
            assert getattr(known, name) == getattr(loaded, name)


def test_nothing_is_known_that_is_not_remembered() -> None:
    primary = RedisBackend(cache_alias="django_redis")
    backend = FailoverBackend(primary, LocMemBackend(), outage_memory=0)
    id = new_id()
    backend.commit(id, say(1))
    for _ in range(2):
        assert is_sent(lambda: backend.load(id, WINDOW))
    backend.close()


def test_what_was_deleted_is_in_no_memory(backend: FailoverBackend) -> None:
    id = begin(backend)
    backend.delete(id)
    assert id not in backend._known._exact


class WithoutEtags(LocMemBackend):
    """Loads as a backend does that was written before there were etags."""

    def load(self, id: str, window: int) -> Record | None:  # type: ignore[override]
        return super().load(id, window)

    def acquire(  # type: ignore[override]
        self, id: str, lease: str, seconds: float, window: int
    ) -> Acquired:
        return super().acquire(id, lease, seconds, window)


def test_a_backend_that_gives_no_etag_is_not_asked_by_one() -> None:
    backend = FailoverBackend(WithoutEtags(), LocMemBackend())
    for number in range(2):
        backend.commit("a", say(number))
        assert backend.load("a", WINDOW) == backend.primary.peek("a", WINDOW)
        assert backend.acquire("a", "lease", 5.0, WINDOW).position == 0
    backend.close()


async def test_a_backend_that_gives_no_etag_is_not_asked_by_one_in_async_code() -> None:
    for backend in (FailoverBackend(WithoutEtags(), LocMemBackend()), WithoutEtags()):
        for number in range(2):
            await backend.acommit("a", say(number))
            assert await backend.aload("a", WINDOW) == await backend.apeek("a", WINDOW)
            assert (await backend.aacquire("a", "lease", 5.0, WINDOW)).position == 0
        await backend.aclose()
