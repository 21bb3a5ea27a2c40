"""Backends that tests put in the place of a real one, each by adding one thing to it."""

import functools
from collections import Counter
from typing import Any, ClassVar

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.cache.backend import CacheBackend
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed, Record
from django_convstate.backends.reports import Health
from django_convstate.exceptions import BackendUnavailable

READS = ("load", "peek", "read_messages", "find", "exists")
WRITES = ("commit", "touch", "delete", "rename", "restore", "acquire", "renew", "release")
SERVED = ("scan", "purge", "has_queue")  # whatever the switch says
COUNTED = (*READS, *WRITES, "health", "scan", "purge", "close")


class CountingBackend(LocMemBackend):
    """Counts its calls, in `calls`."""

    name: ClassVar = "counting"
    calls: ClassVar[Counter[str]] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in COUNTED and name.removeprefix("a") not in COUNTED:
            return found

        @functools.wraps(found)
        def counted(*args: Any, **kwargs: Any) -> Any:
            type(self).calls[name] += 1
            return found(*args, **kwargs)

        return counted


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


class Switched(LocMemBackend):
    """A client of `others`, which can be switched off, wholly (`away`) or for writes (`read_only`);
    `slow`, only perhaps. `fails_after` so many writes it is away.

    What another process does, that reaches the server, goes by `others`.
    """

    name: ClassVar = "switched"
    is_shared: ClassVar = True
    away = read_only = slow = False
    fails_after: int | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.others = LocMemBackend(max_conversations=10**6, max_age=self.max_age)

    def seen_by_another(self) -> "Switched":
        """Return what another process has, with a switch of its own."""
        other = Switched(max_age=self.max_age)
        other.others = self.others
        return other

    def __getattribute__(self, name: str) -> Any:
        if name in SERVED:
            return getattr(self.others, name)
        if name not in READS and name not in WRITES:
            return super().__getattribute__(name)
        # A test may have put something in its place.
        method = vars(self).get(name) or getattr(self.others, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name in READS:
                self.refuse_if(self.away)
            else:
                self.refuse_if(self.away or self.read_only or self.fails_after == 0)
                if self.fails_after:
                    self.fails_after -= 1
            return method(*args, **kwargs)

        return call

    def refuse_if(self, refuses: bool) -> None:
        if refuses:
            raise BackendUnavailable("It was switched off.", transient=self.slow)

    def health(self) -> Health:
        return Health(self.name, connected=not self.away)


class SwitchedFailover(FailoverBackend):
    """A failover as the settings would build it, whose primary can be switched off."""

    option_names: ClassVar = ()
    primary: Switched

    def __init__(self) -> None:
        super().__init__(Switched(), LocMemBackend(max_conversations=10**6))


class NotABackend:
    """Is no backend."""


def record_of(backend: ConversationStateBackend, id: str) -> Record:
    record = backend.load(id, 10_000)
    assert record is not None
    return record
