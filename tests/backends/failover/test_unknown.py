"""What may be done, in an outage, with a conversation of which nothing is known here."""

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationInterrupted, ConversationStore, signals
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.records import Change, Create
from django_convstate.http.opening import open_for
from django_convstate.http.visitor import Visitor
from django_convstate.tokens import Token, new_token, read_token
from tests.support.backends import Switched, record_of
from tests.support.failover import Clock, Outage, append, messages_of
from tests.support.messages import pairs
from tests.support.wall_clock import set_wall_clock

UNMERGEABLE = {
    "owner": {"owner": "2"},
    "truncation": {"keep_messages": 1},
    "clearing": {"keep_messages": 0},
    "version": {"expected_version": 1},
    "version 0": {"expected_version": 0},
}


@pytest.mark.parametrize("spoken_before", [False, True])
@pytest.mark.parametrize("change", UNMERGEABLE.values(), ids=UNMERGEABLE)
def test_what_cannot_be_decided_here_is_refused(
    outage: Outage, change: dict[str, Any], spoken_before: bool
) -> None:
    outage.others.commit("theirs", Change(owner="1", append=pairs(b"secret")))
    if spoken_before:
        outage.backend.commit("theirs", append(b"mine"))
    pending = outage.backend.health().pending_replay
    with pytest.raises(BackendUnavailable):
        outage.backend.commit("theirs", Change(create=Create.MUST_EXIST, **change))
    assert outage.backend.health().pending_replay == pending
    outage.end()
    assert messages_of(outage.others, "theirs") == [b"secret"] + [b"mine"] * spoken_before
    assert record_of(outage.others, "theirs").owner == "1"


@pytest.mark.parametrize("change", UNMERGEABLE.values(), ids=UNMERGEABLE)
def test_of_a_known_one_it_is_decided_here(outage: Outage, change: dict[str, Any]) -> None:
    if "expected_version" in change:
        change = {"expected_version": record_of(outage.backend, "a").version}
    outage.commit(**change)
    assert outage.backend.health().pending_replay == 1


def test_a_deletion_of_a_certain_version_is_refused(outage: Outage) -> None:
    outage.others.commit("theirs", append(b"1"))
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            outage.backend.delete("theirs", expected_version=0)
        outage.backend.commit("theirs", append(b"2"))
    assert outage.backend.delete("a", expected_version=record_of(outage.backend, "a").version)


def test_what_was_begun_here_is_known_while_it_is_replayed(outage: Outage) -> None:
    """Its beginning is not in the journal any more, when what came after it still is."""
    outage.backend.commit("new", append(b"1", create=Create.MUST_BE_NEW))
    outage.backend.commit("new", append(b"2"))
    outage.primary.fails_after = 2  # the probe, and the beginning
    outage.primary.away = False
    outage.backend.close()
    assert outage.backend.health().pending_replay == 1
    assert record_of(outage.backend, "new").version > 0
    outage.backend.commit("new", Change(create=Create.MUST_EXIST, keep_messages=1))
    outage.primary.fails_after = None
    outage.end()
    assert messages_of(outage.others, "new") == [b"1"]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "clear": lambda conversation: conversation.clear(),
    "clear messages": lambda conversation: conversation.messages.clear(),
    "truncate": lambda conversation: conversation.messages.truncate(1),
    "pop": lambda conversation: conversation.messages.pop(),
    "claim": lambda conversation: conversation.claim("u1"),
    "async claim": lambda conversation: asyncio.run(conversation.aclaim("u1")),
    "version check": lambda conversation: conversation.save(expected_version=conversation.version),
    "async version check": lambda conversation: asyncio.run(
        conversation.asave(expected_version=conversation.version)
    ),
    "find": lambda conversation: conversation.messages.find("before"),
    "async find": lambda conversation: asyncio.run(conversation.messages.afind("before")),
    "update": lambda conversation: conversation.messages.update("before", read=True),
    "redact": lambda conversation: conversation.messages.redact("before"),
}


@pytest.mark.parametrize("spoken_before", [False, True])
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_conversation_says_so_at_once(
    primary: Switched,
    backend: FailoverBackend,
    refused: Callable[[Any], Any],
    spoken_before: bool,
) -> None:
    """And not only when something is saved, because an empty one has nothing to drop."""
    others = ConversationStore(primary.others)
    stored = others.create()
    stored["name"] = "mine"
    stored.messages.append("user", "hello", id="before")
    stored.save()
    primary.away = True
    store = ConversationStore(backend)
    conversation = store.get(stored.id)
    if spoken_before:
        conversation["said"] = 1
        conversation.save()
    with pytest.raises(BackendUnavailable):
        refused(conversation)
    conversation["later"] = 1
    conversation.save()
    primary.away = False
    backend.close()
    stored.reload()
    assert stored == {"name": "mine", "later": 1} | ({"said": 1} if spoken_before else {})
    assert (len(stored.messages), stored.owner) == (1, None)
    refused(store.get(stored.id))


def test_nothing_says_that_a_conversation_was_created(
    primary: Switched, backend: FailoverBackend
) -> None:
    created: list[object] = []

    def receive(sender: object, **news: object) -> None:
        created.append(news)

    signals.conversation_created.connect(receive)
    try:
        primary.away = True
        conversation = ConversationStore(backend).get("somebodys")
        conversation["said"] = 1
        conversation.save()
    finally:
        signals.conversation_created.disconnect(receive)
    assert created == []
    assert conversation.degraded


class TestBegunElsewhere:
    """A conversation that another process has accepted in an outage, and not replayed yet when the
    primary answers here that there is none."""

    @pytest.fixture
    def store(self, backend: FailoverBackend) -> ConversationStore:
        return ConversationStore(backend)

    @pytest.fixture
    def conversation(self, primary: Switched, store: ConversationStore) -> Iterator[Any]:
        primary.away = primary.slow = True
        conversation = store.get("elsewhere")
        assert conversation.degraded
        primary.away = False
        yield conversation
        primary.others.commit("elsewhere", append(b'{"role":"user"}'))  # it is replayed
        assert len(store.get("elsewhere").messages) == 2

    def test_it_can_be_saved(self, conversation: Any) -> None:
        conversation.messages.append("user", "hello")
        conversation.save()
        assert not conversation.degraded

    def test_its_turn_begins(self, conversation: Any) -> None:
        with conversation.turn():
            conversation.messages.append("user", "hello")

    async def test_its_turn_begins_in_async_code(self, conversation: Any) -> None:
        async with conversation.aturn():
            conversation.messages.append("user", "hello")

    def test_it_can_be_touched(self, conversation: Any) -> None:
        conversation.touch()
        conversation.messages.append("user", "hello")
        conversation.save()


@pytest.mark.parametrize("in_turn", [False, True])
def test_one_that_was_deleted_is_not_begun_again_by_its_token(
    primary: Switched, backend: FailoverBackend, in_turn: bool
) -> None:
    store = ConversationStore(backend)
    primary.others.commit("deleted", append(b"1"))
    primary.others.delete("deleted")
    primary.away = primary.slow = True
    conversation = store.get("deleted")
    primary.away = False
    with pytest.raises(ConversationInterrupted):
        if in_turn:
            with conversation.turn():
                conversation["said"] = 1
        conversation["said"] = 1
        conversation.save()
    assert not primary.others.exists("deleted")


@pytest.mark.parametrize("owner", ["u1", "u2"])
def test_an_owned_token_is_enough_to_go_on_with_an_unknown_conversation(
    primary: Switched, backend: FailoverBackend, owner: str
) -> None:
    store = ConversationStore(backend)
    visitor, token = Visitor("u1"), new_token("mine", "u1")
    primary.others.commit("mine", append(b"1", owner=owner))
    primary.away = True
    conversation = open_for(visitor, token, store.get("mine"))
    conversation["said"] = 1
    conversation.save()
    assert conversation.token == token.signed(unsaved=True)
    primary.away = False
    backend.close()
    assert ("said" in record_of(primary.others, "mine").state) is (owner == "u1")


class TestToken:
    """It says so while the store may not have the conversation, and else stays as it is."""

    @pytest.fixture
    def store(self, backend: FailoverBackend) -> ConversationStore:
        return ConversationStore(backend)

    def is_unsaved(self, conversation: Any) -> bool:
        token = read_token(conversation.token)
        assert token is not None
        return token.is_unsaved

    def test_of_one_that_is_begun(self, primary: Switched, store: ConversationStore) -> None:
        conversation = store.create()
        assert self.is_unsaved(conversation)
        primary.away = True
        conversation["said"] = 1
        conversation.save()
        assert self.is_unsaved(conversation)
        assert self.is_unsaved(store.get(conversation.id))
        primary.away = False
        store.close()
        assert not self.is_unsaved(store.get(conversation.id))

    def test_of_one_that_is_unknown(self, primary: Switched, store: ConversationStore) -> None:
        primary.away = True
        conversation = store.get("unknown")
        assert self.is_unsaved(conversation)
        conversation["said"] = 1
        conversation.save()
        assert self.is_unsaved(conversation)

    @pytest.mark.parametrize("forward", [0, 2000])
    def test_of_one_that_is_known(
        self, primary: Switched, store: ConversationStore, clock: Clock, forward: int
    ) -> None:
        """It has an hour, and while it is away half of that may go by."""
        conversation = store.create()
        conversation["said"] = 1
        conversation.save()
        assert not self.is_unsaved(conversation)
        primary.away = True
        clock.forward(forward)
        for _ in range(2):
            conversation = store.get(conversation.id)
            assert self.is_unsaved(conversation) is bool(forward)
            conversation["said"] = 2
            conversation.save()
            assert self.is_unsaved(conversation) is bool(forward)

    def test_of_one_that_does_not_expire(
        self, primary: Switched, store: ConversationStore, clock: Clock
    ) -> None:
        conversation = store.create(ttl=math.inf)
        conversation["said"] = 1
        conversation.save()
        primary.away = True
        clock.forward(500)  # for which it is remembered
        assert not self.is_unsaved(store.get(conversation.id))

    def test_is_the_same_within_an_hour_and_valid_for_eleven(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation, hour = store.create(), 3600.0
        set_wall_clock(monkeypatch, lambda: 1000 * hour)
        token = conversation.token
        set_wall_clock(monkeypatch, lambda: 1001 * hour - 1)
        assert conversation.token == token
        set_wall_clock(monkeypatch, lambda: 1011 * hour)
        read = read_token(token)
        assert read is not None
        assert read.is_unsaved
        set_wall_clock(monkeypatch, lambda: 1013 * hour)
        assert read_token(token) == Token(conversation.id, "", is_unsaved=False)
