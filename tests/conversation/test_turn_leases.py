"""What a turn costs, and what becomes of it when its process dies."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches

from django_convstate import (
    ConversationBusy,
    ConversationStore,
)
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.conversation import turn as turns
from tests.support.backends import CountingBackend
from tests.support.places import make_place
from tests.support.ruler import Stopwatch
from tests.support.servers import wait_until
from tests.support.turns import (
    atake_turn,
    in_order,
    said,
    stored,
    take_turn,
)

A_LITTLE = 3.0  # seconds, that a bound of time is not missed by


class TestWhatItCosts:
    def test_a_turn_takes_one_call_to_begin_and_one_to_end(self) -> None:
        store = ConversationStore(CountingBackend())
        conversation = stored(store)
        CountingBackend.calls.clear()
        take_turn(conversation, 1)
        assert CountingBackend.calls == {"acquire": 1, "commit": 1}
        CountingBackend.calls.clear()
        with conversation.turn():
            pass
        assert CountingBackend.calls == {"acquire": 1, "release": 1}

    @pytest.mark.usefixtures("valkey")
    @pytest.mark.parametrize("place", ["standalone", "failover"])
    def test_a_turn_takes_one_round_trip_to_begin_and_one_to_end(
        self, place: str, way: str
    ) -> None:
        store = ConversationStore(make_place(place))
        conversation = stored(store)

        async def atake_turns() -> None:
            for name in ("to connect", "to count"):
                with commands(conversation.id) as sent:
                    await atake_turn(conversation, name)
            assert sent == ["EVALSHA"] * 2
            await store.aclose()

        take_turn(conversation, "to load the scripts")
        if way == "async":
            asyncio.run(atake_turns())
        else:
            with commands(conversation.id) as sent:
                take_turn(conversation, "to count")
            assert sent == ["EVALSHA"] * 2
        store.close()

    @pytest.mark.usefixtures("valkey")
    def test_the_queue_of_a_turn_in_redis_expires(self) -> None:
        store = ConversationStore(make_place("standalone"))
        conversation = stored(store)
        redis = caches["django_redis"].client.get_client()  # type: ignore[attr-defined]
        key = f"convstate:{{{conversation.id}}}:line"
        with conversation.turn():
            assert 0 < redis.pttl(key) <= turns.LEASE * 1000
        assert redis.exists(key) == 0
        store.close()

    @pytest.mark.usefixtures("valkey")
    def test_waiters_poll_four_times_a_second_at_most(self) -> None:
        store, waiters = ConversationStore(make_place("standalone")), 16
        conversation = stored(store)
        with ThreadPoolExecutor(waiters) as pool:
            with conversation.turn():
                with counted() as count:
                    others = [
                        pool.submit(take_turn, store.get(conversation.id), n)
                        for n in range(waiters)
                    ]
                    # Until each has loaded the conversation and stands in line.
                    wait_until(lambda: count() >= 2 * waiters)
                with counted() as count:
                    started = time.monotonic()
                    time.sleep(2)
                    asked, seconds = count(), time.monotonic() - started
            for other in others:
                other.result()
        assert waiters / 2 < asked <= 4 * seconds * waiters
        in_order(store.get(conversation.id), waiters)
        store.close()

    def test_a_rejected_caller_wakes_no_waiter(self) -> None:
        store = ConversationStore(CountingBackend())
        conversation = stored(store)
        with ThreadPoolExecutor(1) as pool:
            with conversation.turn():
                other = pool.submit(take_turn, store.get(conversation.id), 1)
                CountingBackend.calls.clear()
                started = time.monotonic()
                for _ in range(100):
                    with pytest.raises(ConversationBusy), store.get(conversation.id).turn("reject"):
                        pass
                took = time.monotonic() - started
                assert CountingBackend.calls["acquire"] <= 100 + 2 + 4 * took
            other.result()

    def test_many_waiters_of_one_process_poll_little(self) -> None:
        store, contenders = ConversationStore(CountingBackend()), 64
        id = stored(store).id
        CountingBackend.calls.clear()
        started = time.monotonic()
        with ThreadPoolExecutor(contenders) as pool:
            list(pool.map(lambda n: take_turn(store.get(id), n), range(contenders)))
        took = time.monotonic() - started
        asked = CountingBackend.calls["acquire"]
        # One to stand in line, one or a few when woken, and four a second in between.
        assert asked <= contenders * (1 + 3 + 4 * took)
        in_order(store.get(id), contenders)


@contextmanager
def commands(id: str) -> Iterator[list[str]]:
    """Note each command about a conversation that the server is sent, but not by its scripts."""
    redis = caches["django_redis"].client.get_client()  # type: ignore[attr-defined]
    sent: list[str] = []
    with redis.monitor() as monitor:
        yield sent
        redis.echo("that is all")
        for seen in monitor.listen():
            if "that is all" in seen["command"]:
                break
            if id in seen["command"] and seen["client_type"] != "lua":
                sent.append(seen["command"].split()[0])


@contextmanager
def counted() -> Iterator[Any]:
    """Count the scripts that the server is asked to run."""
    redis = caches["django_redis"].client.get_client()  # type: ignore[attr-defined]

    def scripts() -> int:
        stats = redis.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")
        )

    before = scripts()
    yield lambda: scripts() - before


@pytest.mark.usefixtures("valkey")
class TestProcesses:
    @pytest.fixture
    def store(self) -> Iterator[ConversationStore]:
        backend: ConversationStateBackend = make_place("standalone")
        yield ConversationStore(backend)
        backend.close()

    @contextmanager
    def processes(
        self, id: str, count: int, lease: float = turns.LEASE
    ) -> Iterator[list["subprocess.Popen[str]"]]:
        command = [
            sys.executable,
            "-m",
            "tests.support.turning",
            settings.REDIS_URL,
            str(lease),
            id,
        ]
        running = [
            subprocess.Popen(
                [*command, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]
        try:
            yield running
        finally:
            for process in running:
                process.kill()
                process.communicate()

    @pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
    def test_turns_of_processes_do_not_overlap(self, store: ConversationStore, count: int) -> None:
        id = stored(store).id
        with self.processes(id, count) as running:
            for process in running:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            for process in running:
                assert process.communicate()[0].split() == ["ready", "in", "saved"]
        in_order(store.get(id), count)

    def test_the_turn_of_a_killed_process_is_passed_on(self, store: ConversationStore) -> None:
        id = stored(store).id
        conversation = store.get(id)
        with self.processes(id, 1, lease=2.0) as (process,):
            heard(process, "ready", "in")
            with pytest.raises(ConversationBusy), conversation.turn("reject"):
                pass
            process.kill()
            with Stopwatch() as watch:
                take_turn(conversation, 1)
            assert watch.seconds < 2.0 + A_LITTLE
        assert said(store.get(id)) == ["u1", "a1"]

    def test_a_paused_process_cannot_commit_over_the_next_turn(
        self, store: ConversationStore
    ) -> None:
        id = stored(store).id
        conversation = store.get(id)
        with self.processes(id, 1, lease=2.0) as (process,):
            heard(process, "ready", "in")
            os.kill(process.pid, signal.SIGSTOP)
            take_turn(conversation, 1)
            os.kill(process.pid, signal.SIGCONT)
            assert process.communicate("\n")[0].split() == ["ConversationConflict"]
        assert said(store.get(id)) == ["u1", "a1"]


def heard(process: "subprocess.Popen[str]", *words: str) -> None:
    assert process.stdout is not None
    assert tuple(process.stdout.readline().strip() for _ in words) == words
