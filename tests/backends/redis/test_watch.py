"""The time limit of an operation in async code: what `asyncio.timeout()` does, with one timer."""

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable
from contextvars import ContextVar

import pytest
from redis import exceptions

from django_convstate import get_backend
from django_convstate.backends.redis.client.deadline import LoopDeadline
from django_convstate.backends.redis.client.watch import Watch


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def is_over(watch: Watch, seconds: float, reply: Awaitable[None]) -> float:
    """Return after how many seconds there is no more waiting for a reply."""
    began = time.monotonic()
    with pytest.raises(exceptions.TimeoutError):
        await LoopDeadline(seconds, watch=watch).wait_for(reply)
    return time.monotonic() - began


async def test_each_has_its_own_time() -> None:
    watch, times = Watch(), [0.1, 0.05, 0.2, 0.05, 0.0, -1.0]
    longest = asyncio.create_task(is_over(watch, 60, for_ever()))
    await asyncio.sleep(0)  # it is the first to be watched, and holds up no other
    took = await asyncio.gather(*[is_over(watch, seconds, for_ever()) for seconds in times])
    for seconds, waited in zip(times, took, strict=True):
        assert waited >= seconds - 0.002
    assert not longest.done()
    longest.cancel()
    with pytest.raises(asyncio.CancelledError):
        await longest


async def test_what_is_put_off_goes_on() -> None:
    watch = Watch()
    deadline = LoopDeadline(0.01, 60, watch=watch)

    async def answers_late() -> str:
        deadline.put_off(3000)  # replies: 30 seconds
        # When this one is over, so is the time that there was at first.
        await asyncio.create_task(is_over(watch, 0.05, for_ever()))
        return "here"

    assert await deadline.wait_for(answers_late()) == "here"


async def test_one_that_ended_in_time_is_left_alone() -> None:
    watch = Watch()
    for _ in range(3):
        await LoopDeadline(0.001, watch=watch).wait_for(asyncio.sleep(0))
    await is_over(watch, 0.01, for_ever())  # by then the time of the others is over, too
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_by_another_is_none_of_ours() -> None:
    waiting = asyncio.create_task(LoopDeadline(60).wait_for(for_ever()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_cancellation_at_the_very_end_counts() -> None:
    deadline = LoopDeadline(60)
    waiting = asyncio.create_task(deadline.wait_for(for_ever()))
    await asyncio.sleep(0)
    deadline.expire()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_reply_that_is_there_when_the_time_is_over_takes_no_other_down() -> None:
    deadline = LoopDeadline(60)

    async def answers_anyway() -> str:
        try:
            await for_ever()
        except asyncio.CancelledError:
            return "here"
        return ""

    async def ask() -> None:
        assert await deadline.wait_for(answers_anyway()) == "here"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    deadline.expire()
    await asking


async def test_a_limit_around_it_ends_it_first() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await LoopDeadline(60).wait_for(for_ever())


async def test_a_limit_around_it_goes_on() -> None:
    async with asyncio.timeout(60):
        await is_over(Watch(), 0.01, for_ever())
        await asyncio.sleep(0)


@pytest.mark.usefixtures("valkey")
async def test_a_connection_keeps_nothing_of_the_task_that_has_made_it() -> None:
    backend = get_backend("redis", cache_alias="django_redis", fallback=None)
    task = asyncio.create_task(backend.aload("nothing", 10))
    await task
    made = weakref.ref(task)
    del task
    await asyncio.sleep(0)  # what has called us holds it until then
    gc.collect()
    assert made() is None
    await backend.aclose()


async def test_the_timer_keeps_nothing_of_the_context_in_which_it_was_set() -> None:
    class Held:
        """What a request has in its context."""

    held, watch = ContextVar[Held]("held"), Watch()

    async def request() -> weakref.ref[Held]:
        held.set(made := Held())
        watch.begin(LoopDeadline(60, watch=watch))
        return weakref.ref(made)

    made = await asyncio.create_task(request())
    await asyncio.sleep(0)
    gc.collect()
    assert made() is None
