"""One time limit for the whole of an operation in sync code.

redis-py gives each piece of a reply the time that a whole one should take, and so each step of
making a connection: a server that sends a byte now and then is waited for without end.
"""

import threading
import time
from typing import Any

from redis.connection import DefaultParser
from redis.exceptions import TimeoutError


class _Limit(threading.local):
    until: float | None = None  # by time.monotonic(); None: there is none


_limit = _Limit()


class Deadline:
    """Lets redis-py's clients in this thread wait for no longer than `seconds` in a with block. The
    same one may be entered again, and by several threads."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        _limit.until = time.monotonic() + self._seconds

    def __exit__(self, *error: object) -> None:
        _limit.until = None


class DeadlineParser(DefaultParser):  # type: ignore[misc, valid-type]
    """Reads replies for as long as the deadline allows. For hiredis's parser, the default one where
    hiredis is installed."""

    def read_from_socket(self, *args: Any, **kwargs: Any) -> Any:
        """Read what has arrived, or wait for it."""
        until = _limit.until
        if until is None:
            return super().read_from_socket(*args, **kwargs)
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("There was no answer in time.")
        # A sentinel has less time than the operation that asks it.
        each = min(left, self._socket_timeout or left)
        return super().read_from_socket(each)
