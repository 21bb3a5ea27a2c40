"""A fork at any moment: the parent replays what it has accepted, and a child begins without it."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from django_convstate import ConversationStore
from django_convstate.backends.failover import FailoverBackend
from tests.support.backends import Switched
from tests.support.failover import append, messages_of
from tests.support.places import on
from tests.support.servers import Server, free_ports, wait_until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.usefixtures("quick"),
]


def succeeds_in_child(work: Callable[[], bool]) -> bool:
    """Fork, and return what `work` does in the child."""
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = work()
        finally:
            os._exit(0 if ok else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def goes_through_an_outage(primary: Switched, backend: FailoverBackend) -> bool:
    """Accept something here, and replay it: nothing else is pending in this process."""
    began_clean = backend.health().pending_replay == 0
    primary.away = True
    assert backend.commit("child", append(b"1")).degraded
    primary.away = False
    wait_until(lambda: not backend.health().using_fallback)
    return began_clean and messages_of(primary, "child") == [b"1"]


def test_with_an_open_breaker_and_a_journal(primary: Switched, backend: FailoverBackend) -> None:
    primary.away = True
    for number in range(5):
        backend.commit(f"a{number}", append(b"1"))
    for _ in range(20):
        assert succeeds_in_child(lambda: goes_through_an_outage(primary, backend))
    primary.away = False
    wait_until(lambda: not backend.health().using_fallback)
    assert [messages_of(primary, f"a{number}") for number in range(5)] == [[b"1"]] * 5
    assert not primary.exists("child")


def test_while_the_recovery_thread_replays(
    primary: Switched, backend: FailoverBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_replaying, may_go_on, commit = threading.Event(), threading.Event(), primary.others.commit

    def wait_and_commit(id: str, change: object) -> object:
        if id == "a":
            is_replaying.set()
            may_go_on.wait(60)
        return commit(id, change)  # type: ignore[arg-type]

    primary.away = True
    backend.commit("a", append(b"1"))
    monkeypatch.setattr(primary, "commit", wait_and_commit)
    primary.away = False
    assert is_replaying.wait(30)
    monkeypatch.undo()
    assert succeeds_in_child(lambda: goes_through_an_outage(primary, backend))
    may_go_on.set()
    wait_until(lambda: not backend.health().using_fallback)
    assert messages_of(primary, "a") == [b"1"]


@pytest.fixture
def holder(backend: FailoverBackend) -> Iterator[None]:
    """A thread that holds every lock of the backend that a child must not find locked."""
    backend.load("a", 1)
    recovery = backend._recovery
    locks = [
        backend._offline.lock,
        backend._known._lock,
        recovery._lock,
        recovery._announcements._lock,
        recovery._logged._lock,
        *(shard.breaker._lock for shard in recovery._shards.values()),
    ]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("holder")
def test_while_locks_are_held(primary: Switched, backend: FailoverBackend) -> None:
    assert succeeds_in_child(lambda: goes_through_an_outage(primary, backend))


def test_64_processes_replay_what_each_has_accepted(tmp_path: Path, settings: object) -> None:
    """On a real server, which is away when they are forked, and the parent has accepted
    something already."""
    server = Server(tmp_path, free_ports(1)[0])
    script = f"""
        import os, sys, time, warnings
        import django
        from django.conf import settings
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not mix
        settings.configure(
            SECRET_KEY="s",
            CACHES={{"default": {{
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": "redis://127.0.0.1:{server.port}/0",
            }}}},
            CONVERSATION_STATE_BACKEND="redis",
        )
        django.setup()
        from django_convstate import conversations

        def accept(name):
            conversations.append("shared", "user", name)
            conversations.append("own-" + name, "user", name)

        def recover():
            give_up = time.monotonic() + 120
            while conversations.health().using_fallback:
                assert time.monotonic() < give_up
                time.sleep(0.1)

        accept("parent")
        assert conversations.health().pending_replay == 2
        told, tell = os.pipe()
        children = []
        for number in range(64):
            child = os.fork()
            if child == 0:
                ok = False
                try:
                    ok = conversations.health().pending_replay == 0
                    accept(f"child{{number}}")
                    os.write(tell, b".")
                    recover()
                finally:
                    os._exit(0 if ok else 1)
            children.append(child)
        for _ in children:
            os.read(told, 1)
        print("all have accepted", flush=True)
        recover()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(sum(codes), "failed", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    names = ["parent", *(f"child{number}" for number in range(64))]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as parent,
    ):
        assert parent.stdout is not None
        try:
            assert parent.stdout.readline() == "all have accepted\n"
            server.start()
            assert parent.stdout.readline() == "0 failed\n"
            assert parent.wait(60) == 0
            store = ConversationStore(on(settings, f"redis://127.0.0.1:{server.port}/0"))
            said = [message["content"] for message in store.get("shared").messages.all()]
            assert sorted(said) == sorted(names)
            for name in names:
                assert [each["content"] for each in store.get(f"own-{name}").messages] == [name]
            store.close()
        finally:
            parent.kill()
            server.kill()
