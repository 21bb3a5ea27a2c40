"""A turn is renewed as long as its block lasts, and one that is short starts no thread for that."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_convstate import Conversation, ConversationBusy, ConversationStore, clock
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.conversation import turn as turns
from django_convstate.conversation.renewing import WATCHER
from tests.support.places import slow_but
from tests.support.servers import wait_until
from tests.support.threads import refuse_threads
from tests.support.turns import said, stored, take_turn

OF_A_TURN = "convstate-turn"
OURS = (WATCHER, OF_A_TURN)
PATIENCE = 30.0  # seconds for whatever has to come
LEASE = 60.0  # seconds, which no machine is late by
# Seconds that go by at once: a lease outlives one of them, and without renewals not two.
A_STEP = 40.0


@pytest.fixture
def is_renewed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "RENEW_AFTER", 0.01)
    monkeypatch.setattr(turns, "RENEW_INTERVAL", 0.01)


@pytest.fixture
def is_never_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the machine is."""
    monkeypatch.setattr(turns, "RENEW_AFTER", 1000.0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that are started for turns."""
    names, start = list[str](), threading.Thread.start

    def note(thread: threading.Thread) -> None:
        if thread.name in OURS:
            names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return names


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of threads that cannot be started, as where the process has too many."""
    return refuse_threads(monkeypatch)


class Renewals:
    """Counts those that a backend was asked for, by conversation."""

    def __init__(self, backend: ConversationStateBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        self.before: Callable[[str], object] = lambda id: None
        renew, arenew = backend.renew, backend.arenew

        def noting(id: str, *args: Any) -> bool:
            self.before(id)
            is_held = renew(id, *args)
            self.ids.append(id)
            return is_held

        async def anoting(id: str, *args: Any) -> bool:
            is_held = await arenew(id, *args)
            self.ids.append(id)
            return is_held

        monkeypatch.setattr(backend, "renew", noting)
        monkeypatch.setattr(backend, "arenew", anoting)

    def one_more(self, conversation: Conversation) -> Callable[[], bool]:
        """Return a question: was it renewed, from the beginning to the end, since now?"""
        seen = self.ids.count(conversation.id)
        return lambda: self.ids.count(conversation.id) > seen + 1


@pytest.fixture
def renewals(memory: ConversationStore, monkeypatch: pytest.MonkeyPatch) -> Renewals:
    return Renewals(memory.backend, monkeypatch)


@pytest.fixture
def _own_clock() -> Iterator[None]:
    yield
    clock.set_ahead(0)


def names_of_ours() -> list[str]:
    # Not those of an outage, which may end a little later than another test.
    return [thread.name for thread in threading.enumerate() if thread.name in OURS]


@pytest.mark.parametrize("place", slow_but("locmem", "standalone"), indirect=True)
@pytest.mark.usefixtures("is_renewed_soon", "_own_clock")
class TestALongBlock:
    """It lasts twice as long as its lease would."""

    @pytest.fixture(autouse=True)
    def _lease(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(turns, "LEASE", LEASE)

    def test_a_turn_is_renewed_as_long_as_its_block_lasts(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation = stored(store)
        renewals = Renewals(store.backend, monkeypatch)
        with conversation.turn():
            for step in range(1, 4):
                clock.set_ahead(step * A_STEP)
                wait_until(renewals.one_more(conversation))
                with pytest.raises(ConversationBusy), store.get(conversation.id).turn("reject"):
                    pass
            conversation["a"] = 1
        assert store.get(conversation.id)["a"] == 1

    async def test_an_async_turn_is_renewed_as_long_as_its_block_lasts(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation = await store.aopen(f"webhook:{time.time_ns()}")
        renewals = Renewals(store.backend, monkeypatch)
        async with conversation.aturn(), asyncio.timeout(PATIENCE):
            for step in range(1, 4):
                clock.set_ahead(step * A_STEP)
                is_renewed = renewals.one_more(conversation)
                while not is_renewed():  # noqa: ASYNC110 - a thread may do it
                    await asyncio.sleep(0.01)
                with pytest.raises(ConversationBusy):
                    async with (await store.aopen(conversation.id)).aturn("reject"):
                        pass
            conversation["a"] = 1
        assert OF_A_TURN not in {task.get_name() for task in asyncio.all_tasks()}
        assert (await store.aget(conversation.id))["a"] == 1
        await store.aclose()


class TestAShortBlock:
    @pytest.mark.usefixtures("is_never_renewed")
    def test_it_starts_no_thread(self, memory: ConversationStore, started: list[str]) -> None:
        conversation = stored(memory)
        for number in range(200):
            with conversation.turn():
                conversation["number"] = number
        barrier = threading.Barrier(20)

        def together(_: int) -> None:
            with memory.create().turn():
                barrier.wait(PATIENCE)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(together, range(20)))
        assert set(started) <= {WATCHER}
        assert len(started) <= 1
        assert names_of_ours() == [WATCHER]

    @pytest.mark.usefixtures("is_never_renewed")
    async def test_it_starts_no_task(self, memory: ConversationStore, started: list[str]) -> None:
        async def together(barrier: asyncio.Barrier) -> set[str]:
            async with memory.create().aturn():
                await barrier.wait()
                return {task.get_name() for task in asyncio.all_tasks()}

        for count in (1, 20):
            barrier = asyncio.Barrier(count)
            names = await asyncio.gather(*[together(barrier) for _ in range(count)])
            assert OF_A_TURN not in set.union(*names)
        assert started == []

    def test_it_is_a_second(self) -> None:
        assert turns.RENEW_AFTER == 1.0
        assert turns.LEASE > 2 * turns.RENEW_AFTER + turns.RENEW_INTERVAL, "there is time for two"


@pytest.mark.usefixtures("is_renewed_soon")
class TestThreads:
    def test_each_long_turn_has_one_until_it_ends(
        self, memory: ConversationStore, renewals: Renewals, started: list[str]
    ) -> None:
        first, second = stored(memory), stored(memory)
        with first.turn():
            wait_until(renewals.one_more(first))
            with second.turn():
                wait_until(renewals.one_more(second))
                assert names_of_ours().count(OF_A_TURN) == 2
            assert names_of_ours().count(OF_A_TURN) == 1
            wait_until(renewals.one_more(first))
        assert names_of_ours() == [WATCHER]
        assert started.count(OF_A_TURN) == 2

    def test_turns_of_many_threads_are_renewed(
        self, memory: ConversationStore, renewals: Renewals
    ) -> None:
        def take_long_turn(number: int) -> None:
            conversation = stored(memory)
            for _ in range(20):
                take_turn(conversation, number)
            with conversation.turn():
                wait_until(renewals.one_more(conversation))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(take_long_turn, range(16)))
        assert len(set(renewals.ids)) >= 16

    def test_a_renewal_that_takes_long_holds_up_no_other(
        self, memory: ConversationStore, renewals: Renewals
    ) -> None:
        slow, other = stored(memory), stored(memory)
        entered, may_go_on = threading.Event(), threading.Event()

        def wait_for_the_slow(id: str) -> None:
            if id == slow.id:
                entered.set()
                assert may_go_on.wait(PATIENCE)

        renewals.before = wait_for_the_slow

        def take_slow_turn() -> int:
            with slow.turn():
                assert entered.wait(PATIENCE)
            return len(renewals.ids)

        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(take_slow_turn)
            assert entered.wait(PATIENCE)
            with other.turn():
                wait_until(renewals.one_more(other))
            assert not ended.done(), "no renewal is under way once the block is left"
            may_go_on.set()
            ended.result(PATIENCE)
        assert slow.id in renewals.ids

    def test_an_error_of_the_store_is_no_reason_to_give_up(
        self, memory: ConversationStore, renewals: Renewals
    ) -> None:
        conversation, failures = stored(memory), iter(range(3))

        def fail(_: str) -> None:
            if next(failures, None) is not None:
                raise ConversationBusy

        renewals.before = fail
        with conversation.turn():
            wait_until(renewals.one_more(conversation))
        assert next(failures, None) is None

    def test_without_a_thread_of_its_own_it_is_tried_again(
        self, memory: ConversationStore, renewals: Renewals, refused: set[str]
    ) -> None:
        conversation = stored(memory)
        refused.add(OF_A_TURN)
        with conversation.turn():
            with memory.create().turn():
                assert OF_A_TURN not in names_of_ours()
            refused.clear()
            wait_until(renewals.one_more(conversation))
            conversation["a"] = 1
        assert memory.get(conversation.id)["a"] == 1

    def test_a_block_may_be_left_in_the_thread_that_renews(
        self, memory: ConversationStore, renewals: Renewals
    ) -> None:
        """As the garbage collector may do it with a generator."""
        conversation, is_closed = stored(memory), threading.Event()

        def answer() -> Iterator[str]:
            with conversation.turn():
                conversation.messages.append("user", "hello")
                yield "one"

        chunks: Any = answer()

        def close(_: str) -> None:
            chunks.close()
            is_closed.set()

        renewals.before = close
        next(chunks)
        assert is_closed.wait(PATIENCE)
        wait_until(lambda: OF_A_TURN not in names_of_ours())
        assert said(memory.get(conversation.id)) == ["hello"]
        with memory.get(conversation.id).turn("reject"):
            pass


SETUP = """
import os, sys, threading, time, warnings
from django.conf import settings
settings.configure(SECRET_KEY="of no use")
from django_convstate import ConversationStore
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.conversation import turn as turns

warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not mix
turns.RENEW_AFTER = turns.RENEW_INTERVAL = 0.001
renewed = set()

class Backend(LocMemBackend):
    def renew(self, id, *args):
        is_held = super().renew(id, *args)
        renewed.add(id)
        return is_held

def is_renewed(conversation):
    give_up = time.monotonic() + 30
    while conversation.id not in renewed and time.monotonic() < give_up:
        time.sleep(0.001)
    return conversation.id in renewed

store = ConversationStore(Backend())
"""


def run(script: str) -> None:
    subprocess.run([sys.executable, "-c", SETUP + textwrap.dedent(script)], check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_ends_the_turn_of_its_parent_and_renews_its_own() -> None:
    """It is forked while other threads begin, renew and end turns."""
    run(
        """
        is_over = threading.Event()

        def take_turns():
            while not is_over.is_set():
                with store.create().turn():
                    time.sleep(0.002)

        threads = [threading.Thread(target=take_turns) for _ in range(3)]
        for thread in threads:
            thread.start()
        conversation = store.create()
        for _ in range(40):
            with conversation.turn():
                assert is_renewed(conversation)
                child = os.fork()
                conversation["is_child"] = not child
            if not child:
                with store.create().turn() as other:
                    os._exit(0 if is_renewed(other) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        is_over.set()
        for thread in threads:
            thread.join()
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_waits_for_no_lock_that_its_parent_held() -> None:
    run(
        """
        import signal
        from django_convstate.conversation import renewing

        held, may_go_on = threading.Event(), threading.Event()

        def hold():
            watcher = renewing._watcher
            (renewal,) = watcher._renewals
            with watcher._starting, watcher._woken._cond, renewal._ended._cond:
                held.set()
                may_go_on.wait()

        conversation = store.create()
        with conversation.turn():
            assert is_renewed(conversation)
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            child = os.fork()
            may_go_on.set()
            if not child:
                signal.alarm(60)
        if not child:
            with store.create().turn() as other:
                os._exit(0 if is_renewed(other) else 1)
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )


@pytest.mark.parametrize("ends_in", ["a generator", "the block"])
def test_a_process_may_end_in_the_midst_of_a_turn(ends_in: str) -> None:
    run(
        f"""
        def answer():
            with store.create().turn() as conversation:
                yield conversation

        chunks = answer()
        assert is_renewed(next(chunks))
        if {ends_in == "the block"}:
            with store.create().turn() as conversation:
                assert is_renewed(conversation)
                sys.exit()
        """
    )


def test_without_a_thread_to_be_had_a_turn_goes_on() -> None:
    """And is renewed as soon as another begins, and there is one."""
    run(
        """
        start, is_refused = threading.Thread.start, True

        def start_if_possible(thread):
            if is_refused:
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = start_if_possible
        conversation = store.create()
        with conversation.turn():
            conversation["a"] = 1
        with conversation.turn():
            assert threading.active_count() == 1
            is_refused = False
            with store.create().turn():
                pass
            assert is_renewed(conversation)
            conversation["a"] = 2
        assert store.get(conversation.id)["a"] == 2
        """
    )
