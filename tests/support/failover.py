"""What tests do with a failover backend."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from tests.support.backends import Switched, record_of
from tests.support.messages import bodies, pairs


@contextmanager
def made(primary: Switched, **limits: int) -> Iterator[FailoverBackend]:
    backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6), **limits)
    try:
        yield backend
    finally:
        primary.away = primary.read_only = False
        backend.close()


def append(*texts: bytes, **more: Any) -> Change:
    return Change(append=pairs(*texts), **more)


def messages_of(backend: ConversationStateBackend, id: str) -> list[bytes]:
    return bodies(record_of(backend, id).messages)


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


class Clock:
    """Goes on by itself, and can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._time, self._ahead = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: self._time() + self._ahead)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds
