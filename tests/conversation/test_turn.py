"""One turn at a time: on every backend, by threads, tasks and processes, and when one dies."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.http import HttpResponse
from django.test import RequestFactory

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationBusy,
    ConversationConflict,
    ConversationInterrupted,
    ConversationStore,
    conversations,
    signals,
)
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.conversation import turn as turns
from django_convstate.conversation.conversation import working_copy_of
from django_convstate.conversation.wakeups import Waiter, _queues, turn_ended
from django_convstate.decorators import conversation_turn
from django_convstate.middleware import ConversationMiddleware
from tests.conftest import make_place, slow_but
from tests.support.backends import CountingBackend
from tests.support.ruler import Stopwatch
from tests.support.servers import wait_until

A_LITTLE = 3.0  # seconds, that a bound of time is not missed by
PATIENCE = 30.0  # seconds for whatever has to come


def said(conversation: Conversation) -> list[Any]:
    return [message["content"] for message in conversation.messages.all()]


def stored(store: ConversationStore) -> Conversation:
    conversation = store.create()
    conversation["stored"] = True
    conversation.save()
    return conversation


@pytest.fixture
def memory() -> ConversationStore:
    return ConversationStore(LocMemBackend())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert _queues == {}
    assert not [t for t in threading.enumerate() if t.name == "convstate-turn"]


def in_order(conversation: Conversation, contenders: int) -> None:
    """Each question is followed by its answer, and each is there once."""
    words = said(conversation)
    questions = [word for word in words if word.startswith("u")]
    assert words == [word for q in questions for word in (q, q.replace("u", "a"))]
    assert sorted(questions) == sorted(f"u{n}" for n in range(contenders))


def take_turn(conversation: Conversation, name: object) -> None:
    with conversation.turn():
        conversation.messages.append("user", f"u{name}")
        time.sleep(0.002)
        conversation.messages.append("assistant", f"a{name}")


async def atake_turn(conversation: Conversation, name: object) -> None:
    async with conversation.aturn():
        conversation.messages.append("user", f"u{name}")
        await asyncio.sleep(0.002)
        conversation.messages.append("assistant", f"a{name}")


def when_in_line(
    backend: ConversationStateBackend, monkeypatch: pytest.MonkeyPatch
) -> threading.Event:
    """Return what is set as soon as somebody has a place in line, and not the turn."""
    is_in_line, acquire = threading.Event(), backend.acquire

    def watched(*args: Any) -> Any:
        acquired = acquire(*args)
        if acquired.position:
            is_in_line.set()
        return acquired

    monkeypatch.setattr(backend, "acquire", watched)
    return is_in_line


# 64 only where a place in line costs little: the caches rewrite the line for each.
FAST = ("locmem", "standalone")
OVERLAPS = [2, 8, 64]


class TestOverlap:
    @pytest.mark.parametrize("contenders", OVERLAPS)
    def test_threads(self, place: str, contenders: int) -> None:
        if contenders == 64 and place not in FAST:
            contenders = 16
        backend = make_place(place)
        id = stored(ConversationStore(backend)).id
        start = threading.Barrier(contenders)

        def contend(number: int) -> None:
            conversation = ConversationStore(backend).get(id)
            start.wait()
            take_turn(conversation, number)
            connections.close_all()

        with ThreadPoolExecutor(contenders) as pool:
            list(pool.map(contend, range(contenders)))
        in_order(ConversationStore(backend).get(id), contenders)
        backend.close()

    @pytest.mark.parametrize("contenders", OVERLAPS)
    def test_tasks(self, place: str, contenders: int) -> None:
        if contenders == 64 and place not in FAST:
            contenders = 16
        backend = make_place(place)
        store = ConversationStore(backend)
        id = stored(store).id

        async def contend(number: int) -> None:
            await atake_turn(await store.aget(id), number)

        async def contend_all() -> None:
            await asyncio.gather(*(contend(number) for number in range(contenders)))
            assert len(asyncio.all_tasks()) == 1, "no task is left"
            await store.aclose()

        asyncio.run(contend_all())
        in_order(store.get(id), contenders)
        store.close()

    def test_without_turns_every_message_is_there_once(self, place: str) -> None:
        backend = make_place(place)
        store = ConversationStore(backend)
        id = stored(store).id

        def contend(number: int) -> None:
            conversation = store.get(id)
            conversation.messages.append("user", f"u{number}")
            conversation.messages.append("assistant", f"a{number}")
            conversation.save()
            connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(contend, range(8)))
        assert sorted(said(store.get(id))) == sorted(f"{who}{n}" for who in "au" for n in range(8))
        store.close()

    def test_the_second_sees_what_the_first_has_said(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = stored(store).id
        first, second = store.get(id), store.get(id)
        seen: list[Any] = []

        def wait_in_line() -> None:
            with second.turn():
                seen.extend(said(second))
                second.messages.append("user", "u2")
                second.messages.append("assistant", "a2")
            connections.close_all()

        with ThreadPoolExecutor(1) as pool, first.turn():
            first.messages.append("user", "u1")
            is_in_line = when_in_line(store.backend, monkeypatch)
            waiting = pool.submit(wait_in_line)
            assert is_in_line.wait(PATIENCE)
            first.messages.append("assistant", "a1")
        waiting.result()
        assert seen == ["u1", "a1"]
        assert said(store.get(id)) == ["u1", "a1", "u2", "a2"]

    def test_threads_and_tasks_wake_each_other(
        self, memory: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # So that nobody gets in by asking again.
        for name in ("LEASE", "RENEW_INTERVAL", "POLL_INTERVAL"):
            monkeypatch.setattr(turns, name, 100.0)
        id = stored(memory).id

        async def contend() -> None:
            tasks = [atake_turn(memory.get(id), number) for number in range(8)]
            threads = [
                asyncio.to_thread(take_turn, memory.get(id), number) for number in range(8, 16)
            ]
            await asyncio.gather(*tasks, *threads)

        asyncio.run(contend())
        in_order(memory.get(id), 16)

    def test_they_are_served_as_they_came(self, memory: ConversationStore) -> None:
        async def contend() -> list[Any]:
            conversation = stored(memory)

            async def late(number: int) -> None:
                await asyncio.sleep(number * 0.01)
                await atake_turn(memory.get(conversation.id), number)

            async with conversation.aturn():
                others = [asyncio.create_task(late(number)) for number in range(16)]
                await asyncio.sleep(0.3)
            await asyncio.gather(*others)
            return said(memory.get(conversation.id))

        assert asyncio.run(contend())[::2] == [f"u{number}" for number in range(16)]


class TestTheBlock:
    def test_commits_at_its_end_and_at_once(self, store: ConversationStore) -> None:
        conversation = stored(store)
        with conversation.turn() as same:
            assert same is conversation
            conversation["a"] = 1
            conversation.messages.append("user", "hello")
            assert "a" not in store.get(conversation.id)
        assert (conversation.version, conversation.is_modified) == (2, False)
        again = store.get(conversation.id)
        assert (again["a"], said(again), again.version) == (1, ["hello"], 2)

    async def test_so_does_the_twin(self, store: ConversationStore) -> None:
        conversation = await store.aopen(f"webhook:{time.time_ns()}")
        async with conversation.aturn():
            conversation["a"] = 1
        assert (await store.aget(conversation.id))["a"] == 1
        with pytest.raises(ZeroDivisionError):
            async with conversation.aturn():
                conversation["a"] = 1 / 0
        assert conversation.is_modified is False
        await store.aclose()

    def test_commits_nothing_after_an_exception(self, store: ConversationStore) -> None:
        conversation = stored(store)
        conversation["list"] = [1]
        conversation.messages.append("user", "before")
        conversation.save()
        with pytest.raises(ZeroDivisionError), conversation.turn():
            conversation["a"] = 1
            conversation["list"].append(2)
            conversation.incr("count")
            del conversation["stored"]
            conversation.messages.pop()
            conversation.messages.append("user", "in vain")
            raise ZeroDivisionError
        assert conversation.is_modified is False
        assert dict(conversation) == {"stored": True, "list": [1]}
        assert said(conversation) == ["before"]
        conversation.save()
        assert store.get(conversation.id).version == 2
        with store.get(conversation.id).turn("reject"):
            pass  # and it is free

    def test_keeps_what_it_has_saved_itself(self, memory: ConversationStore) -> None:
        conversation = memory.create()
        with pytest.raises(ZeroDivisionError), conversation.turn():
            conversation["saved"] = 1
            conversation.save()
            with pytest.raises(ConversationBusy), memory.get(conversation.id).turn("reject"):
                pass
            conversation["lost"] = 1
            raise ZeroDivisionError
        assert dict(conversation) == dict(memory.get(conversation.id)) == {"saved": 1}
        conversation["more"] = 1
        conversation.save()
        assert dict(memory.get(conversation.id)) == {"saved": 1, "more": 1}

    def test_begins_with_what_is_stored(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        conversation["unsaved"] = 1
        other = memory.get(conversation.id)
        other["by another"] = 1
        other.save()
        with conversation.turn():
            assert set(conversation) == {"stored", "unsaved", "by another"}
            assert memory.get(conversation.id)["unsaved"] == 1, "saved before the turn"

    @pytest.mark.parametrize("is_async", [False, True])
    def test_is_of_the_id_that_the_save_before_it_has_left(
        self, memory: ConversationStore, is_async: bool
    ) -> None:
        conversation = stored(memory)

        def give_new_id(sender: object, conversation: Conversation, **kwargs: object) -> None:
            signals.conversation_saved.disconnect(give_new_id, sender=memory)
            conversation.cycle_id()

        signals.conversation_saved.connect(give_new_id, sender=memory)
        conversation["unsaved"] = 1

        if is_async:
            asyncio.run(atake_turn(conversation, 0))
        else:
            take_turn(conversation, 0)
        in_order(memory.get(conversation.id), 1)

    def test_of_a_new_conversation(self, memory: ConversationStore) -> None:
        conversation = memory.create(owner="u1")
        with conversation.turn():
            pass
        assert conversation.is_new
        assert list(memory.list()) == []
        with conversation.turn():
            conversation["a"] = 1
        assert memory.get(conversation.id, owner="u1")["a"] == 1

    def test_two_of_one_webhook(self, memory: ConversationStore) -> None:
        first, second = memory.open("whatsapp:1"), memory.open("whatsapp:1")
        take_turn(first, 0)
        take_turn(second, 1)
        in_order(memory.open("whatsapp:1"), 2)

    def test_of_one_that_is_gone(self, store: ConversationStore) -> None:
        conversation = stored(store)
        store.delete(conversation.id)
        with pytest.raises(ConversationInterrupted), conversation.turn():
            pass
        conversation = stored(store)
        with pytest.raises(ConversationInterrupted), conversation.turn():
            store.delete(conversation.id)
            conversation["a"] = 1
        with store.open(conversation.id).turn("reject"):
            pass

    def test_cannot_be_nested(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        with conversation.turn():
            conversation["a"] = 1
            with pytest.raises(RuntimeError, match="nested"), conversation.turn():
                pass
        assert memory.get(conversation.id)["a"] == 1

    @pytest.mark.parametrize("leave", ["delete", "cycle_id"])
    def test_may_leave_the_conversation_behind(self, memory: ConversationStore, leave: str) -> None:
        conversation = stored(memory)
        old = conversation.id
        with conversation.turn():
            conversation["a"] = 1
            getattr(conversation, leave)()
            conversation["b"] = 1
        assert conversation.id != old
        assert memory.get(conversation.id)["b"] == 1
        with memory.open(old).turn("reject"):
            pass

    def test_of_a_bad_value(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        with pytest.raises(ValueError, match="is nan"), conversation.turn():
            conversation["list"] = []
            conversation["list"].append(float("nan"))
        assert dict(conversation) == {"stored": True}
        with memory.get(conversation.id).turn("reject"):
            pass

    async def test_the_sync_one_is_not_for_async_code(self, memory: ConversationStore) -> None:
        with pytest.raises(SynchronousOnlyOperation, match="async with"):
            memory.create().turn()

    def test_takes_no_other_word(self, memory: ConversationStore) -> None:
        with pytest.raises(ValueError, match="'wait' or 'reject'"):
            stored(memory).turn("sometimes").__enter__()  # type: ignore[arg-type]


class TestBusy:
    def test_reject(self, store: ConversationStore) -> None:
        conversation = stored(store)
        with conversation.turn():
            for _ in range(2):
                with pytest.raises(ConversationBusy), store.get(conversation.id).turn("reject"):
                    pass
        with store.get(conversation.id).turn("reject"):
            pass

    def test_wait_for_so_long_and_no_longer(self) -> None:
        store = ConversationStore(LocMemBackend(), turn_wait=0.4)
        conversation = stored(store)
        with conversation.turn():
            with Stopwatch() as watch:
                started = time.monotonic()
                with pytest.raises(ConversationBusy), store.get(conversation.id).turn():
                    pass
                assert time.monotonic() - started >= 0.4
            assert watch.seconds < 0.4 + A_LITTLE
        with store.get(conversation.id).turn("reject"):
            pass

    async def test_so_it_is_with_tasks(self) -> None:
        store = ConversationStore(LocMemBackend(), turn_wait=0.4)
        conversation = stored(store)
        async with conversation.aturn():
            with pytest.raises(ConversationBusy):
                async with store.get(conversation.id).aturn():
                    pass
            with pytest.raises(ConversationBusy):
                async with store.get(conversation.id).aturn("reject"):
                    pass
        async with store.get(conversation.id).aturn("reject"):
            pass


@pytest.mark.parametrize("place", slow_but("locmem", "standalone"), indirect=True)
class TestALongBlock:
    def test_it_lasts_as_long_as_the_block(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turns, "LEASE", 2.0)
        monkeypatch.setattr(turns, "RENEW_INTERVAL", 0.5)
        conversation = stored(store)
        with conversation.turn():
            time.sleep(3.5)
            with pytest.raises(ConversationBusy), store.get(conversation.id).turn("reject"):
                pass
            conversation["a"] = 1
        assert store.get(conversation.id)["a"] == 1

    async def test_so_it_does_in_async_code(
        self, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turns, "LEASE", 2.0)
        monkeypatch.setattr(turns, "RENEW_INTERVAL", 0.5)
        conversation = await store.aopen(f"webhook:{time.time_ns()}")
        async with conversation.aturn():
            await asyncio.sleep(3.5)
            conversation["a"] = 1
        assert (await store.aget(conversation.id))["a"] == 1
        await store.aclose()


class TestLosingIt:
    def test_one_that_is_lost_cannot_commit(self, memory: ConversationStore) -> None:
        conversation = stored(memory)
        with pytest.raises(ConversationConflict, match="lost"), conversation.turn():
            lease = working_copy_of(conversation).lease
            assert lease is not None
            memory.backend.release(conversation.id, lease)
            take_turn(memory.get(conversation.id), 0)
            conversation["a"] = 1
        again = memory.get(conversation.id)
        assert (said(again), "a" in again) == (["u0", "a0"], False)

    def test_a_lost_reply_at_the_end(self) -> None:
        class LosesReplies(LocMemBackend):
            loses = False

            def commit(self, id: str, change: Change) -> Committed:
                committed = super().commit(id, change)
                if self.loses:
                    self.loses = False
                    raise BackendUnavailable("The reply was lost.")
                return committed

        store = ConversationStore(backend := LosesReplies())
        conversation = stored(store)
        with pytest.raises(BackendUnavailable), conversation.turn():
            conversation.incr("count")
            backend.loses = True
        take_turn(store.get(conversation.id), 0)
        conversation.save()
        again = store.get(conversation.id)
        assert (again["count"], said(again)) == (1, ["u0", "a0"])

    async def test_a_cancelled_task_gives_it_back(self, store: ConversationStore) -> None:
        conversation = await store.aopen(f"webhook:{time.time_ns()}")
        is_in = asyncio.Event()

        async def hold() -> None:
            async with conversation.aturn():
                conversation["a"] = 1
                is_in.set()
                await asyncio.sleep(60)

        async def wait_in_line() -> None:
            async with (await store.aopen(conversation.id)).aturn():
                pass

        holder = asyncio.create_task(hold())
        await is_in.wait()
        waiter = asyncio.create_task(wait_in_line())
        await asyncio.sleep(0.1)
        for task in (waiter, holder):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await store.aexists(conversation.id) is False
        async with (await store.aopen(conversation.id)).aturn("reject"):
            pass
        await store.aclose()


class TestViews:
    @pytest.fixture(params=["sync", "async"])
    def visit(self, request: pytest.FixtureRequest) -> Any:
        def visit(view: Any, token: str | None = None, **options: Any) -> Any:
            """Have `view(conversation)` answer a request, as a turn of its conversation."""

            def sync_view(request: Any) -> HttpResponse:
                return view(request.conversation)  # type: ignore[no-any-return]

            async def async_view(request: Any) -> HttpResponse:
                return view(await request.aconversation())  # type: ignore[no-any-return]

            http = RequestFactory().get("/")
            if token is not None:
                http.COOKIES["conversation"] = token
            if self_is_async:
                decorated: Any = conversation_turn(**options)(async_view)
                return asyncio.run(ConversationMiddleware(decorated)(http))  # type: ignore[arg-type]
            return ConversationMiddleware(conversation_turn(**options)(sync_view))(http)

        self_is_async = request.param == "async"
        return visit

    def test_a_view_is_a_turn(self, visit: Any) -> None:
        held = []

        def view(conversation: Conversation) -> HttpResponse:
            conversation.incr("count")
            held.append(working_copy_of(conversation).lease is not None)
            return HttpResponse("fine")

        token = visit(view).cookies["conversation"].value
        visit(view, token)
        assert held == [True, True]
        (summary,) = conversations.list()
        assert summary.version == 2
        assert conversations.get(summary.id)["count"] == 2

    def test_a_view_that_fails_commits_nothing(self, visit: Any) -> None:
        def error(conversation: Conversation) -> HttpResponse:
            conversation["a"] = 1
            return HttpResponse("sorry", status=503)

        def crash(conversation: Conversation) -> HttpResponse:
            conversation["a"] = 1
            raise RuntimeError

        assert visit(error).status_code == 503
        with pytest.raises(RuntimeError):
            visit(crash)
        assert list(conversations.list()) == []

    def test_whoever_comes_in_vain_gets_409(self, visit: Any) -> None:
        conversation = stored(conversations)
        with conversation.turn():
            response = visit(lambda _: HttpResponse(), conversation.token, on_busy="reject")
        assert response.status_code == 409
        assert b"under way" in response.content

    def test_without_the_decorator_too(self, client: Any) -> None:
        conversation = stored(conversations)
        client.cookies["conversation"] = conversation.token
        with conversation.turn():
            assert client.get("/sync/in_turn").status_code == 409
        assert client.get("/sync/in_turn").status_code == 200

    def test_with_and_without_parentheses(self) -> None:
        def view(request: Any) -> HttpResponse:
            return HttpResponse(status=500 + len(request.conversation))

        for decorated in (conversation_turn(view), conversation_turn()(view)):
            assert decorated.__name__ == "view"
            assert ConversationMiddleware(decorated)(RequestFactory().get("/")).status_code == 500  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="on_busy"):
            conversation_turn(on_busy="perhaps")  # type: ignore[call-overload]


class TestWhatItCosts:
    def test_one_call_to_begin_and_one_to_end(self) -> None:
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
    def test_everything_in_redis_expires(self) -> None:
        store = ConversationStore(make_place("standalone"))
        conversation = stored(store)
        redis = caches["django_redis"].client.get_client()  # type: ignore[attr-defined]
        key = f"convstate:{{{conversation.id}}}:line"
        with conversation.turn():
            assert 0 < redis.pttl(key) <= turns.LEASE * 1000
        assert redis.exists(key) == 0
        store.close()

    @pytest.mark.usefixtures("valkey")
    def test_waiters_ask_four_times_a_second_at_most(self) -> None:
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

    def test_who_is_rejected_makes_nobody_else_ask(self) -> None:
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

    def test_many_in_one_process_need_few_questions(self) -> None:
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


class TestWaking:
    """Who is woken when a turn ends in this process."""

    @contextmanager
    def waiters(self, *positions: int) -> Iterator[tuple[list[str], list[Waiter]]]:
        woken: list[str] = []
        names = "abcdef"
        waiters = [Waiter("id", partial(woken.append, names[n])) for n in range(len(positions))]
        with ExitStack() as stack:
            for waiter, position in zip(waiters, positions, strict=True):
                stack.enter_context(waiter)
                waiter.at_position(position)
            yield woken, waiters

    def test_who_is_first_in_line(self) -> None:
        with self.waiters(3, 1, 2) as (woken, _):
            turn_ended("another id")
            assert woken == []
            turn_ended("id")
            assert woken == ["b"]

    def test_who_came_later_counts_from_later(self) -> None:
        with self.waiters(2) as (woken, _):
            turn_ended("id")
            with Waiter("id", partial(woken.append, "late")) as late:
                late.at_position(2)
                turn_ended("id")
                assert woken == ["a", "a"]

    def test_who_is_woken_in_vain_passes_it_on_to_who_may_be_before(self) -> None:
        with self.waiters(1, 2, 4) as (woken, (first, second, _)):
            turn_ended("id")
            first.at_position(1)
            assert woken == ["a", "b"]
            second.at_position(1)
            assert woken == ["a", "b"], "whoever it is, is elsewhere"

    def test_who_goes_without_a_turn_passes_it_on(self) -> None:
        with self.waiters(2) as (woken, _):
            with pytest.raises(ZeroDivisionError), Waiter("id", list) as first:
                first.at_position(1)
                turn_ended("id")
                assert woken == []
                raise ZeroDivisionError
            assert woken == ["a"]


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
    def test_several_in_order(self, store: ConversationStore, count: int) -> None:
        id = stored(store).id
        with self.processes(id, count) as running:
            for process in running:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            for process in running:
                assert process.communicate()[0].split() == ["ready", "in", "saved"]
        in_order(store.get(id), count)

    def test_one_that_is_killed_is_passed_over(self, store: ConversationStore) -> None:
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

    def test_one_that_was_paused_cannot_commit_over_the_next(
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
