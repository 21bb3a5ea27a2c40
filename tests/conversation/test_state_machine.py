"""Random use of two handles on one conversation, with lost requests and lost replies, beside a
model made of plain dictionaries and plain lists."""

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from django_convstate import BackendUnavailable, Conversation, ConversationStore
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.backends.toolkit.packed import Pair
from django_convstate.conversation.conversation import working_copy_of

KEYS = st.sampled_from(["a", "b", "c"])
GIVEN_IDS = st.sampled_from(["wamid.1", "wamid.2", "é" * 64])
INDEXES = st.integers(0, 20)
WINDOW = 3
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=3,
)


class Unreliable(LocMemBackend):
    """Fails when told to: before it has applied a change, or after."""

    fails_before = fails_after = False
    reads = 0

    def commit(self, id: str, change: Change) -> Committed:
        if self.fails_before:
            self.fails_before = False
            raise BackendUnavailable("The request was lost.")
        committed = super().commit(id, change)
        if self.fails_after:
            self.fails_after = False
            raise BackendUnavailable("The reply was lost.")
        return committed

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        self.reads += 1
        return super().read_messages(id, start, stop)


class HandleBesideModel(RuleBasedStateMachine):
    """`handle` does everything; `other` appends, updates messages, counts, and sets keys that only
    it uses."""

    def __init__(self) -> None:
        super().__init__()
        self.backend = Unreliable()
        self.store = ConversationStore(self.backend, window=WINDOW)
        self.handle: Conversation = self.store.create()
        self.state: dict[str, Any] = {}
        self.nested: dict[str, int] = {}  # in one dictionary, which both change
        self.bodies: dict[str, dict[str, Any]] = {}  # the messages by their ids, without times
        self.ours: list[str] = []  # the ids of our messages, in order
        self.theirs: list[str] = []
        self.ttl = 3600
        self.counted = 0
        self.said = 0
        self.unseen = False
        self.unsaved = 0  # messages since the last save
        self.given: set[str] = set()  # ids of unsaved messages that the other may append, too
        self.again: set[str] = set()  # those of them that will not be kept
        self.touched: set[str] = set()  # ids of messages with changes of ours that are not saved
        self.queued_drop = False  # a save that failed was to shorten the list
        self.set_by_other: int | None = None

    @initialize()
    def begin(self) -> None:
        self.handle["a"] = []
        self.state["a"] = []
        self.say()
        self.save(before=False, after=False)

    @rule(key=KEYS, value=VALUES)
    def assign(self, key: str, value: Any) -> None:
        self.handle[key] = value
        self.state[key] = _copy(value)

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        assert (self.handle.pop(key, "absent") == "absent") is (key not in self.state)
        self.state.pop(key, None)

    @rule(key=KEYS, value=VALUES)
    def mutate(self, key: str, value: Any) -> None:
        held = self.handle.get(key)
        if isinstance(held, list):
            held.append(value)
            self.state[key].append(_copy(value))
        elif isinstance(held, dict):
            held["new"] = value
            self.state[key]["new"] = _copy(value)

    @rule(key=KEYS)
    def shrink(self, key: str) -> None:
        held = self.handle.get(key)
        if isinstance(held, (list, dict)):
            held.clear()
            self.state[key].clear()

    @rule(delta=st.integers(-3, 3))
    def count(self, delta: int) -> None:
        self.handle.incr("counter", delta)
        self.counted += delta

    @rule(key=KEYS, value=st.integers(0, 9))
    def nest(self, key: str, value: int) -> None:
        self.handle.setdefault("nested", {})[f"ours {key}"] = value
        self.nested[f"ours {key}"] = value

    @rule(key=KEYS)
    def unnest(self, key: str) -> None:
        nested = self.handle.get("nested", {})
        assert nested.pop(f"ours {key}", None) == self.nested.pop(f"ours {key}", None)

    @rule(ttl=st.integers(60, 90))
    def set_ttl(self, ttl: int) -> None:
        self.handle.ttl = self.ttl = ttl

    @rule()
    def say(self) -> None:
        content = self._next("ours")
        id = self.handle.messages.append("user", content)
        self._add_ours(id, {"role": "user", "content": content, "id": id})

    @rule(id=GIVEN_IDS)
    def say_once(self, id: str) -> None:
        content = self._next("ours")
        is_known = working_copy_of(self.handle).log.peek(id) is not None
        assert self.handle.messages.append("user", content, id=id) == id
        if is_known:
            return
        self.given.add(id)
        if id in self.bodies:  # it is stored already, and so will not be once more
            self.unsaved += 1
            self.again.add(id)
        else:
            self._add_ours(id, {"role": "user", "content": content, "id": id})

    @rule(count=st.integers(0, 4))
    def extend(self, count: int) -> None:
        items: list[dict[str, Any]] = [{"item": self._next("ours")} for _ in range(count)]
        for id, item in zip(self.handle.messages.extend(items), items, strict=True):
            self._add_ours(id, item)

    def _next(self, whose: str) -> str:
        self.said += 1
        return f"{whose} {self.said}"

    def _add_ours(self, id: str, body: dict[str, Any]) -> None:
        assert id not in self.bodies
        self.unsaved += 1
        self.bodies[id] = _copy(body)
        self.ours.append(id)

    @rule(index=INDEXES)
    def update(self, index: int) -> None:
        if (id := self._one_of(self.handle, index, self.given)) is not None:
            text = self._next("update")
            is_redacted_unseen = "redacted" in self.bodies[
                id
            ] and "redacted" not in self.handle.messages.find(id)
            self.handle.messages.update(id, ours=text)
            self.touched.add(id)
            if not is_redacted_unseen:  # what others have redacted stays as it is
                self.bodies[id]["ours"] = text

    @rule(index=INDEXES)
    def redact(self, index: int) -> None:
        if (id := self._one_of(self.handle, index, self.given)) is not None:
            self.handle.messages.redact(id)
            self._redact_in_model(id)
            self.touched.add(id)

    def _one_of(self, handle: Conversation, index: int, excluded: set[str]) -> str | None:
        ids = [message.id for message in handle.messages.all() if message.id not in excluded]
        return ids[index % len(ids)] if ids else None

    def _redact_in_model(self, id: str) -> None:
        body = self.bodies[id]
        kept = {field: body[field] for field in ("id", "role") if field in body}
        self.bodies[id] = kept | {"redacted": True}

    @rule()
    def take_back(self) -> None:
        # Unless others have written since: their messages would be dropped, too, as documented.
        messages = self.handle.messages
        if messages and (self.unsaved or not self.unseen):
            if not self.unsaved and messages[-1].id in self.given:
                return  # it is on its way, and perhaps there already
            self.unsaved = max(0, self.unsaved - 1)
            id = messages.pop().id
            if id in self.again:
                self.again.remove(id)
                return
            (self.ours if id in self.ours else self.theirs).remove(id)
            del self.bodies[id]

    @rule(before=st.booleans(), after=st.booleans())
    def save(self, before: bool, after: bool) -> None:
        self.backend.fails_before, self.backend.fails_after = before, after
        version, self.unsaved = self.handle.version, 0
        self.queued_drop = self.queued_drop or self._drops()
        with contextlib.suppress(BackendUnavailable):
            self.handle.save()
            self.queued_drop = False
            self.unseen = self.unseen and self.handle.version == version
            self._note_saved()
        self.backend.fails_before = self.backend.fails_after = False

    def _note_saved(self) -> None:
        self.given, self.again, self.touched = set(), set(), set()
        reads = self.backend.reads
        windows = [self.handle.messages.window(size) for size in range(WINDOW + 1)]
        assert self.backend.reads == reads, "what was loaded is missing"
        if not self.unseen:
            stored = [message.id for message in self.store.get(self.handle.id).messages.all()]
            assert len(self.handle.messages) == len(stored)
            for size, window in enumerate(windows):
                assert [message.id for message in window] == stored[max(0, len(stored) - size) :]

    @rule()
    def reopen(self) -> None:
        self.handle.save()
        self.handle = self.store.get(self.handle.id)
        self.unseen = self.queued_drop = False
        self.given, self.again, self.touched = set(), set(), set()
        self.unsaved = 0

    @rule(number=st.integers(0, 5))
    def other_writes(self, number: int) -> None:
        if self._waiting_to_drop():
            return
        other = self.store.get(self.handle.id)
        content = self._next("theirs")
        id = other.messages.append("user", content)
        other["set by other"] = number
        other.incr("counter")
        other.save()
        self._add_theirs(id, content)
        self.set_by_other = number
        self.counted += 1

    def _add_theirs(self, id: str, content: str) -> None:
        self.bodies[id] = {"role": "user", "content": content, "id": id}
        self.theirs.append(id)
        self.unseen = True

    @rule(id=GIVEN_IDS)
    def other_says_once(self, id: str) -> None:
        content = self._next("theirs")
        if not self._waiting_to_drop() and self.store.append(
            self.handle.id, "user", content, id=id
        ):
            if id in self.ours:  # where it is not stored yet, and will not be
                self.ours.remove(id)
                self.again.add(id)
            self._add_theirs(id, content)

    @rule(index=INDEXES)
    def other_updates(self, index: int) -> None:
        # What we redact, we redact whatever others have made of it, but when is not known here.
        other = self.store.get(self.handle.id)
        redacted = {id for id in self.touched if "redacted" in self.bodies.get(id, ())}
        if (
            id := self._one_of(other, index, redacted | self.given)
        ) is not None and id in self.bodies:
            text = self._next("update")
            other.messages.update(id, theirs=text)
            other.save()
            self.bodies[id]["theirs"] = text

    @rule(index=INDEXES)
    def other_redacts(self, index: int) -> None:
        other = self.store.get(self.handle.id)
        if (
            id := self._one_of(other, index, self.touched | self.given)
        ) is not None and id in self.bodies:
            other.messages.redact(id)
            other.save()
            self._redact_in_model(id)

    @rule(key=KEYS, value=st.integers(0, 9))
    def other_nests(self, key: str, value: int) -> None:
        other = self.store.get(self.handle.id)
        other.setdefault("nested", {})[f"theirs {key}"] = value
        other.save()
        self.nested[f"theirs {key}"] = value

    def _waiting_to_drop(self) -> bool:
        # What waits to shorten the list would take another's new message with it, as documented.
        return self.queued_drop or self._drops()

    def _drops(self) -> bool:
        return working_copy_of(self.handle).log.shortened_to is not None

    @invariant()
    def nothing_is_lost_and_nothing_is_there_twice(self) -> None:
        if self.handle.is_modified or self.handle.is_new:
            return
        stored = self.store.get(self.handle.id)
        state = dict(stored)
        assert state.pop("counter", 0) == self.counted
        assert state.pop("set by other", None) == self.set_by_other
        assert state.pop("nested", {}) == self.nested
        assert state == self.state
        assert stored.ttl == self.handle.ttl == self.ttl
        messages = stored.messages.all()
        ids = [message.id for message in messages]
        assert [id for id in ids if id in self.ours] == self.ours
        assert [id for id in ids if id in self.theirs] == self.theirs
        assert len(ids) == len(self.bodies)
        for message in messages:
            body = message.copy()
            body.pop("timestamp", None)
            assert body == self.bodies[message.id]
            assert stored.messages.find(message.id) == message
        count = len(self.handle.messages)
        _, loaded_from = working_copy_of(self.handle).log.view().missing(0, count) or (0, 0)
        seen = [message.id for message in self.handle.messages.all()]
        assert seen[loaded_from:] == ids[loaded_from:count]


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("examples", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_a_handle_behaves_as_the_model(examples: int) -> None:
    limits = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(HandleBesideModel, settings=limits)
