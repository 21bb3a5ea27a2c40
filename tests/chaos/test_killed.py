"""The server dies, or is as if dead, and comes back."""

import time

import pytest

from django_convstate import ConversationStore
from django_convstate.ids import new_id
from tests.chaos.crowd import Crowd, Writer
from tests.chaos.world import World


@pytest.mark.parametrize("away", [1.5, pytest.param(10.0, marks=pytest.mark.chaos)])
def test_a_server_killed_under_load_loses_nothing_acknowledged(world: World, away: float) -> None:
    with world.ruler() as ruler, Crowd(world):
        time.sleep(1)
        world.server.kill()
        time.sleep(away)
        back = world.restart()
        home = world.settle()
        time.sleep(0.5)
    world.note(f"home {home - back:.2f} s after the first PONG")
    assert ruler.fair(back, home - back) < 5
    assert world.outages_told == 1
    world.check()


@pytest.mark.chaos
def test_a_frozen_server_delays_no_operation(world: World) -> None:
    with world.ruler() as ruler, Crowd(world):
        time.sleep(0.5)
        world.server.freeze()
        time.sleep(5)
        world.server.thaw()
        world.settle()
    world.check_times_of_crowd(ruler)
    world.check()


@pytest.mark.chaos
def test_a_flapping_server_loses_nothing_acknowledged(world: World) -> None:
    with Crowd(world):
        for _ in range(30):
            time.sleep(1)
            world.server.kill()
            time.sleep(1)
            world.restart()
    world.note(f"{world.outages_told} outages told")
    world.check()


def test_a_conversation_deleted_in_the_outage_stays_deleted(world: World) -> None:
    here, there = (ConversationStore(world.backend()) for _ in range(2))
    known, unknown, remade, kept = ids = [new_id() for _ in range(4)]
    Writer(world, there, 0, ids).turns(8)
    for id in (known, remade):
        here.get(id)
    world.server.kill()
    for id in (known, unknown, remade):
        assert here.delete(id)
        world.model.forget(id)
    assert not here.exists(known)
    # Another process has not heard of it, and says more. Whichever comes home first: it is gone.
    Writer(world, there, 1, [known, kept]).turns(4)
    Writer(world, here, 2, [remade]).turns(3)
    world.model.deleted |= {known, unknown}
    world.restart()
    world.check()
