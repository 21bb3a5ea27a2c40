"""Slots of an event loop: none is lost and none is taken twice, and who came first is first."""

import asyncio
import random

from django_convstate.backends.redis.client.loop_slots import LoopSlots


async def test_who_came_first_is_first() -> None:
    slots, order = LoopSlots(1), list[int]()
    assert slots.take()

    async def wait(number: int) -> None:
        await slots.reserve()
        assert not slots.take(), "nobody gets in between"
        order.append(number)
        await asyncio.sleep(0)
        slots.give_back()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    slots.give_back()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]
    assert slots.take()
    assert not slots.take()


async def test_a_slot_of_one_that_gave_up_goes_to_the_next() -> None:
    slots = LoopSlots(1)
    assert slots.take()
    first, second, third = (slots.reserve() for _ in range(3))
    slots.resign(first)  # before it had one
    slots.give_back()
    assert (second.done(), third.done()) == (True, False)
    slots.resign(second)  # with one already
    assert third.done()
    slots.give_back()
    assert slots.take()


async def test_none_is_lost_however_tasks_end() -> None:
    slots, chance, inside = LoopSlots(3), random.Random(0), set[object]()

    async def use() -> None:
        if not slots.take():
            slot = slots.reserve()
            try:
                await asyncio.wait([slot])
            except BaseException:
                slots.resign(slot)
                raise
        me = object()
        inside.add(me)
        try:
            assert len(inside) <= 3
            await asyncio.sleep(0)
        finally:
            inside.discard(me)
            slots.give_back()

    tasks = [asyncio.create_task(use()) for _ in range(500)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    assert [slots.take() for _ in range(4)] == [True, True, True, False]
