"""What the repository adds to a backend: observers of its operations."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from django_convstate import ConversationConflict, ConversationStore
from django_convstate.observing import Observer, observers

Seen = list[tuple[str, str, str]]


@pytest.fixture
def seen() -> Iterator[Seen]:
    """The operations that an observer is told of: name, backend, outcome."""
    seen: Seen = []

    def observe(operation: str, backend: str, seconds: float, outcome: str) -> None:
        assert 0 <= seconds < 60
        seen.append((operation, backend, outcome))

    with observing(observe):
        yield seen


class observing:  # noqa: N801 - used as a function
    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def __enter__(self) -> None:
        observers.append(self.observer)

    def __exit__(self, *error: object) -> None:
        observers.remove(self.observer)


def test_an_observer_is_told_of_each_operation_with_its_outcome(seen: Seen) -> None:
    store = ConversationStore("locmem")
    conversation = store.create()
    conversation["a"] = 1
    conversation.save()
    store.get(conversation.id)
    conversation["a"] = 2
    with pytest.raises(ConversationConflict):
        conversation.save(expected_version=7)
    store.health()
    store.purge()
    assert seen == [
        ("commit", "locmem", "ok"),
        ("load", "locmem", "ok"),
        ("commit", "locmem", "ConversationConflict"),
        ("health", "locmem", "ok"),
        ("purge", "locmem", "ok"),
    ]


def test_twins_are_observed_under_the_name_of_the_operation(seen: Seen) -> None:
    async def visit() -> None:
        store = ConversationStore("locmem")
        conversation = await store.aopen("a")
        async with conversation.aturn():
            conversation["a"] = 1
        await store.aget("a")

    asyncio.run(visit())
    assert [operation for operation, _, _ in seen] == ["load", "acquire", "commit", "load"]


def test_an_observer_that_fails_is_logged_and_changes_nothing(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("an observer's own trouble")

    with observing(fail), caplog.at_level(logging.ERROR):
        store = ConversationStore("locmem")
        store.append("a", "user", "hello")
    assert store.exists("a")
    assert "An observer of the conversation store failed." in caplog.text
    assert [operation for operation, _, _ in seen] == ["commit", "exists"]
