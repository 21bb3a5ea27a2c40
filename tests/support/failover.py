"""What tests do with a failover backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from tests.support.backends import Switched


@contextmanager
def made(primary: Switched, **limits: int) -> Iterator[FailoverBackend]:
    backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6), **limits)
    try:
        yield backend
    finally:
        primary.away = primary.read_only = False
        backend.close()


def append(*texts: bytes, **more: Any) -> Change:
    return Change(append=texts, **more)


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]
