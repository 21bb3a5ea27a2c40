"""A forked child has sound locks, whatever other threads of its parent were doing."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar

import pytest

from django_convstate import ConversationStore
from django_convstate.backends.cache import lock as cache_lock
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from django_convstate.backends.toolkit import forksafe
from django_convstate.conversation import wakeups
from tests.support.backends import Switched
from tests.support.messages import pairs

# What a thread does without pause while its process is forked, and then a child.
USES = {
    "locmem": """
        from django_convstate.backends.locmem import LocMemBackend
        backend = LocMemBackend()
        def use():
            backend.commit("a", Change(append=pairs(b"1")))
            backend.acquire("a", "lease", 1.0, 1)
            backend.release("a", "lease")
        """,
    "cache lock": """
        from django.core.cache.backends.dummy import DummyCache
        from django_convstate.backends.cache.epochs import Keys
        from django_convstate.backends.cache.lock import hold
        cache = DummyCache("", {})
        def use():
            with hold(cache, Keys("convstate", "a")):
                pass
        """,
    "wakeups": """
        from django_convstate.conversation.wakeups import Waiter, turn_ended
        def use():
            with Waiter("a", lambda: None) as waiter:
                waiter.at_position(1)
                turn_ended("a")
        """,
    "failover": """
        from django_convstate.backends.failover import FailoverBackend
        from django_convstate.backends.locmem import LocMemBackend
        from tests.support.backends import Switched
        backend = FailoverBackend(Switched(), LocMemBackend())
        backend.primary.away = True
        def use():
            assert backend.commit("a", Change(append=pairs(b"1"))).degraded
            backend.acquire("a", "lease", 1.0, 1)
            backend.release("a", "lease")
        """,
}
SCRIPT = """
import os, signal, sys, threading, warnings
import django
from django.conf import settings
settings.configure(SECRET_KEY="s")
django.setup()
from django_convstate.backends.records import Change
from tests.support.messages import pairs

warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not mix
USE
stop = threading.Event()
def work():
    while not stop.is_set():
        use()
worker = threading.Thread(target=work, name="worker", daemon=True)
worker.start()
for _ in range(150):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # which ends it, should it wait for ever
        try:
            use()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
stop.set()
worker.join()
os._exit(0)  # an outage is not over
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name", USES)
def test_a_child_can_use_what_a_thread_of_its_parent_was_using(name: str) -> None:
    script = SCRIPT.replace("USE", textwrap.dedent(USES[name]))
    # Not measured by coverage, whose own lock a child would inherit.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, env=env)


class LeafLock:
    """A lock that notes when a thread waits for it with another one of its kind in hand."""

    nested: ClassVar[set[str]] = set()
    taken: ClassVar[set[int]] = set()
    in_hand = threading.local()

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        if getattr(self.in_hand, "one", None):
            self.nested.add(sys._getframe(1).f_code.co_qualname)
        self.lock.acquire()
        self.in_hand.one = True
        self.taken.add(id(self))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.in_hand.one = False
        self.lock.release()


def test_no_thread_waits_for_such_a_lock_with_another_one_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a fork, which takes all of them in any order, could wait for ever."""
    monkeypatch.setattr(forksafe, "lock", LeafLock)
    monkeypatch.setattr(cache_lock, "_guard", LeafLock())
    monkeypatch.setattr(wakeups, "_guard", LeafLock())
    monkeypatch.setattr(LeafLock, "nested", set())
    monkeypatch.setattr(LeafLock, "taken", set())
    primary = Switched()
    backend = FailoverBackend(primary, LocMemBackend())
    stores = [ConversationStore("locmem"), ConversationStore("cache"), ConversationStore(backend)]
    ids = {}
    for store in stores:
        conversation = store.create()
        conversation.messages.append("user", "hello")
        conversation.save()
        ids[store] = conversation.id

    def use(store: ConversationStore) -> None:
        with store.get(ids[store]).turn() as conversation:
            conversation.messages.append("user", "hello")

    def in_threads(function: Callable[[ConversationStore], None]) -> None:
        threads = [threading.Thread(target=function, args=[s]) for s in stores for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_threads(use)
    primary.away = True
    in_threads(use)
    backend.commit("a", Change(append=pairs(b"1")))
    primary.away = False
    backend.close()
    assert len(LeafLock.taken) >= 4
    assert LeafLock.nested == set()
