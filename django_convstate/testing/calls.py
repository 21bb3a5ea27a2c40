"""Counting what is asked of the store."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..observing import observers


@contextmanager
def assert_store_calls(number: int) -> Iterator[list[str]]:
    """Assert that a with block asks the stores so many times, in whatever thread. What was asked is
    in the list that it yields: "load", "commit", "acquire". A listing is not counted.

        with assert_store_calls(2):
            client.post("/chat", {"text": "hi"})
    """
    calls: list[str] = []

    def observe(operation: str, backend: str, seconds: float, outcome: str) -> None:
        calls.append(operation if outcome == "ok" else f"{operation} ({outcome})")

    observers.append(observe)
    try:
        yield calls
    finally:
        observers.remove(observe)
    if len(calls) != number:
        raise AssertionError(
            f"The store was asked {len(calls)} times, not {number}: {', '.join(calls) or 'nothing'}"
        )
