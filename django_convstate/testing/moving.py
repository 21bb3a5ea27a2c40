"""A clock that tests can move, for whatever expires: conversations, turns, tokens, tombstones.

What a server expires by a clock of its own, Redis or a cache, is aged instead: the time to live of
its keys is shortened, and the scripts that ask Redis for the time are told a later one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .. import clock as real
from .isolation import current_stores


class Clock:
    """Moves the time of django-convstate, in all threads. Nothing waits: what really takes time, a
    turn that is waited for or a time limit, takes as long as before."""

    def move(self, seconds: float) -> None:
        """Let so many seconds pass, until the end of the test.

        Raises:
            ValueError: time does not go back.
            RuntimeError: the test has no empty store, and would change the time of others.
        """
        if not seconds > 0:
            raise ValueError(f"The clock is moved forward, by seconds above 0, not by {seconds}.")
        self._move(seconds)

    @contextmanager
    def ahead(self, seconds: float) -> Iterator[None]:
        """Let so many seconds pass, for the length of a with block. What has expired meanwhile may
        be gone for good. Raises as `move` does."""
        self.move(seconds)
        try:
            yield
        finally:
            self._move(-seconds)

    def _move(self, seconds: float) -> None:
        stores = current_stores()
        real.set_ahead(real.ahead + seconds)
        for backend in stores.backends():
            backend.age(seconds)


clock: Final = Clock()
