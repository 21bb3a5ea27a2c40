"""How an outage is told, looked into and ended, and what the end of a process does."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from django_convstate import signals
from django_convstate.backends.failover import FailoverBackend, recovery
from django_convstate.backends.failover.journal import PendingWrites
from django_convstate.backends.failover.recovery import Recovery
from tests.support.backends import Switched, record_of
from tests.support.failover import append, messages_of
from tests.support.servers import wait_until


@pytest.mark.usefixtures("quick")
class TestTelling:
    def test_each_outage_is_signalled_and_logged_once(
        self, primary: Switched, backend: FailoverBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[tuple[str, dict[str, Any]]] = []

        def degraded(sender: object, **news: Any) -> None:
            told.append(("degraded", news))

        def recovered(sender: object, **news: Any) -> None:
            told.append(("recovered", news))

        signals.backend_degraded.connect(degraded, sender=primary)
        signals.backend_recovered.connect(recovered, sender=primary)
        for outage in range(2):
            primary.away = True
            for number in range(20):
                backend.commit(f"a{number}", append(b"1"))
            wait_until(lambda outage=outage: len(told) == 2 * outage + 1)
            health = backend.health()
            assert (health.connected, health.using_fallback, health.pending_replay) == (
                False,
                True,
                20,
            )
            assert health.since is not None
            primary.away = False
            wait_until(lambda outage=outage: len(told) == 2 * outage + 2)
            assert backend.health() == primary.health()
        assert [kind for kind, _ in told] == ["degraded", "recovered"] * 2
        assert "switched off" in told[0][1]["reason"]
        assert (told[1][1]["replayed"], told[1][1]["conflicts"], told[1][1]["lost"]) == (20, 0, 0)
        ours = [r.levelno for r in caplog.records if r.name == "django_convstate"]
        assert ours == [logging.ERROR, logging.WARNING] * 2
        assert caplog.text.count("20 changes replayed (0 in part), 0 lost") == 2

    def test_one_thread_probes_whatever_the_load(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        before = set(threading.enumerate())

        def probing() -> int:
            new = set(threading.enumerate()) - before
            return [thread.name for thread in new].count("convstate-recovery")

        primary.away = True
        for number in range(200):
            backend.load(f"a{number}", 5)
        assert probing() == 1
        primary.away = False
        wait_until(lambda: probing() == 0)

    def test_a_backend_closed_in_an_outage_recovers_when_it_is_read_from(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1"))
        primary.away = True
        backend.load("a", 5)
        backend.close()
        primary.away = False
        wait_until(lambda: not record_of(backend, "a").degraded, 5)

    def test_a_change_accepted_as_the_recovery_thread_ends_is_replayed(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        late: list[threading.Thread] = []

        class Ending(Recovery):
            @property
            def _is_over(self) -> bool:
                over = super()._is_over
                if over and self._lock.locked() and not late:
                    primary.away = primary.slow = True  # so that it says nothing for sure
                    late.append(threading.Thread(target=backend.commit, args=("b", append(b"1"))))
                    late[0].start()
                    wait_until(lambda: self._offline.journal.pending)
                    primary.away = False
                return over

        backend._recovery.__class__ = Ending
        primary.away = True
        backend.commit("a", append(b"1"))
        primary.away = False
        wait_until(lambda: primary.others.exists("b"), 5)
        late[0].join()


def test_a_conversation_that_cannot_be_replayed_waits_longer_each_time() -> None:
    pending, waits = PendingWrites(None), []
    for _ in range(50):
        recovery._postpone(pending)
        waits.append(pending.retry_at - time.monotonic())
    assert 0.4 < waits[0] <= 1
    assert all(14 < wait <= 30 for wait in waits[6:])


class TestEnd:
    def test_close_replays_and_signals(
        self, primary: Switched, backend: FailoverBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        primary.away = True
        backend.commit("a", append(b"1"))
        wait_until(lambda: backend.health().since)
        primary.away = False
        backend.close()
        assert messages_of(primary, "a") == [b"1"]
        assert backend.health() == primary.health()
        assert "is back" in caplog.text

    def test_close_in_an_outage_keeps_pending_changes(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.away = True
        backend.commit("a", append(b"1"))
        backend.close()
        assert messages_of(backend, "a") == [b"1"]
        primary.away = False
        backend.commit("a", append(b"2"))
        backend.close()
        assert messages_of(primary, "a") == [b"1", b"2"]

    @pytest.mark.parametrize("comes_back", [True, False])
    def test_the_end_of_the_process_replays_or_logs_what_is_lost(self, comes_back: bool) -> None:
        script = f"""
        import atexit, logging, django
        from django.conf import settings
        settings.configure(SECRET_KEY="s")
        django.setup()
        from django_convstate.backends.base import Change
        from django_convstate.backends.failover import FailoverBackend
        from django_convstate.backends.locmem import LocMemBackend
        from tests.support.backends import Switched
        from tests.support.messages import pairs
        primary = Switched()
        def show():
            primary.away = False
            print("replayed", primary.exists("a"))
        backend = FailoverBackend(primary, LocMemBackend())
        primary.away = True
        for number in range(3):
            backend.commit("a", Change(append=pairs(b"1")))
        backend.commit("b", Change(append=pairs(b"1")))
        primary.away = {not comes_back}
        import django_convstate.backends.failover.instances as module
        atexit.unregister(module._replay_at_exit)
        atexit.register(show)
        atexit.register(module._replay_at_exit)  # the last one goes first
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            check=True,
            timeout=30,
            capture_output=True,
            text=True,
        )
        assert f"replayed {comes_back}" in done.stdout
        lost = "4 changes of 2 conversations are lost with this process" in done.stderr
        assert lost is not comes_back

    def test_a_script_that_is_ended_by_a_signal_says_nothing(self) -> None:
        script = """
        import os, signal, django
        from django.conf import settings
        settings.configure(
            SECRET_KEY="s",
            CACHES={
                "default": {
                    "BACKEND": "django_redis.cache.RedisCache",
                    "LOCATION": "redis://127.0.0.1:1/0",
                }
            },
            CONVERSATION_STATE_BACKEND="redis",
        )
        django.setup()
        from django_convstate import conversations
        conversations.append("a", "user", "hello")
        assert conversations.health().pending_replay == 1
        os.kill(os.getpid(), signal.SIGTERM)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGTERM, done.stderr
        assert "are lost" not in done.stderr.replace("or they are lost", "")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_process_does_not_replay_its_parents_changes(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.away = True
        backend.commit("a", append(b"1"))
        child = os.fork()
        if child == 0:
            ok = (
                backend.health().pending_replay == 0
                and record_of(backend, "a").version == 0
                and not list(backend.fallback.scan())
                and backend.commit("a", append(b"2")).degraded
            )
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        primary.away = False
        backend.close()
        assert messages_of(primary, "a") == [b"1"]
