"""Fixtures for the tests of the failover backend."""

from collections.abc import Iterator

import pytest

from django_convstate.backends.failover import FailoverBackend, breaker
from tests.support.backends import Switched
from tests.support.failover import Clock, Outage, made


@pytest.fixture
def primary() -> Switched:
    return Switched()


@pytest.fixture
def backend(primary: Switched) -> Iterator[FailoverBackend]:
    with made(primary) as backend:
        yield backend


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the probes come after hundredths of a second."""
    monkeypatch.setattr(breaker, "SHORTEST_PROBE_WAIT", 0.02)
    monkeypatch.setattr(breaker, "LONGEST_PROBE_WAIT", 0.05)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def outage() -> Iterator[Outage]:
    outage = Outage()
    yield outage
    outage.end()
