"""Backends that tests put in the place of a real one, each by adding one thing to it."""

from collections import Counter
from typing import Any, ClassVar

from django_convstate.backends.base import (
    Change,
    Committed,
    ConversationStateBackend,
    Record,
)
from django_convstate.backends.cache import CacheBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.exceptions import BackendUnavailable

COUNTED = (
    "load",
    "commit",
    "read_messages",
    "exists",
    "touch",
    "delete",
    "acquire",
    "renew",
    "release",
    "health",
    "scan",
    "purge",
    "close",
)


class CountingBackend(LocMemBackend):
    """Counts its calls, in `calls`."""

    name: ClassVar = "counting"
    calls: ClassVar[Counter[str]] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name in COUNTED or name.removeprefix("a") in COUNTED:
            type(self).calls[name] += 1
        return super().__getattribute__(name)


class SharedBackend(LocMemBackend):
    """Says that other processes see it, so that the commands have something to work on. In a
    test there is one process only, and so that is true."""

    name: ClassVar = "shared"
    is_shared: ClassVar = True


class AwayBackend(CacheBackend):
    """The cache backend on an address where nobody listens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"cache_alias": "unreachable"})


class LosesReplies(LocMemBackend):
    """Applies each change, but loses as many answers as `to_lose` says."""

    to_lose = 0

    def commit(self, id: str, change: Change) -> Committed:
        committed = super().commit(id, change)
        if self.to_lose:
            self.to_lose -= 1
            raise BackendUnavailable("The reply was lost.")
        return committed


class LosesRequests(LocMemBackend):
    """Does not even get as many changes as `to_lose` says."""

    to_lose = 0

    def commit(self, id: str, change: Change) -> Committed:
        if self.to_lose:
            self.to_lose -= 1
            raise BackendUnavailable("The request was lost.")
        return super().commit(id, change)


class NotABackend:
    """Is no backend."""


def record_of(backend: ConversationStateBackend, id: str) -> Record:
    record = backend.load(id, 10_000)
    assert record is not None
    return record
