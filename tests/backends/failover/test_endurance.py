"""Recovery goes on, whatever happens to its threads, and whatever one conversation does."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_convstate import BackendUnavailable, signals
from django_convstate.backends.failover import FailoverBackend, recovery
from django_convstate.backends.records import Change
from tests.support.backends import Switched
from tests.support.failover import append, messages_of
from tests.support.servers import wait_until
from tests.support.threads import refuse_threads

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "SHORTEST_RETRY_WAIT", 0.02)
    monkeypatch.setattr(recovery, "LONGEST_RETRY_WAIT", 0.05)
    monkeypatch.setattr(recovery, "ERROR_PAUSE", 0.02)


class Told:
    """The signals of one primary, in the order in which they came."""

    def __init__(self, primary: Switched) -> None:
        self.names: list[str] = []
        self.primary = primary

    def degraded(self, sender: object, **news: Any) -> None:
        self.names.append("degraded")

    def recovered(self, sender: object, **news: Any) -> None:
        self.names.append("recovered")

    def __enter__(self) -> "Told":
        signals.backend_degraded.connect(self.degraded, sender=self.primary)
        signals.backend_recovered.connect(self.recovered, sender=self.primary)
        return self

    def __exit__(self, *_: object) -> None:
        signals.backend_degraded.disconnect(self.degraded, sender=self.primary)
        signals.backend_recovered.disconnect(self.recovered, sender=self.primary)


@pytest.fixture
def told(primary: Switched) -> Iterator[list[str]]:
    with Told(primary) as told:
        yield told.names


class TestThreads:
    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """The names of threads that cannot be started, as where the process has too many."""
        return refuse_threads(monkeypatch)

    @pytest.mark.parametrize(
        "notices",
        [
            lambda backend: backend.commit("b", append(b"1")),
            lambda backend: backend.peek("b", 1),
            lambda backend: backend.health(),
        ],
    )
    def test_one_that_cannot_be_started_is_started_by_the_next_who_notices(
        self,
        primary: Switched,
        backend: FailoverBackend,
        refused: set[str],
        told: list[str],
        notices: Callable[[FailoverBackend], object],
    ) -> None:
        refused.add("convstate-recovery")
        primary.away = True
        for _ in range(3):
            assert backend.commit("a", append(b"1")).degraded
        refused.clear()
        notices(backend)
        wait_until(lambda: told == ["degraded"])
        primary.away = False
        wait_until(lambda: told == ["degraded", "recovered"])
        assert messages_of(primary, "a") == [b"1"] * 3

    def test_signals_wait_until_there_is_a_thread(
        self, primary: Switched, backend: FailoverBackend, refused: set[str], told: list[str]
    ) -> None:
        refused.add("convstate-signal")
        primary.away = True
        backend.commit("a", append(b"1"))
        primary.away = False
        wait_until(lambda: primary.others.exists("a"))
        assert told == []
        refused.clear()
        wait_until(lambda: told == ["degraded", "recovered"])

    def test_close_needs_no_thread(
        self, primary: Switched, backend: FailoverBackend, refused: set[str]
    ) -> None:
        refused |= {"convstate-recovery", "convstate-signal"}
        primary.away = True
        backend.commit("a", append(b"1"))
        primary.away = False
        backend.close()
        assert messages_of(primary, "a") == [b"1"]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_one_that_has_died_is_started_again(
        self, primary: Switched, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        died = threading.Event()

        def commit(id: str, change: Change) -> Any:
            died.set()
            raise SystemExit

        primary.away = True
        backend.commit("a", append(b"1"))
        monkeypatch.setattr(primary, "commit", commit)
        primary.away = False
        assert died.wait(30)
        monkeypatch.undo()
        wait_until(lambda: backend.peek("b", 1) is None and primary.others.exists("a"))


class Broken(logging.Handler):
    """A log handler that does not handle its own errors."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("The disk is full.")


class TestErrors:
    def test_a_log_handler_that_fails(
        self, primary: Switched, backend: FailoverBackend, told: list[str]
    ) -> None:
        logger, handler = logging.getLogger("django_convstate"), Broken()
        logger.addHandler(handler)
        try:
            primary.away = True
            for number in range(3):
                backend.commit(f"a{number}", append(b"1"))
            primary.away = False
            wait_until(lambda: told == ["degraded", "recovered"])
        finally:
            logger.removeHandler(handler)
        assert all(primary.exists(f"a{number}") for number in range(3))

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit()])
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_receiver_of_a_signal_that_fails(
        self,
        primary: Switched,
        backend: FailoverBackend,
        told: list[str],
        error: BaseException,
    ) -> None:
        def fail(sender: object, **news: object) -> None:
            raise error

        signals.backend_degraded.connect(fail, sender=primary)
        primary.away = True
        backend.commit("a", append(b"1"))
        wait_until(lambda: told == ["degraded"])
        primary.away = False
        wait_until(lambda: told == ["degraded", "recovered"])

    def test_a_receiver_that_does_not_return_holds_up_signals_only(
        self, primary: Switched, backend: FailoverBackend, told: list[str]
    ) -> None:
        over = threading.Event()

        def wait(sender: object, **news: object) -> None:
            over.wait(60)

        signals.backend_degraded.connect(wait, sender=primary)
        before = threading.active_count()
        for number in range(5):
            primary.away = True
            backend.commit(f"a{number}", append(b"1"))
            primary.away = False
            wait_until(lambda: not backend.health().using_fallback)
            assert primary.exists(f"a{number}")
        assert threading.active_count() <= before + 2, "one that signals, one that recovers"
        over.set()
        wait_until(lambda: told[-1:] == ["recovered"])

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), BackendUnavailable("too slow")])
    def test_a_load_that_cannot_be_made_up_for(
        self,
        primary: Switched,
        backend: FailoverBackend,
        monkeypatch: pytest.MonkeyPatch,
        told: list[str],
        error: Exception,
    ) -> None:
        def touch(id: str, ttl: float | None = None) -> bool:
            raise error

        monkeypatch.setattr(primary, "touch", touch)
        primary.away = True
        backend.load("a", 1)
        backend.commit("b", append(b"1"))
        primary.away = False
        wait_until(lambda: told == ["degraded", "recovered"])
        assert primary.exists("b")

    def test_a_shard_that_cannot_be_told(
        self, primary: Switched, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = threading.Event()

        def shard_of(id: str) -> str:
            if threading.current_thread().name == "convstate-recovery" and not failed.is_set():
                failed.set()
                raise RuntimeError("no slots are known")
            return ""

        primary.away = True
        monkeypatch.setattr(primary, "shard_of", shard_of)
        backend.commit("a", append(b"1"))
        assert failed.wait(30)
        primary.away = False
        wait_until(lambda: primary.others.exists("a"))


class TestOneConversation:
    """One that cannot be replayed harms no other."""

    @pytest.fixture
    def stuck(self, primary: Switched, monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
        """The errors by which the primary refuses what is committed to some conversations."""
        errors = dict[str, Exception]()

        def commit(id: str, change: Change) -> Any:
            if id in errors and change.append:
                raise errors[id]
            primary.refuse_if(primary.away)
            return primary.others.commit(id, change)

        monkeypatch.setattr(primary, "commit", commit)
        return errors

    @pytest.mark.parametrize(
        "error", [BackendUnavailable("too slow"), RuntimeError("a bug")], ids=["slow", "bug"]
    )
    def test_that_cannot_be_replayed_neither_opens_the_breaker_nor_delays_others(
        self,
        primary: Switched,
        backend: FailoverBackend,
        stuck: dict[str, Exception],
        error: Exception,
        told: list[str],
    ) -> None:
        names = [f"stuck{number}" for number in range(5)]
        stuck |= dict.fromkeys(names, error)
        primary.away = True
        for name in [*names, "other"]:
            backend.commit(name, append(b"1"))
        primary.away = False
        wait_until(lambda: primary.others.exists("other"))
        tries = 0
        while tries < 20:
            assert not backend.commit("more", append(b"1")).degraded
            tries = sum(pending_failures(backend, name) for name in names)
        assert told == ["degraded"]
        assert backend.health().pending_replay == 5
        stuck.clear()
        wait_until(lambda: not backend.health().pending_replay)
        assert [messages_of(primary, name) for name in names] == [[b"1"]] * 5

    def test_whose_load_takes_too_long_opens_no_breaker(
        self,
        primary: Switched,
        backend: FailoverBackend,
        monkeypatch: pytest.MonkeyPatch,
        told: list[str],
    ) -> None:
        def load(id: str, window: int) -> Any:
            raise BackendUnavailable("too slow")

        backend.commit("large", append(b"1"))
        monkeypatch.setattr(primary, "load", load)
        for _ in range(50):
            record = backend.load("large", 10)
            assert record is not None
            assert record.degraded
            wait_until(lambda: not backend.health().using_fallback)
        monkeypatch.undo()
        assert messages_of(backend, "large") == [b"1"]
        record = backend.load("large", 10)
        assert record is not None
        assert not record.degraded
        assert told == []

    def test_on_a_primary_that_is_away_a_probe_opens_it(
        self, primary: Switched, backend: FailoverBackend, told: list[str]
    ) -> None:
        backend.commit("only", append(b"1"))
        primary.away = primary.slow = True
        for _ in range(3):
            backend.load("only", 10)
        wait_until(lambda: told == ["degraded"])
        primary.away = False
        wait_until(lambda: told == ["degraded", "recovered"])


def pending_failures(backend: FailoverBackend, id: str) -> int:
    pending = backend._offline.journal.get(id)
    return 0 if pending is None else pending.failures
