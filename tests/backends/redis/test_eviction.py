"""A server that evicts takes single keys, and so perhaps a part of a conversation: what is left is
not served as if it were all."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from django_convstate import ConversationCorrupt, ConversationStore, signals
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs
from tests.support.redis import key_of, raw

pytestmark = pytest.mark.usefixtures("valkey")

PARTS = ("state", "messages", "ids")


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


def stored(backend: RedisBackend, evicted: str) -> str:
    """Store a conversation of all parts, of which the server then evicts one."""
    id = new_id()
    backend.commit(id, Change(set={"a": b"1"}, append=[("theirs", b'{"n":1}'), ("too", b"{}")]))
    backend.commit(id, Change(append=pairs(b'{"n":2}')))
    assert raw().delete(key_of(id, evicted)) == 1
    return id


async def aload(backend: RedisBackend, id: str) -> None:
    try:
        await backend.aload(id, 5)
    finally:
        await backend.aclose()


@pytest.mark.parametrize("evicted", PARTS)
@pytest.mark.parametrize(
    "use",
    [
        lambda backend, id: backend.load(id, 5),
        lambda backend, id: asyncio.run(aload(backend, id)),
        lambda backend, id: backend.acquire(id, "lease", 5.0, 5),
        lambda backend, id: backend.commit(id, Change(append=pairs(b"{}"))),
        lambda backend, id: backend.commit(id, Change(set={"a": b"2"})),
        lambda backend, id: backend.commit(id, Change(append=[("theirs", b"{}")], once=["theirs"])),
    ],
    ids=["load", "aload", "acquire", "append", "set", "append once"],
)
def test_what_is_left_is_quarantined_for_an_hour_at_most(
    backend: RedisBackend, evicted: str, use: Callable[[RedisBackend, str], object]
) -> None:
    id = stored(backend, evicted)
    with pytest.raises(ConversationCorrupt):
        use(backend, id)
    assert not backend.exists(id)
    assert not raw().exists(*(key_of(id, part) for part in ("meta", *PARTS)))
    kept = [key_of(id, f"{part}:corrupt") for part in ("meta", *PARTS) if part != evicted]
    assert raw().exists(*kept) == 3
    assert all(0 < raw().pttl(key) <= 3_600_000 for key in kept), "there may be many"
    backend.commit(id, Change(append=pairs(b'{"n":3}')))
    record = backend.load(id, 5)
    assert record is not None
    assert (record.state, bodies(record.messages)) == ({}, [b'{"n":3}'])


def test_a_part_of_which_something_is_missing_is_quarantined(backend: RedisBackend) -> None:
    for damage in (
        lambda id: raw().hset(key_of(id, "state"), "b", "1"),
        lambda id: raw().rpop(key_of(id, "messages")),
        lambda id: raw().hdel(key_of(id, "ids"), raw().hkeys(key_of(id, "ids"))[0]),
    ):
        id = new_id()
        backend.commit(id, Change(set={"a": b"1"}, append=[("theirs", b"{}"), ("too", b"{}")]))
        damage(id)
        with pytest.raises(ConversationCorrupt):
            backend.load(id, 5)
        assert backend.load(id, 5) is None


def test_the_signal_is_sent(backend: RedisBackend) -> None:
    store, heard = ConversationStore(backend), list[str]()

    def listen(id: str, **kwargs: object) -> None:
        heard.append(id)

    signals.conversation_quarantined.connect(listen)
    try:
        id = stored(backend, "messages")
        with pytest.raises(ConversationCorrupt):
            store.get(id)
    finally:
        signals.conversation_quarantined.disconnect(listen)
    assert heard == [id]
