"""What time it is, for all that expires and all that is dated.

Write `clock.time()`, and do not import the functions by name: `django_convstate.testing.clock`
moves both. What is dated, or kept by a server, goes by `time`; how long something lives in the
memory of this process, by `monotonic`: a wall clock that is set makes nothing there expire. Waits,
time limits and measurements go by the module `time`: they really take place.
"""

import time as _time
from collections.abc import Callable
from typing import Final

time: Callable[[], float] = _time.time  # seconds since the epoch
monotonic: Callable[[], float] = _time.monotonic  # seconds, for durations

ahead: float = 0.0  # seconds by which both are, in a test

# Called each time the clock is set, with the seconds by which it is ahead: for scripts that read
# the clock of a server, which cannot be moved.
followers: Final[list[Callable[[float], None]]] = []


def set_ahead(seconds: float) -> None:
    """Have the clock of this process be so many seconds ahead. For tests."""
    global ahead, time, monotonic
    ahead, time, monotonic = seconds, _time.time, _time.monotonic
    if seconds:
        time = lambda: _time.time() + seconds  # noqa: E731
        monotonic = lambda: _time.monotonic() + seconds  # noqa: E731
    for follow in followers:
        follow(seconds)
