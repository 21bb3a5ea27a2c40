"""What is counted for something is about what it takes of the memory of the process."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from django_convstate.backends.records import Change, Replacement
from django_convstate.backends.toolkit.memory import (
    memory_of_change,
    memory_of_messages,
    memory_of_state,
    memory_of_texts,
)
from django_convstate.backends.toolkit.packed import PackedMessages
from django_convstate.backends.toolkit.stored import StoredConversation
from tests.support.messages import pairs

LIST = 150  # bytes, of what the items are in
KEYS = [
    pytest.param("k{}", 1, id="tiny"),
    pytest.param("k{}", 300, id="long"),
    pytest.param("ключ{}", 5, id="Cyrillic"),
    pytest.param("k{}\N{ROBOT FACE}", 1, id="wide"),
]


def measured(make: Callable[[], object]) -> tuple[int, object]:
    """Return how many bytes of memory an object takes, and the object. Threads of other tests may
    take some meanwhile, so the least of several times counts."""
    return min((_measured(make) for _ in range(5)), key=lambda found: found[0])


def _measured(make: Callable[[], object]) -> tuple[int, object]:
    make()
    callbacks, gc.callbacks[:] = gc.callbacks[:], []  # that of Hypothesis takes memory, too
    try:
        gc.collect()
        tracemalloc.start()
        made = make()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.callbacks[:] = callbacks
    return used, made


def value(length: int) -> bytes:
    return bytes(bytearray(length + 1))  # a byte alone is a constant of Python's


@pytest.mark.parametrize("count", [1, 10, 1000])
@pytest.mark.parametrize(("key", "length"), KEYS)
def test_keys_and_values(key: str, length: int, count: int) -> None:
    def make() -> dict[str, bytes]:
        return {key.format(number): value(length) for number in range(count)}

    used, state = measured(make)
    assert used <= memory_of_state(state) <= 1.4 * used + 200  # type: ignore[arg-type]
    used, texts = measured(lambda: [key.format(number) for number in range(count)])
    assert 0.9 * used <= LIST + memory_of_texts(texts) <= 1.6 * used + 200  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 300])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_messages(length: int, count: int) -> None:
    used, packed = measured(
        lambda: PackedMessages([value(length + 10) for _ in range(count)], start=0)
    )
    assert 0.9 * used <= LIST + memory_of_messages(packed) <= 1.2 * used + 200  # type: ignore[arg-type]
    used, tuples = measured(lambda: pairs(*[value(length) for _ in range(count)]))
    assert used <= LIST + memory_of_messages(tuples) <= 1.6 * used + 200  # type: ignore[arg-type]


def test_a_change() -> None:
    """Which is counted with what it began from."""

    def make() -> Change:
        return Change(
            set={f"k{number}": value(3) for number in range(100)},
            unset=[f"u{number}" for number in range(100)],
            increment={f"i{number}": number + 1000 for number in range(100)},
            expected={f"e{number}": value(3) for number in range(100)},
            replace=[
                Replacement(id=f"r{number}", old=value(30), new=value(30)) for number in range(100)
            ],
            append=pairs(*[value(30) for _ in range(100)]),
            once={f"o{number}" for number in range(100)},
        )

    used, change = measured(make)
    assert 0.9 * used <= memory_of_change(change) <= 1.4 * used  # type: ignore[arg-type]


def test_a_conversation_counts_what_it_has_by_now() -> None:
    conversation = StoredConversation(0.0, 0.0, 0.0)
    for number in range(50):
        conversation.apply(
            Change(
                set={f"k{number}": b"1" * number},
                unset=[f"k{number - 10}"],
                append=[*pairs(b"1" * number), (f"own{number}", b"2")],
                keep_messages=None if number % 7 else number,
                max_messages=40,
                drop_oldest=True,
                increment={"n": 1},
            ),
            1.0,
            None,
        )
        if number % 5 == 0:
            id, old = conversation.messages.newest(1)[0]
            new = Replacement(id=id, old=old, new=old * 100)
            conversation.apply(Change(replace=[new]), 1.0, None)
        counted = conversation.memory
        conversation.state_memory = conversation.messages.packed_size = None
        assert conversation.memory == counted
