"""What tests do with a failover backend."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_convstate import clock, signals
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create
from tests.support.backends import Switched, record_of
from tests.support.messages import bodies, pairs


@contextmanager
def made(primary: Switched, **limits: Any) -> Iterator[FailoverBackend]:
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
    """Time that goes on by itself, and can be put forward: both clocks of what expires."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monkeypatch.setattr(clock, "time", self.time)
        monkeypatch.setattr(clock, "monotonic", self.monotonic)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds

    def time(self) -> float:
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead


class Outage:
    """A conversation of three messages that is known here. The primary is away; `others` reach it.

    `end` lets it come back, has everything replayed, and returns how the conversation is then.
    """

    def __init__(self) -> None:
        self.primary = Switched()
        self.others = self.primary.others
        self.backend = FailoverBackend(self.primary, LocMemBackend(max_conversations=10**6))
        first = Change(create=Create.MUST_BE_NEW, append=pairs(b"1", b"2", b"3"), set={"n": b"10"})
        self.backend.commit("a", first)
        self.stats: dict[str, Any] = {}
        signals.backend_recovered.connect(self._recovered, sender=self.primary)
        self.primary.away = True

    def _recovered(self, sender: object, signal: object, **stats: Any) -> None:
        self.stats = stats

    def commit(self, **change: Any) -> int:
        return self.backend.commit("a", Change(**change)).message_count

    def others_commit(self, **change: Any) -> None:
        self.others.commit("a", Change(**change))

    def end(self) -> Any:
        self.primary.away = False
        self.backend.close()
        assert self.backend.health().pending_replay == 0
        return self.others.load("a", 100)

    @property
    def conflicts_and_lost(self) -> tuple[int, int]:
        return self.stats["conflicts"], self.stats["lost"]
