"""What only the LocMem backend promises: bounds, tidiness, and sanity after a fork."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create
from tests.support.messages import pairs


def fill(backend: LocMemBackend, count: int, prefix: str = "c", ttl: float = 60.0) -> None:
    for number in range(count):
        backend.commit(f"{prefix}{number}", Change(ttl=ttl, append=pairs(b"1")))


def ids(backend: LocMemBackend) -> set[str]:
    return {summary.id for summary in backend.scan()}


def test_a_full_backend_evicts_the_fifth_that_is_idle_longest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = LocMemBackend(max_conversations=1000)
    fill(backend, 1000)
    assert len(ids(backend)) == 1000
    for number in range(100):  # the oldest hundred, but in use
        backend.load(f"c{number}", 1)
    backend.commit("one more", Change(append=pairs(b"1")))
    expected = {f"c{n}" for n in range(100)} | {f"c{n}" for n in range(300, 1000)} | {"one more"}
    assert ids(backend) == expected
    assert "dropped the 200 of 1000" in caplog.text
    fill(backend, 199, "new")
    assert len(ids(backend)) == 1000


def test_expired_conversations_are_dropped_before_any_is_evicted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = LocMemBackend(max_conversations=10)
    fill(backend, 5, "kept")
    fill(backend, 5, "expired", ttl=0.05)
    time.sleep(0.06)
    fill(backend, 5, "new")
    assert ids(backend) == {f"{name}{n}" for name in ("kept", "new") for n in range(5)}
    assert caplog.text == ""


def test_expired_conversations_are_dropped_by_later_commits() -> None:
    backend = LocMemBackend()
    fill(backend, 100, ttl=0.5)
    time.sleep(1.1)
    backend.commit("one", Change(append=pairs(b"1")))
    assert backend.health().detail == "1 of 1000 conversations in this process"


def test_no_thread_is_started() -> None:
    before = threading.enumerate()
    fill(LocMemBackend(), 10)
    assert threading.enumerate() == before


def test_a_backend_for_one_conversation_keeps_the_last() -> None:
    backend = LocMemBackend(max_conversations=1)
    fill(backend, 3)
    assert ids(backend) == {"c2"}


def test_an_evicted_id_can_be_created_again() -> None:
    backend = LocMemBackend(max_conversations=1)
    fill(backend, 2)
    backend.commit("c0", Change(create=Create.MUST_BE_NEW, append=pairs(b"1")))
    assert ids(backend) == {"c0"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_in_mid_commit_leaves_the_child_a_working_backend() -> None:
    """In a process of its own: a thread commits without pause while children are forked."""
    script = textwrap.dedent(
        """
        import os, threading, warnings
        from django_convstate.backends.base import Change
        from django_convstate.backends.locmem import LocMemBackend

        warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not mix
        backend, stop = LocMemBackend(), threading.Event()

        def commit():
            while not stop.is_set():
                backend.commit("a", Change(increment={"n": 1}, append=[("m", b"1")]))

        worker = threading.Thread(target=commit)
        worker.start()
        for _ in range(200):
            child = os.fork()
            if child == 0:
                record = backend.load("a", 1)
                whole = record is None or int(record.state["n"]) == record.message_count
                backend.commit("b", Change(append=[("m", b"1")]))
                os._exit(0 if whole else 1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        stop.set()
        worker.join()
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
