"""Random operations on every backend, beside a model made of plain dictionaries and lists."""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.records import Change, Committed, Create
from django_convstate.exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    InvalidConversationValue,
)
from django_convstate.ids import new_id
from tests.support.places import make_place

KEYS = st.sampled_from(["a", "b", "counter", "naïve 東京", ""])
COUNTERS = st.dictionaries(st.sampled_from(["counter", "a"]), st.integers(-5, 5), max_size=2)
VALUES = st.sampled_from(
    [b"1", b"-7", b'"text"', b"[1,[2]]", b'{"x":null}', b"9223372036854775807"]
)
LEASES = st.sampled_from(["one", "two", "three"])
MESSAGES = st.lists(st.integers(0, 99).map(lambda n: b'{"n":%d}' % n), max_size=4)
CHANGES = st.builds(
    Change,
    create=st.sampled_from(Create),
    expected_version=st.none() | st.integers(0, 4),
    owner=st.none() | st.sampled_from(["u1", "u2"]),
    ttl=st.just(600.0),
    set=st.dictionaries(KEYS, VALUES, max_size=3),
    unset=st.lists(KEYS, max_size=2, unique=True),
    increment=COUNTERS,
    keep_messages=st.none() | st.integers(0, 6),
    append=MESSAGES,
    commit_id=st.uuids().map(lambda uuid: uuid.hex),
    lease=st.none() | LEASES,
    release=st.booleans(),
)
REFUSALS = (ConversationConflict, ConversationInterrupted, InvalidConversationValue)


@dataclass
class Model:
    """A conversation as anybody would write it down."""

    version: int = 0
    owner: str | None = None
    state: dict[str, bytes] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    line: list[str] = field(default_factory=list)

    def fits(self, change: Change) -> bool:
        exists = self.version > 0
        if change.lease is not None and self.line[:1] != [change.lease]:
            return False
        if change.create is Create.MUST_BE_NEW and exists:
            return False
        if change.create is Create.MUST_EXIST and not exists:
            return False
        if change.expected_version not in (None, self.version):
            return False
        return change.owner is None or self.owner in (None, change.owner)

    def after(self, change: Change) -> "Model | None":
        if not self.fits(change):
            return None
        state = {k: v for k, v in (self.state | dict(change.set)).items() if k not in change.unset}
        for key, delta in change.increment.items():
            try:
                total = int(state.get(key, b"0")) + delta
            except ValueError:
                return None
            if abs(total) >= 2**63:
                return None
            state[key] = b"%d" % total
        kept = self.messages[: change.keep_messages]
        owner = change.owner or self.owner
        line = self.line[1:] if change.lease is not None and change.release else self.line
        return Model(self.version + 1, owner, state, [*kept, *change.append], line)


class BackendBesideModel(RuleBasedStateMachine):
    conversations = Bundle("conversations")

    def __init__(self, backend: ConversationStateBackend) -> None:
        super().__init__()
        self.backend: Any = backend
        self.models: dict[str, Model] = {}
        self.applied: dict[str, tuple[Change, Committed]] = {}

    def begin(self) -> str:
        id = new_id()
        self.models[id] = Model()
        return id

    first = initialize(target=conversations)(begin)
    another = rule(target=conversations)(begin)

    @rule(id=conversations, change=CHANGES)
    def commit(self, id: str, change: Change) -> None:
        after = self.models[id].after(change)
        try:
            committed = self.backend.commit(id, change)
        except REFUSALS:
            assert after is None, "refused, and should not be"
        else:
            assert after is not None, "accepted, and should not be"
            assert committed.version == after.version
            assert committed.message_count == len(after.messages)
            self.models[id] = after
            self.applied[id] = change, committed

    @rule(id=conversations)
    def commit_again(self, id: str) -> None:
        if id in self.applied:
            change, committed = self.applied[id]
            assert self.backend.commit(id, change) == committed

    @rule(id=conversations)
    def delete(self, id: str) -> None:
        assert self.backend.delete(id) is (self.models[id].version > 0)
        self.models[id] = Model(line=self.models[id].line)
        self.applied.pop(id, None)

    @rule(id=conversations, lease=LEASES)
    def acquire(self, id: str, lease: str) -> None:
        model, acquired = self.models[id], self.backend.acquire(id, lease, 600.0, 5)
        if lease not in model.line:
            model.line.append(lease)
        assert acquired.position == model.line.index(lease)
        is_theirs_and_stored = acquired.position == 0 and model.version > 0
        assert (acquired.record is not None) is is_theirs_and_stored

    @rule(id=conversations, lease=LEASES)
    def renew(self, id: str, lease: str) -> None:
        assert self.backend.renew(id, lease, 600.0) is (self.models[id].line[:1] == [lease])

    @rule(id=conversations, lease=LEASES)
    def release(self, id: str, lease: str) -> None:
        self.backend.release(id, lease)
        self.models[id].line = [other for other in self.models[id].line if other != lease]

    @rule(id=conversations)
    def touch(self, id: str) -> None:
        assert self.backend.touch(id, 600.0) is (self.models[id].version > 0)

    @rule(id=conversations, start=st.integers(0, 8), length=st.integers(0, 8))
    def page(self, id: str, start: int, length: int) -> None:
        expected = self.models[id].messages[start : start + length]
        assert self.backend.read_messages(id, start, start + length) == expected

    @rule(id=conversations, window=st.integers(1, 5))
    def load(self, id: str, window: int) -> None:
        model, record = self.models[id], self.backend.load(id, window)
        if model.version == 0:
            assert record is None
            return
        assert record is not None
        assert (record.version, record.owner) == (model.version, model.owner)
        assert record.state == model.state
        assert record.messages == model.messages[-window:]
        assert record.message_count == len(model.messages)

    @invariant()
    def the_same_exist(self) -> None:
        for id, model in self.models.items():
            assert self.backend.exists(id) is (model.version > 0)


class ByTwins:
    """A backend entered by its asyncio twins, from sync code."""

    def __init__(self, backend: ConversationStateBackend, runner: asyncio.Runner) -> None:
        self._backend = backend
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self._backend, f"a{name}")
        return lambda *args: self._runner.run(twin(*args))


# How many examples are tried, of those that memory takes.
shares = pytest.mark.parametrize("share", [0.2, pytest.param(1, marks=pytest.mark.slow)])


@shares
def test_a_backend_behaves_as_the_model(place: str, share: float) -> None:
    backend = make_place(place)
    run(backend, round(share * (300 if place == "locmem" else 100)))
    backend.close()


# On the caches, the twins are the methods in a thread.
@pytest.mark.parametrize("place", ["locmem", "standalone", "sentinel", "cluster"], indirect=True)
@shares
def test_async_methods_behave_as_the_model(place: str, share: float) -> None:
    backend = make_place(place)
    with asyncio.Runner() as runner:
        run(ByTwins(backend, runner), round(share * 50))
    backend.close()


def run(backend: Any, max_examples: int) -> None:
    run_state_machine_as_test(
        partial(BackendBesideModel, backend),  # type: ignore[arg-type]
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
