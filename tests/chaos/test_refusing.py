"""The server answers, and says no: nothing may be written, or nobody may come in."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from django_convstate import ConversationStore
from django_convstate.ids import new_id
from tests.chaos.crowd import Crowd, Writer
from tests.chaos.world import PASSWORD, World
from tests.support.servers import wait_until


def pause_writes(client: Any) -> None:
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")


def unpause(client: Any) -> None:
    client.execute_command("CLIENT", "UNPAUSE")


def fill_up(client: Any) -> None:
    client.config_set("maxmemory", 1)


def give_room(client: Any) -> None:
    client.config_set("maxmemory", 0)


def make_a_replica(client: Any) -> None:
    client.replicaof("127.0.0.1", 1)  # of nobody, so that it keeps what it has


def make_a_primary(client: Any) -> None:
    client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [(pause_writes, unpause), (fill_up, give_room), (make_a_replica, make_a_primary)],
)
def test_refused_writes_are_degraded_and_reads_go_on(
    world: World, refuse: Callable[[Any], None], allow: Callable[[Any], None]
) -> None:
    here, there = (ConversationStore(world.backend()) for _ in range(2))
    known, only_there = new_id(), new_id()
    Writer(world, there, 100, [known, only_there]).turns(8)
    with Crowd(world, here):
        time.sleep(0.2)
        with world.server.client() as client:
            refuse(client)
            wait_until(lambda: here.health().since)
            read = here.get(only_there)
            assert read.degraded
            assert len(read.messages.all()) == 4, "what was never seen here is read from the server"
            Writer(world, here, 101, [known]).turns(1)
            assert here.get(known).degraded
            assert len(here.get(known).messages) == 5
            assert here.health().pending_replay > 0
            time.sleep(0.5)
            allow(client)
        world.settle()
        assert not here.get(known).degraded
    world.check()


def test_a_changed_password_is_one_outage_with_few_tries(world: World) -> None:
    store = ConversationStore(world.backend())
    with Crowd(world, store):
        time.sleep(0.3)
        with world.server.client() as client:
            client.config_set("requirepass", "another")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            wait_until(lambda: store.health().since)
            time.sleep(0.3)  # for those who were on their way
            accepted, since = world.proxy.accepted, time.monotonic()
            time.sleep(4)
            tries, seconds = world.proxy.accepted - accepted, time.monotonic() - since
            world.note(f"{tries} tries in {seconds:.1f} s")
            assert tries <= seconds, "the probe, at most once a second"
            health = store.health()
            assert (health.connected, health.using_fallback) == (False, True)
            assert "does not accept the user name or the password" in health.detail
            client.config_set("requirepass", PASSWORD)
        world.settle()
    assert store.health().connected
    assert world.outages_told == 1
    world.check()
