"""Random use of two handles on one conversation, with lost requests and lost replies, beside a
model made of a plain dictionary and a plain list."""

import contextlib
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
from django_convstate.conversation.conversation import working_copy_of

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=3,
)


class Unreliable(LocMemBackend):
    """Fails when told to: before it has applied a change, or after."""

    fails_before = fails_after = False

    def commit(self, id: str, change: Change) -> Committed:
        if self.fails_before:
            self.fails_before = False
            raise BackendUnavailable("The request was lost.")
        committed = super().commit(id, change)
        if self.fails_after:
            self.fails_after = False
            raise BackendUnavailable("The reply was lost.")
        return committed


class HandleBesideModel(RuleBasedStateMachine):
    """`handle` does everything; `other` appends, counts, and sets a key that only it uses."""

    def __init__(self) -> None:
        super().__init__()
        self.backend = Unreliable()
        self.store = ConversationStore(self.backend, window=3)
        self.handle: Conversation = self.store.create()
        self.state: dict[str, Any] = {}
        self.messages: list[str] = []
        self.counted = 0
        self.said = 0
        self.theirs: list[str] = []
        self.unseen = False
        self.unsaved = 0  # messages since the last save
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

    @rule()
    def say(self) -> None:
        self.said += 1
        self.handle.messages.append("user", f"ours {self.said}")
        self.unsaved += 1
        self.messages.append(f"ours {self.said}")

    @rule()
    def take_back(self) -> None:
        # Unless others have written since: their messages would be dropped, too, as documented.
        messages = self.handle.messages
        if messages and (self.unsaved or not self.unseen):
            self.unsaved = max(0, self.unsaved - 1)
            last = messages.pop()["content"]
            (self.messages if last.startswith("ours") else self.theirs).remove(last)

    @rule(before=st.booleans(), after=st.booleans())
    def save(self, before: bool, after: bool) -> None:
        self.backend.fails_before, self.backend.fails_after = before, after
        version, self.unsaved = self.handle.version, 0
        self.queued_drop = self.queued_drop or self._drops()
        with contextlib.suppress(BackendUnavailable):
            self.handle.save()
            self.queued_drop = False
            self.unseen = self.unseen and self.handle.version == version
        self.backend.fails_before = self.backend.fails_after = False

    @rule()
    def reopen(self) -> None:
        self.handle.save()
        self.handle = self.store.get(self.handle.id)
        self.unseen = self.queued_drop = False
        self.unsaved = 0

    @rule(number=st.integers(0, 5))
    def other_writes(self, number: int) -> None:
        if self._waiting_to_drop():
            return
        other = self.store.get(self.handle.id)
        self.said += 1
        other.messages.append("user", f"theirs {self.said}")
        other["set by other"] = number
        other.incr("counter")
        other.save()
        self.theirs.append(f"theirs {self.said}")
        self.unseen = True
        self.set_by_other = number
        self.counted += 1

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
        assert state == self.state
        contents = [message["content"] for message in stored.messages.all()]
        assert [text for text in contents if text.startswith("ours")] == self.messages
        assert [text for text in contents if text.startswith("theirs")] == self.theirs
        count = len(self.handle.messages)
        _, loaded_from = working_copy_of(self.handle).log.missing(0, count) or (0, 0)
        seen = [message["content"] for message in self.handle.messages.all()]
        assert seen[loaded_from:] == contents[loaded_from:count]


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("examples", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_a_handle_does_as_the_model_does(examples: int) -> None:
    limits = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(HandleBesideModel, settings=limits)
