"""Threads and tasks that share one conversation, as the tools of an agent do: nothing is lost, and
who is told that something was saved was told the truth."""

import asyncio
import copy
import itertools
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationBusy,
    ConversationConflict,
    ConversationError,
    ConversationInterrupted,
    ConversationStore,
    conversations,
    signals,
)
from django_convstate.backends.cache import lock as cachelock
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from django_convstate.conversation.conversation import working_copy_of
from django_convstate.conversation.messages import Messages
from django_convstate.conversation.sending import send
from django_convstate.conversation.state import State
from django_convstate.conversation.turns import CONTINUE_TRIES
from django_convstate.repository import Repository
from tests.support.backends import Switched
from tests.support.failover import made

TOOLS, RESULTS = 4, 24


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(autouse=True)
def _patient_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writers wait for the lock of a cache as long as it takes: time is not what is tested."""
    monkeypatch.setattr(cachelock, "LOCK_TTL", 60)
    monkeypatch.setattr(cachelock, "ACQUIRE_TIMEOUT", 120.0)


def replace_method(
    monkeypatch: pytest.MonkeyPatch, store: ConversationStore, name: str, call: Callable[..., Any]
) -> None:
    """Have the backend of a store do something else in a method, and in its twin."""

    async def acall(*args: Any) -> Any:
        return call(*args)

    monkeypatch.setattr(store.backend, name, call)
    monkeypatch.setattr(store.backend, f"a{name}", acall)


def use_tool(
    conversation: Conversation,
    number: int,
    after: Callable[[], None],
    update: Callable[..., None] = Messages.update,
) -> None:
    """Do what a tool of an agent does, and call `after` each time."""
    for each in range(RESULTS):
        conversation.messages.append("tool", f"{number}: {each}")
        conversation[f"result {number}.{each}"] = each
        conversation.incr("calls")
        conversation["log"][f"{number}.{each}"] = each
        update(conversation.messages, f"plan-{number}", **{f"step_{each}": each})
        conversation.messages.window(3)
        after()
    connections.close_all()  # as a thread that serves no request has to


def check(store: ConversationStore, id: str) -> None:
    found = store.get(id)
    said = [each["content"] for each in found.messages if each["role"] == "tool"]
    for number in range(TOOLS):
        own = [text for text in said if text.startswith(f"{number}: ")]
        assert own == [f"{number}: {each}" for each in range(RESULTS)]
        plan = found.messages.find(f"plan-{number}")
        assert {f"step_{each}" for each in range(RESULTS)} <= plan.keys()
        for each in range(RESULTS):
            assert found[f"result {number}.{each}"] == each
            assert found["log"][f"{number}.{each}"] == each
    assert len(said) == TOOLS * RESULTS
    assert found["calls"] == TOOLS * RESULTS


def planned(store: ConversationStore) -> Conversation:
    conversation = store.create()
    conversation["log"] = {}
    for number in range(TOOLS):
        conversation.messages.append("assistant", "a plan", id=f"plan-{number}")
    conversation.save()
    return conversation


def test_what_tools_say_while_the_view_saves_is_kept(store: ConversationStore) -> None:
    conversation = planned(store)
    with ThreadPoolExecutor(TOOLS) as pool:
        tools = [
            pool.submit(use_tool, conversation, number, lambda: None) for number in range(TOOLS)
        ]
        while not all(tool.done() for tool in tools):
            conversation.save()
        for tool in tools:
            tool.result()
    conversation.save()
    check(store, conversation.id)


def test_what_each_tool_saves_itself_is_kept(store: ConversationStore) -> None:
    conversation = planned(store)
    with ThreadPoolExecutor(TOOLS) as pool:
        tools = [
            pool.submit(use_tool, conversation, number, conversation.save)
            for number in range(TOOLS)
        ]
        for tool in tools:
            tool.result()
    check(store, conversation.id)


def update_once_it_can_be_read(messages: Messages, id: str, **fields: int) -> None:
    """Update a message that is not among those which are known in an outage, when that is over."""
    while True:
        with suppress(BackendUnavailable):
            return messages.update(id, **fields)
        time.sleep(0)


def test_what_tools_say_in_outages_is_kept() -> None:
    """Their store goes away and comes back the whole time."""
    primary, update = Switched(), update_once_it_can_be_read
    with made(primary) as backend:
        conversation = planned(ConversationStore(backend))
        with ThreadPoolExecutor(TOOLS) as pool:
            tools = [
                pool.submit(use_tool, conversation, number, conversation.save, update)
                for number in range(TOOLS)
            ]
            while not all(tool.done() for tool in tools):
                primary.away = not primary.away
            for tool in tools:
                tool.result()
        primary.away = False
        backend.close()
        assert backend.health().pending_replay == 0
        check(ConversationStore(primary.others), conversation.id)


def test_in_a_turn_too(store: ConversationStore) -> None:
    conversation = planned(store)
    with conversation.turn(), ThreadPoolExecutor(TOOLS) as pool:
        for number in range(TOOLS):
            pool.submit(use_tool, conversation, number, conversation.save)
    check(store, conversation.id)


def test_tools_in_threads_of_an_async_view(store: ConversationStore) -> None:
    async def view() -> str:
        conversation = store.create()
        conversation["log"] = {}
        for number in range(TOOLS):
            conversation.messages.append("assistant", "a plan", id=f"plan-{number}")
        await conversation.asave()
        async with conversation.aturn():
            tool = sync_to_async(use_tool, thread_sensitive=False)
            tools = [
                asyncio.create_task(tool(conversation, number, lambda: None))
                for number in range(TOOLS)
            ]
            while not all(each.done() for each in tools):
                await conversation.asave()
                await asyncio.sleep(0)
            await asyncio.gather(*tools)
        await store.aclose()
        return conversation.id

    check(store, asyncio.run(view()))


def test_all_threads_are_handed_out_the_same_list(memory: ConversationStore) -> None:
    conversation = memory.create()
    conversation["days"] = []
    conversation.save()
    for _ in range(200):
        loaded = memory.get(conversation.id)
        barrier = threading.Barrier(TOOLS)

        def days(loaded: Any = loaded, barrier: Any = barrier) -> Any:
            barrier.wait()
            return loaded["days"]

        with ThreadPoolExecutor(TOOLS) as pool:
            first, *others = [pool.submit(days) for _ in range(TOOLS)]
        assert all(other.result() is first.result() for other in others)


def test_a_nested_value_may_grow_while_it_is_saved(memory: ConversationStore) -> None:
    conversation = memory.create()
    conversation["notes"] = {}
    done = threading.Event()

    def grow() -> None:
        for number in range(2_000):
            conversation["notes"][f"{number}"] = number
        done.set()

    thread = threading.Thread(target=grow)
    thread.start()
    while not done.is_set():
        conversation.save()
    thread.join()
    conversation.save()
    assert len(memory.get(conversation.id)["notes"]) == 2_000


def test_the_keys_may_be_read_while_others_are_set(memory: ConversationStore) -> None:
    conversation = memory.create()
    done = threading.Event()

    def grow() -> None:
        for number in range(2_000):
            conversation[f"{number}"] = number
        done.set()

    thread = threading.Thread(target=grow)
    thread.start()
    while not done.is_set():
        assert all(isinstance(value, int) for value in dict(conversation).values())
        assert conversation.is_modified in (True, False)
    thread.join()
    assert len(conversation) == 2_000


class Stopping(LocMemBackend):
    """Waits in each commit for the test, which goes on meanwhile, and may refuse it then."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.may_go_on = threading.Semaphore(0), threading.Semaphore(10**6)
        self.refuses = False

    def stop(self) -> None:
        """Have the next commits wait, once each."""
        self.may_go_on = threading.Semaphore(0)

    def commit(self, id: str, change: Change) -> Committed:
        self.entered.release()
        assert self.may_go_on.acquire(timeout=60)
        if self.refuses:
            raise ConversationInterrupted("The conversation was deleted or has expired.")
        return super().commit(id, change)

    async def acommit(self, id: str, change: Change) -> Committed:
        return await sync_to_async(self.commit, thread_sensitive=False)(id, change)


@pytest.fixture
def stopping() -> Stopping:
    return Stopping()


def test_what_is_refused_with_the_save_of_another_thread_is_an_error_in_both(
    stopping: Stopping,
) -> None:
    conversation = ConversationStore(stopping).create()
    conversation.save()
    conversation.messages.append("user", "first")
    stopping.stop()
    stopping.refuses = True
    with ThreadPoolExecutor(1) as pool:
        saved = pool.submit(conversation.save)
        assert stopping.entered.acquire(timeout=60)
        conversation.messages.append("user", "second")
        working = working_copy_of(conversation)
        refusals = working.stage()  # as `save` does, and is interrupted right there
        stopping.may_go_on.release(10)
        with pytest.raises(ConversationInterrupted):
            saved.result(timeout=60)
        stopping.refuses = False
        with pytest.raises(ConversationConflict, match="refused"):
            send(conversation, working, Repository(None, stopping, {}), refusals)
    conversation.messages.append("user", "third")
    conversation.save()
    assert [each["content"] for each in conversation.messages][-1:] == ["third"]


def test_so_it_is_with_tasks(stopping: Stopping) -> None:
    conversation = ConversationStore(stopping).create()
    conversation.save()
    stopping.refuses = True

    async def save(text: str) -> None:
        conversation.messages.append("user", text)
        await conversation.asave()

    async def both() -> Any:
        return await asyncio.gather(save("first"), save("second"), return_exceptions=True)

    errors = asyncio.run(both())
    assert all(isinstance(error, ConversationError) for error in errors), errors


def test_a_read_is_of_one_moment(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread, or task, saves while the oldest messages are read from the store."""
    store = ConversationStore(LocMemBackend(), window=5)
    conversation = store.create()
    conversation.messages.extend([{"role": "user", "content": n} for n in range(20)])
    conversation.save()
    conversation = store.get(conversation.id)

    read = store.backend.read_messages

    def say(*args: Any) -> Any:
        conversation.messages.extend([{"role": "user", "content": n} for n in range(20, 30)])
        conversation.save()
        return read(*args)

    replace_method(monkeypatch, store, "read_messages", say)
    if way == "sync":
        found = conversation.messages.window(12)
    else:
        found = asyncio.run(conversation.messages.awindow(12))
    assert [each["content"] for each in found] == list(range(8, 20))
    assert len(conversation.messages) == 30


def test_what_is_taken_back_is_not_what_another_thread_has_said(
    memory: ConversationStore,
) -> None:
    conversation = memory.create()
    popped: list[Any] = []

    def say() -> None:
        for number in range(500):
            conversation.messages.append("user", number)

    def take_back() -> None:
        while len(popped) < 200:
            if len(conversation.messages):
                popped.append(conversation.messages.pop()["content"])

    with ThreadPoolExecutor(2) as pool:
        for tool in [pool.submit(say), pool.submit(take_back)]:
            tool.result()
    left = [each["content"] for each in conversation.messages]
    assert sorted([*left, *popped]) == list(range(500))


def test_two_fields_of_one_message_both_hold(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is read from the store by both before either changes it."""
    store = ConversationStore(LocMemBackend(), window=1)
    conversation = store.create()
    id = conversation.messages.append("user", "what")
    conversation.messages.append("assistant", "that")
    conversation.save()
    conversation = store.get(conversation.id)
    barrier, find = threading.Barrier(2), store.backend.find

    def found(*args: Any) -> Any:
        barrier.wait(60)
        return find(*args)

    monkeypatch.setattr(store.backend, "find", found)
    if way == "sync":
        with ThreadPoolExecutor(2) as pool:
            for fields in ({"feedback": "up"}, {"seen": True}):
                pool.submit(partial(conversation.messages.update, id, **fields))
    else:

        async def afound(*args: Any) -> Any:
            return await asyncio.to_thread(found, *args)

        async def both() -> None:
            await asyncio.gather(
                conversation.messages.aupdate(id, feedback="up"),
                conversation.messages.aupdate(id, seen=True),
            )

        monkeypatch.setattr(store.backend, "afind", afound)
        asyncio.run(both())
    conversation.save()
    monkeypatch.undo()
    message = store.get(conversation.id).messages.find(id)
    assert (message["feedback"], message["seen"]) == ("up", True)


def test_what_another_thread_saves_while_a_turn_ends_is_kept(stopping: Stopping, way: str) -> None:
    store = ConversationStore(stopping)
    conversation = store.create()
    stopping.stop()

    def turn() -> None:
        with conversation.turn():
            conversation.messages.append("assistant", "in the turn")

    async def aturn() -> None:
        async with conversation.aturn():
            conversation.messages.append("assistant", "in the turn")

    with ThreadPoolExecutor(2) as pool:
        ended = pool.submit(turn if way == "sync" else partial(asyncio.run, aturn()))
        assert stopping.entered.acquire(timeout=60), "with the commit that gives up the lease"
        conversation.messages.append("tool", "as it ends")
        saved = pool.submit(conversation.save)
        assert stopping.entered.acquire(timeout=60)
        stopping.may_go_on.release(10)
        ended.result(timeout=60)
        saved.result(timeout=60)
    said = [each["content"] for each in store.get(conversation.id).messages]
    assert said == ["in the turn", "as it ends"]


def test_what_a_receiver_saves_after_a_turn_is_kept() -> None:
    store = ConversationStore(LocMemBackend())
    conversation = store.create()

    def receive(**_: Any) -> None:
        if conversation.messages and "seen" not in conversation:
            conversation["seen"] = True
            conversation.save()

    conversation.save()
    signals.conversation_saved.connect(receive, sender=store)
    with conversation.turn():
        conversation.messages.append("assistant", "in the turn")
    signals.conversation_saved.disconnect(receive, sender=store)
    assert store.get(conversation.id)["seen"]


def test_what_a_thread_says_while_a_turn_is_waited_for_is_saved_first(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConversationStore(LocMemBackend())
    conversation, acquire = store.create(), store.backend.acquire

    def acquired(*args: Any) -> Any:
        found = acquire(*args)
        conversation.messages.append("tool", "while it waits")
        return found

    replace_method(monkeypatch, store, "acquire", acquired)

    async def turn() -> None:
        async with conversation.aturn():
            conversation.messages.append("assistant", "in the turn")

    if way == "sync":
        with conversation.turn():
            conversation.messages.append("assistant", "in the turn")
    else:
        asyncio.run(turn())
    said = [each["content"] for each in store.get(conversation.id).messages]
    assert said == ["while it waits", "in the turn"]


def test_so_it_is_when_a_tool_does_not_stop(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of the store, a tool has changed something before it answers."""
    store = ConversationStore(LocMemBackend())
    conversation, said = store.create(), itertools.count()
    conversation["plan"], conversation["kept"] = {"goal": 1}, [0]
    id = conversation.messages.append("assistant", "a plan")
    conversation.save()
    kept = conversation["kept"]
    other = store.get(conversation.id)
    other["plan"]["other"] = 1
    other.messages.append("user", "from elsewhere")
    other.save()

    def busy(method: Any) -> Any:
        def call(*args: Any) -> Any:
            found = method(*args)
            number = next(said)
            conversation.messages.append("tool", number)
            conversation.messages.append("tool", number, id=f"given {number}")
            conversation.messages.update(id, **{f"step {number}": number})
            conversation.incr("calls")
            conversation["plan"][f"{number}"] = number
            kept.append(number)
            conversation["last"] = number
            return found

        return call

    for name in ("acquire", "commit", "load"):
        replace_method(monkeypatch, store, name, busy(getattr(store.backend, name)))

    async def turn() -> None:
        async with conversation.aturn():
            assert conversation["plan"]["other"] == 1

    if way == "sync":
        with conversation.turn():
            assert conversation["plan"]["other"] == 1
    else:
        asyncio.run(turn())
    monkeypatch.undo()
    conversation.save()
    found, numbers = store.get(conversation.id), list(range(next(said)))
    tool = [each["content"] for each in found.messages if each["role"] == "tool"]
    assert tool == [number for each in numbers for number in (each, each)]
    assert len(found.messages) == len(tool) + 2
    assert found.messages.find(id).keys() >= {f"step {number}" for number in numbers}
    assert found["calls"] == len(numbers)
    assert found["plan"] == {"goal": 1, "other": 1} | {f"{number}": number for number in numbers}
    assert found["kept"] == [0, *numbers]
    assert found["last"] == numbers[-1]


def test_a_turn_does_not_begin_before_what_others_save_has_arrived(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if they do not stop, it is refused, and nothing is lost."""
    store = ConversationStore(LocMemBackend())
    conversation = store.create()
    conversation["a"] = 1
    conversation.save()
    working = working_copy_of(conversation)
    load, acquire = store.backend.load, store.backend.acquire

    def staged(method: Any) -> Any:
        def call(*args: Any) -> Any:
            conversation.messages.append("tool", "a result")
            working.stage()  # as `save` does, of a thread that is interrupted right there
            return method(*args)

        return call

    for name, method in (("load", load), ("acquire", acquire)):
        replace_method(monkeypatch, store, name, staged(method))

    async def turn() -> None:
        async with conversation.aturn():
            raise AssertionError

    with pytest.raises(ConversationBusy, match="did not stop"):
        if way == "sync":
            with conversation.turn():
                raise AssertionError
        else:
            asyncio.run(turn())
    monkeypatch.undo()
    conversation.save()
    assert len(store.get(conversation.id).messages) == CONTINUE_TRIES + 1


def test_a_turn_of_what_was_deleted_while_a_tool_saved_is_interrupted(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConversationStore(LocMemBackend())
    conversation = store.create()
    conversation["a"] = 1
    conversation.save()
    acquire, commit = store.backend.acquire, store.backend.commit

    def acquired(*args: Any) -> Any:
        conversation.incr("calls")
        return acquire(*args)

    def committed(id: str, change: Change) -> Committed:
        answer = commit(id, change)
        store.backend.delete(id)
        return answer

    replace_method(monkeypatch, store, "acquire", acquired)
    replace_method(monkeypatch, store, "commit", committed)

    async def turn() -> None:
        async with conversation.aturn():
            raise AssertionError

    with pytest.raises(ConversationInterrupted):
        if way == "sync":
            with conversation.turn():
                raise AssertionError
        else:
            asyncio.run(turn())


def test_a_write_that_waits_while_another_thread_loads_is_not_lost(
    memory: ConversationStore,
) -> None:
    conversation = memory.create()
    conversation["a"] = 1
    conversation.save()
    working = working_copy_of(conversation)
    state, waits = working.state, threading.Event()

    def write() -> None:
        bound = conversation._copy.state.__setitem__  # as the interpreter finds it, before the lock
        waits.set()
        bound("b", 2)

    with ThreadPoolExecutor(1) as pool:
        with working.lock.held:
            written = pool.submit(write)
            assert waits.wait(60)
            conversation.reload()
        written.result(60)
    assert working.state is state
    conversation.save()
    assert memory.get(conversation.id)["b"] == 2


def test_what_several_threads_send_is_announced_once(stopping: Stopping, way: str) -> None:
    store = ConversationStore(stopping)
    conversation = store.create()
    conversation["a"] = 1
    seen: list[str] = []

    def created(**_: Any) -> None:
        seen.append("created")

    def saved(**_: Any) -> None:
        seen.append("saved")

    async def both() -> None:
        saves = [asyncio.create_task(conversation.asave()) for _ in range(2)]
        for _ in saves:
            assert await asyncio.to_thread(stopping.entered.acquire, timeout=60)
        stopping.may_go_on.release(2)
        await asyncio.gather(*saves)

    stopping.stop()
    signals.conversation_created.connect(created, sender=store)
    signals.conversation_saved.connect(saved, sender=store)
    try:
        if way == "async":
            asyncio.run(both())
        else:
            with ThreadPoolExecutor(2) as pool:
                saves = [pool.submit(conversation.save) for _ in range(2)]
                for _ in saves:
                    assert stopping.entered.acquire(timeout=60)
                stopping.may_go_on.release(2)
                for save in saves:
                    save.result(timeout=60)
    finally:
        signals.conversation_created.disconnect(created, sender=store)
        signals.conversation_saved.disconnect(saved, sender=store)
    assert seen == ["created", "saved"]


def test_a_refusal_that_comes_late_takes_nothing_of_what_was_changed_since(
    stopping: Stopping,
) -> None:
    """Two threads send the same change, and both are told that it is refused."""
    store = ConversationStore(stopping)
    conversation = store.create()
    conversation.save()
    conversation.messages.append("user", "first")
    stopping.stop()
    stopping.refuses = True
    with ThreadPoolExecutor(2) as pool:
        saves = [pool.submit(conversation.save) for _ in range(2)]
        for _ in saves:
            assert stopping.entered.acquire(timeout=60)
        stopping.may_go_on.release()
        done, late = wait(saves, timeout=60, return_when=FIRST_COMPLETED)
        assert (len(done), len(late)) == (1, 1)
        conversation.messages.append("user", "second")
        working = working_copy_of(conversation)
        refusals = working.stage()
        stopping.may_go_on.release()
        for save in saves:
            with pytest.raises(ConversationInterrupted):
                save.result(timeout=60)
    stopping.refuses = False
    stopping.may_go_on.release(10)
    send(conversation, working, Repository(None, stopping, {}), refusals)
    assert [each["content"] for each in store.get(conversation.id).messages] == ["second"]


class Meeting(list[str]):
    """Where two threads meet that both look whether it is empty, if they get so far."""

    def __init__(self, items: list[str]) -> None:
        super().__init__(items)
        self.barrier = threading.Barrier(2)

    def __bool__(self) -> bool:
        with suppress(threading.BrokenBarrierError):
            self.barrier.wait(0.5)
        return len(self) > 0


def test_a_stream_that_ends_while_another_thread_interrupts_it_is_kept_once(
    memory: ConversationStore,
) -> None:
    conversation = memory.create()
    log = working_copy_of(conversation).log
    stream = conversation.messages.stream("assistant", ["all"])
    next(stream)
    message: Any = next(iter(log.streams))
    message._parts = Meeting(message._parts)
    with ThreadPoolExecutor(2) as pool:
        interrupted, ended = pool.submit(log.interrupt_streams), pool.submit(list, stream)
        interrupted.result(60)
        ended.result(60)
    assert [each["content"] for each in conversation.messages] == ["all"]


def test_of_several_threads_one_gets_what_all_pop(
    memory: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = memory.create()
    conversation["job"] = 1
    barrier, getitem = threading.Barrier(2), State.__getitem__

    def found(state: State, key: str) -> Any:
        value = getitem(state, key)
        with suppress(threading.BrokenBarrierError):
            barrier.wait(0.5)
        return value

    monkeypatch.setattr(State, "__getitem__", found)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(conversation.pop, "job", None) for _ in range(2)]
        assert [job.result(60) for job in jobs].count(1) == 1
    barrier.reset()
    conversation.update({"a": 1, "b": 2})
    with ThreadPoolExecutor(2) as pool:
        items = [pool.submit(conversation.popitem) for _ in range(2)]
        assert {item.result(60) for item in items} == {("a", 1), ("b", 2)}


def test_a_receiver_that_changes_something_after_each_save_does_not_hold_up_a_turn(
    memory: ConversationStore,
) -> None:
    conversation = memory.create()

    def count(conversation: Conversation, **_: Any) -> None:
        conversation.incr("saved")

    signals.conversation_saved.connect(count, sender=memory)
    try:
        with conversation.turn():
            conversation.messages.append("user", "hello")
    finally:
        signals.conversation_saved.disconnect(count, sender=memory)
    assert len(memory.get(conversation.id).messages) == 1


def test_a_copy_has_a_lock_of_its_own() -> None:
    conversation = conversations.create()
    conversation["a"] = 1
    conversation.messages.append("user", "hello")
    for copied in (copy.deepcopy(conversation), pickle.loads(pickle.dumps(conversation))):
        lock, other = working_copy_of(conversation).lock, working_copy_of(copied)
        with lock.held, ThreadPoolExecutor(1) as pool:
            pool.submit(copied.messages.append, "user", "again").result(timeout=60)
        assert (len(copied.messages), len(conversation.messages)) == (2, 1)
        assert other.lock is other.log.lock


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads
def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent(
    memory: ConversationStore,
) -> None:
    conversation = memory.create()
    held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with working_copy_of(conversation).lock.held:
            held.set()
            is_over.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert held.wait(60)
        child = os.fork()
        if not child:
            signal.alarm(30)
            conversation.messages.append("user", "in the child")
            os._exit(len(conversation.messages))
        status = os.waitpid(child, 0)[1]
        is_over.set()
    assert os.waitstatus_to_exitcode(status) == 1
