"""What this process has seen in Redis is sent once, and never taken for what is stored if it is
not."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_convstate import ConversationStore
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.support.messages import pairs
from tests.support.redis import commands_of, raw

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


def assert_exact(backend: FailoverBackend, window: int = WINDOW, id: str = "a") -> None:
    """Check that a load returns what one returns that sends all."""
    loaded, peeked = backend.load(id, window), backend.primary.peek(id, window)
    assert (loaded is None) == (peeked is None)
    if loaded is None or peeked is None:
        return
    for name in CONTENTS:
        assert getattr(loaded, name) == getattr(peeked, name), name
    assert loaded.last_accessed == peeked.last_accessed
    assert loaded.expires_at == pytest.approx(peeked.expires_at, abs=0.005)


def begin(backend: FailoverBackend, count: int = 3, **change: Any) -> str:
    """Begin a conversation that the process has loaded and need not load again."""
    id = new_id()
    bodies = [b'{"n":%d}' % number for number in range(count)]
    backend.commit(id, Change(ttl=600.0, append=pairs(*bodies), **{"set": {"k": b"1"}} | change))
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

        def turn() -> None:
            conversation = store.get(id)
            conversation["step"] = 11
            conversation.messages.append("user", "x" * 200)
            conversation.messages.append("assistant", "y" * 200)
            conversation.save()

        id = conversation.id
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
        assert_exact(backend, id=id)
