"""Turns around an outage: nobody begins before another in this process is done, and a turn that was
lost cannot be saved."""

import time
from collections.abc import Iterator

import pytest

from django_convstate import ConversationConflict
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from tests.support.backends import Switched
from tests.support.failover import made, messages_of
from tests.support.messages import pairs
from tests.support.wall_clock import set_wall_clock

LONG, SHORT = 60.0, 0.001


@pytest.fixture
def primary() -> Switched:
    return Switched()


@pytest.fixture
def backend(primary: Switched) -> Iterator[FailoverBackend]:
    backend = FailoverBackend(primary, LocMemBackend())
    backend.commit("a", Change(append=pairs(b"0")))
    yield backend
    primary.away = False
    backend.close()


def position(backend: FailoverBackend, lease: str, seconds: float = LONG) -> int:
    return backend.acquire("a", lease, seconds, 10).position


def say(backend: FailoverBackend, text: bytes, lease: str) -> None:
    backend.commit("a", Change(append=pairs(text), lease=lease, release=True))


def test_a_turn_granted_by_the_primary_is_waited_for_in_an_outage(
    primary: Switched, backend: FailoverBackend
) -> None:
    assert position(backend, "first") == 0
    primary.away = True
    assert position(backend, "second") == 1
    assert backend.renew("a", "first", LONG)
    say(backend, b"1", "first")
    assert position(backend, "second") == 0
    say(backend, b"2", "second")
    primary.away = False
    backend.close()
    assert messages_of(primary, "a") == [b"0", b"1", b"2"]


def test_two_processes_grant_the_same_turn_in_an_outage(
    primary: Switched, backend: FailoverBackend
) -> None:
    elsewhere = primary.seen_by_another()
    with made(elsewhere) as other:
        primary.away = elsewhere.away = True
        assert position(backend, "here") == 0
        assert position(other, "there") == 0
        assert position(backend, "next") == 1


def test_a_jump_of_the_wall_clock_ends_no_turn_in_an_outage(
    primary: Switched, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary.away = True
    assert position(backend, "first") == 0
    now = time.time
    for hours in (5, -5):
        set_wall_clock(monkeypatch, lambda hours=hours: now() + hours * 3600)  # type: ignore[misc]
        assert position(backend, "second") == 1
        assert backend.renew("a", "first", LONG)
    say(backend, b"1", "first")


def test_a_turn_granted_in_an_outage_goes_on_after_it(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.away = True
    assert position(backend, "first") == 0
    primary.away = False
    backend.close()
    assert position(backend, "second") == 1
    assert backend.renew("a", "first", LONG)
    say(backend, b"1", "first")
    assert position(backend, "second") == 0


def test_a_turn_that_lapsed_in_an_outage_is_fenced(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.away = True
    assert position(backend, "first", SHORT) == 0
    while position(backend, "second"):
        pass
    with pytest.raises(ConversationConflict, match="turn was lost"):
        say(backend, b"1", "first")
    say(backend, b"2", "second")
    with pytest.raises(ConversationConflict, match="turn was lost"):
        say(backend, b"1", "first")
    assert messages_of(backend, "a") == [b"0", b"2"]


def test_a_turn_released_by_a_commit_is_free_in_an_outage(
    primary: Switched, backend: FailoverBackend
) -> None:
    assert position(backend, "first") == 0
    say(backend, b"1", "first")
    primary.away = True
    assert position(backend, "second") == 0


def test_a_commit_that_failed_over_releases_the_turn_in_memory(
    primary: Switched, backend: FailoverBackend
) -> None:
    primary.away = True
    assert position(backend, "first") == 0
    assert position(backend, "second") == 1
    primary.away = False
    backend.close()
    primary.away = True  # and this is found out by the commit alone
    say(backend, b"1", "first")
    assert position(backend, "second") == 0
    assert messages_of(backend, "a") == [b"0", b"1"]


def test_one_slow_renewal_leaves_the_turn_with_the_primary(
    primary: Switched, backend: FailoverBackend
) -> None:
    assert position(backend, "first") == 0
    primary.slow = True

    def slow(*arguments: object) -> bool:
        primary.refuse_if(True)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(primary, "renew", slow)
        assert backend.renew("a", "first", LONG)
    assert not backend.fallback.has_queue("a")
    assert backend.renew("a", "first", LONG)
    say(backend, b"1", "first")
    assert messages_of(primary, "a") == [b"0", b"1"]
