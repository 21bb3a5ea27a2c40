"""What a conversation costs in Redis: that no command grows with the history, and the memory."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from django_convstate import Conversation, ConversationStore
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.toolkit.writer import ThisProcess, Writer
from django_convstate.ids import new_id
from tests.support.messages import pairs
from tests.support.redis import commands_of, key_of, raw

pytestmark = pytest.mark.usefixtures("valkey")

WINDOW: Final = 10
# These take time for each element that is there.
GROWING: Final = {"LPOS", "LREM", "LINSERT", "KEYS", "SCAN", "SORT", "COPY", "DUMP", "HSCAN"}


@pytest.fixture
def backend() -> Iterator[RedisBackend]:
    backend = RedisBackend(cache_alias="django_redis")
    yield backend
    backend.close()


@pytest.fixture
def store(backend: RedisBackend) -> ConversationStore:
    return ConversationStore(backend, window=WINDOW)


def with_messages(backend: RedisBackend, count: int) -> tuple[str, list[str]]:
    """Store a conversation, and return its id and those of its messages."""
    id, messages = new_id(), pairs(*[b'{"role":"user","content":"%b"}' % (b"x" * 170)] * count)
    for start in range(0, count, 5000):
        backend.commit(id, Change(set={"turns": b"1"}, append=messages[start : start + 5000]))
    return id, [message_id for message_id, _ in messages]


def turn(store: ConversationStore, id: str) -> None:
    conversation = store.get(id)
    conversation.messages.window()
    conversation.incr("turns")
    conversation.messages.append("user", "hello")
    conversation.messages.append("assistant", "hi")
    conversation.save()


def turn_with_a_lease(store: ConversationStore, id: str) -> None:
    conversation = store.open(id)
    with conversation.turn():
        conversation["last"] = "text"
        conversation.messages.append("user", "hello")


def change_of_a_new_message(store: ConversationStore, id: str) -> None:
    conversation = store.get(id)
    conversation.messages.update(conversation.messages[-1].id, content="changed")
    conversation.save()


def save_after_another(store: ConversationStore, id: str) -> None:
    conversation = store.get(id)
    store.append(id, "user", "by another")
    time.sleep(0.002)
    conversation.messages.append("assistant", "hi")
    conversation.save()
    assert conversation.messages[-2]["content"] == "by another"


@pytest.mark.parametrize(
    "use",
    [
        turn,
        turn_with_a_lease,
        change_of_a_new_message,
        save_after_another,
        lambda store, id: store.append(id, "user", "hello"),
        lambda store, id: store.append(id, "user", "hello", id="theirs"),
        lambda store, id: store.peek(id),
        lambda store, id: store.touch(id),
        lambda store, id: store.exists(id),
    ],
)
def test_what_is_done_does_not_grow_with_the_history(
    backend: RedisBackend, store: ConversationStore, use: Callable[[ConversationStore, str], object]
) -> None:
    seen = []
    for count in (20, 20_000):
        id, _ = with_messages(backend, count)
        use(store, id)  # so that it is connected, and the server knows the scripts
        # Two ids that are made in the same millisecond are in any order; if the later one is the
        # lower one, it is remembered, which takes two commands more.
        time.sleep(0.002)
        seen.append(commands_of(lambda id=id: use(store, id), count))  # type: ignore[misc]
    (sent_few, called_few), (sent_many, called_many) = seen
    assert sent_few == sent_many
    assert called_few == called_many
    assert not GROWING & {name for name, *_ in called_many}
    for name, *arguments in called_many:
        if name == "LRANGE":
            assert arguments == [f"{-WINDOW}", "-1"]


def test_a_turn_takes_two_round_trips_and_a_blind_append_one(
    backend: RedisBackend, store: ConversationStore
) -> None:
    id, _ = with_messages(backend, 20)
    turn(store, id)
    store.append(id, "user", "hello")
    assert commands_of(lambda: turn(store, id))[0] == ["EVALSHA", "EVALSHA"]
    sent, called = commands_of(lambda: store.append(id, "user", "hello"))
    assert sent == ["EVALSHA"]
    assert "LRANGE" not in {name for name, *_ in called}, "nobody asked for what others wrote"
    sent, _ = commands_of(lambda: asyncio.run(store.aappend(id, "user", "hello")))
    assert sent == ["EVALSHA"]


def test_one_among_200_000_messages_is_found_in_one_round_trip_and_log_n_commands(
    backend: RedisBackend,
) -> None:
    count = 200_000
    id, message_ids = with_messages(backend, count)
    backend.commit(id, Change(append=[("theirs", b"{}")]))
    wanted = [message_ids[at] for at in (0, 1, count // 3, count // 2, count - 50, count - 1)]
    backend.find(id, wanted[0])
    for message_id in (*wanted, "theirs", "f" * 20, "0" * 19 + "1", "not there", "#7"):
        sent, called = commands_of(lambda message_id=message_id: backend.find(id, message_id))  # type: ignore[misc]
        assert sent == ["EVALSHA"]
        names = Counter(name for name, *_ in called)
        # In longer and longer steps from the end, then by bisection, and the message itself.
        assert names.pop("LINDEX", 0) <= 2 * math.ceil(math.log2(count)) + 3
        assert names.keys() <= {"HMGET", "HGET", "LLEN", "HLEN", "EXISTS", "HEXISTS"}
        assert sum(names.values()) <= 4
    for message_id in wanted:
        found = backend.find(id, message_id)
        assert found is not None
        assert found[0] == message_ids.index(message_id)
    assert backend.find(id, "not there") is None
    backend.delete(id)


MESSAGES, MESSAGE_BYTES = 20, 200


def say(conversation: Conversation, role: str, id: str | None) -> None:
    """Append a message that takes 200 bytes of JSON."""
    conversation.messages.append(role, "x" * (MESSAGE_BYTES - overhead(role, id)), id=id)


def overhead(role: str, id: str | None) -> int:
    if (role, id is None) not in _overheads:
        store = ConversationStore(RedisBackend(cache_alias="django_redis"))
        conversation = store.create()
        conversation.messages.append(role, "", id=id)
        conversation.save()
        ((_, data),) = store.backend.read_messages(conversation.id, 0, 1)
        _overheads[role, id is None] = len(data)
        store.close()
    return _overheads[role, id is None]


_overheads: dict[tuple[str, bool], int] = {}


@pytest.mark.parametrize(
    ("writers", "given"),
    [(1, False), (10, False), (1, True)],
    ids=["one writer", "ten writers", "ids given by the caller"],
)
def test_memory_of_20_messages(
    backend: RedisBackend,
    store: ConversationStore,
    monkeypatch: pytest.MonkeyPatch,
    writers: int,
    given: bool,
) -> None:
    id = store.create().id
    for number in range(10):
        if number and writers > 1:
            monkeypatch.setattr(ThisProcess, "writer", Writer())
        conversation = store.open(id)
        for role in ("user", "assistant"):
            say(conversation, role, f"msg_{new_id()}" if given else None)
        conversation["turn"] = number
        conversation.save()
    messages = backend.read_messages(id, 0, 100)
    assert [len(data) for _, data in messages] == [MESSAGE_BYTES] * MESSAGES
    json = MESSAGES * MESSAGE_BYTES + len("turn") + len(b"9")
    keys = [key_of(id, part) for part in ("meta", "state", "messages", "ids")]
    used = sum(raw().memory_usage(key, samples=0) or 0 for key in keys)
    assert used <= 1.35 * json + 700
