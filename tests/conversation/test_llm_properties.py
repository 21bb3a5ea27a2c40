"""What a model is sent, over random histories of each shape, beside an oracle that tries each of
their ends. tests/support/histories.py has the rules of the APIs, and their sources."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_convstate import Conversation, ConversationStore
from django_convstate.backends.locmem import LocMemBackend
from tests.support.histories import (
    SHAPES,
    Event,
    Plain,
    leading_of,
    longest_end,
    made_of,
)

FEW = 700  # histories of each shape and test, in the run of each day
MANY = 10_000  # and in the long one: in three tests of three shapes and one of two, 110,000
KINDS = st.sampled_from(
    ["user", "assistant", "calls", "calls", "system", "developer", "user", "calls", "assistant"]
)
EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.tuples(KINDS, st.integers(1, 4), st.sampled_from([3, 3, 3, 4, 2, 1, 0]), st.booleans()),
    min_size=1,
    max_size=9,
).map(lambda events: [("system", 1, 1, False), *events] if len(events) % 2 else events)
SIZES = st.integers(0, 12) | st.just(1000)
STORE = ConversationStore(LocMemBackend(), window=1000)
RUNS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]


def tokens(message: Plain) -> int:
    return len(json.dumps(message)) // 40 + 1


def holding(messages: Sequence[Plain], store: ConversationStore = STORE) -> Conversation:
    conversation = store.create()
    conversation.messages.extend(list(messages))
    return conversation


@pytest.mark.parametrize("examples", RUNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_sent_is_the_longest_end_that_is_legal_and_fits(shape: str, examples: int) -> None:
    make, errors_of = SHAPES[shape]

    @settings(max_examples=examples, database=None)
    @given(EVENTS, SIZES, st.none() | st.integers(0, 60), st.booleans())
    def check(events: list[Event], size: int, budget: int | None, stands_in: bool) -> None:
        history = made_of(make, events)
        messages = holding(history.messages).messages
        dangling = "stand_in" if stands_in else "drop"
        sent = messages.for_llm(size, budget=budget, count=tokens, dangling=dangling)

        def is_legal(candidate: list[Plain]) -> bool:
            return not errors_of(candidate, history.origins)

        assert not errors_of(sent, history.origins)
        whole = history.living
        if stands_in:
            whole = messages.for_llm(1000, dangling=dangling)
            check_stand_ins(history.messages, whole, history.missing)
            assert is_legal(whole)
        leading = leading_of(history.messages)
        assert sent == longest_end(
            whole[leading:],
            whole[:leading],
            is_legal,
            size,
            float("inf") if budget is None else budget,
            tokens,
        )

    check()


def check_stand_ins(history: list[Plain], sent: list[Plain], missing: int) -> None:
    """Everything that was said is sent, and as many stand-ins as there are results missing."""
    was = [part for message in history for part in parts_of(message)]
    now = [part for message in sent for part in parts_of(message)]
    made_up = [part for part in now if part not in was]
    assert len(made_up) == missing
    assert [part for part in now if part in was] == was
    assert all("interrupted" in json.dumps(part) for part in made_up)


def parts_of(message: Plain) -> list[Any]:
    content = message.get("content")
    return [(message["role"], each) for each in content] if isinstance(content, list) else [message]


@pytest.mark.parametrize("examples", RUNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_of_an_illegal_history_the_illegal_part_is_left_out(shape: str, examples: int) -> None:
    make, errors_of = SHAPES[shape]
    cuts = st.lists(st.tuples(st.sampled_from(["cut", "twice", "move"]), st.integers(0, 40)))

    @settings(max_examples=examples, database=None)
    @given(EVENTS, SIZES, cuts, st.booleans())
    def check(events: list[Event], size: int, cuts: list[tuple[str, int]], stands_in: bool) -> None:
        messages = made_of(make, events).messages
        for kind, place in cuts:
            index = place % len(messages)
            if kind == "twice":
                messages.insert(index, messages[index])
            elif kind == "move":
                messages.append(messages.pop(index))
            elif len(messages) > 1:
                del messages[index]
        handle = holding(messages).messages
        dangling = "stand_in" if stands_in else "drop"
        assert not errors_of(handle.for_llm(size, dangling=dangling), None)
        sent = handle.for_llm(1000, dangling=dangling)
        assert not errors_of(sent, None)
        said = [m for m in messages if isinstance(m.get("content"), str) and is_text(m)]
        assert [m for m in sent if m in said] == said, "what has to do with no call is kept"

    logging.disable(logging.WARNING)
    try:
        check()
    finally:
        logging.disable(logging.NOTSET)


def is_text(message: Plain) -> bool:
    return message["role"] in ("user", "assistant", "system", "developer")


@pytest.mark.parametrize("examples", RUNS)
@pytest.mark.parametrize("shape", ["chat", "anthropic"])
def test_up_to_the_window_what_is_in_memory_is_enough(shape: str, examples: int) -> None:
    make, errors_of = SHAPES[shape]

    @settings(max_examples=examples, database=None)
    @given(EVENTS, st.integers(1, 8), st.integers(0, 8))
    def check(events: list[Event], window: int, size: int) -> None:
        size = min(size, window)
        history = made_of(make, events)
        store = ConversationStore(Reads(), window=window)
        conversation = holding(history.messages, store)
        conversation.save()
        sent = store.get(conversation.id).messages.for_llm(size)
        assert store.backend.reads == 0  # type: ignore[attr-defined]
        start = len(history.messages) - window
        if start <= 1:
            start = 0
        leading = history.messages[: leading_of(history.messages) if not start else 1]
        leading = leading[: leading_of(leading)]
        living = [
            message
            for index, message in enumerate(history.messages)
            if index >= max(start, len(leading)) and index not in history.dead
        ]
        assert not errors_of(sent, None)
        expected = longest_end(living, leading, lambda c: not errors_of(c, None), size)
        if expected != leading:  # or of a message with results, which are cut, the rest is sent
            assert sent == expected

    check()


class Reads(LocMemBackend):
    reads = 0

    def read_messages(self, id: str, start: int, stop: int) -> Any:
        self.reads += 1
        return super().read_messages(id, start, stop)


@pytest.mark.parametrize("examples", RUNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_beyond_the_window_it_is_read_once(shape: str, examples: int) -> None:
    make, errors_of = SHAPES[shape]

    @settings(max_examples=examples, database=None)
    @given(EVENTS, st.integers(1, 8), SIZES)
    def check(events: list[Event], window: int, size: int) -> None:
        history = made_of(make, events)
        store = ConversationStore(Reads(), window=window)
        conversation = holding(history.messages, store)
        conversation.save()
        sent = store.get(conversation.id).messages.for_llm(size)
        assert store.backend.reads <= (size > window)  # type: ignore[attr-defined]
        looked_at = history.messages[-(window if size <= window else window + size) :]
        newest = longest_end(history.living, [], lambda c: not errors_of(c, history.origins), 0)
        # The newest group is sent as far as it is loaded, without a reasoning that is not.
        is_loaded = len(looked_at) == len(history.messages) or any(
            each is first for each in looked_at for first in newest[:1]
        )
        assert not errors_of(sent, history.origins if is_loaded else None)
        if size == 1000:
            assert sent == history.living

    check()
