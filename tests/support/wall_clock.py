"""The wall clock of the machine, as somebody sets it. The monotonic clock goes on."""

import time
from collections.abc import Callable

import pytest

from django_convstate import clock


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    """Let `now` say what time it is, in seconds since the epoch, to our code and all other."""
    monkeypatch.setattr(time, "time", now)
    monkeypatch.setattr(clock, "time", now)


def jump(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Set it by so many hours, forward or back."""
    now = time.time
    set_wall_clock(monkeypatch, lambda: now() + hours * 3600)
