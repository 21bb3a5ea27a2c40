"""The network, or the server, is slow, loses what it carries, or says nothing at all."""

import asyncio
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationStore
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.client.deadline import LATE_SHARE
from django_convstate.ids import new_id
from tests.chaos.crowd import Crowd, Writer
from tests.chaos.proxy import Proxy
from tests.chaos.world import World
from tests.support.messages import bodies, pairs
from tests.support.servers import wait_until

TTL = 60.0


def test_lost_replies_lose_and_duplicate_nothing(world: World) -> None:
    with Crowd(world, threads=2, tasks=2):
        for number in range(20):
            world.proxy.lose_next_reply()
            wait_until(lambda number=number: world.proxy.lost > number)
            time.sleep(0.1)
    world.check()


@pytest.mark.parametrize("fault", ["mute", "deaf"])
def test_a_connection_dropped_in_one_direction_loses_nothing(world: World, fault: str) -> None:
    with Crowd(world):
        time.sleep(0.3)
        setattr(world.proxy, fault, True)
        time.sleep(3 * world.limit)
        setattr(world.proxy, fault, False)
        world.settle()
    world.check()


def spoil_by_drip(proxy: Proxy) -> None:
    proxy.drip_every = proxy.limit / 5


def spoil_by_truncation(proxy: Proxy) -> None:
    proxy.truncate_next_reply(3)


def reset_now(proxy: Proxy) -> None:
    proxy.reset()


def spoil_by_delay_and_loss(proxy: Proxy) -> None:
    """The first try is as slow as it may be, and its reply lost; so would the second one be."""
    proxy.slow_share, proxy.slow_by = 1.0, 0.8 * proxy.limit
    proxy.lose_next_reply()


FAULTS = [spoil_by_drip, spoil_by_truncation, spoil_by_delay_and_loss, reset_now]


@pytest.mark.parametrize("spoil", FAULTS)
@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
def test_a_spoiled_reply_is_never_read_as_anothers(
    world: World, spoil: Callable[[Proxy], None], in_loop: bool
) -> None:
    """The deadline is kept, and the connection thrown away: what still comes by it is not read as
    the answer to the next question."""
    backend = RedisBackend(cache_alias=world.alias)
    ids = [new_id() for _ in range(20)]
    for id in ids:
        backend.commit(id, Change(ttl=TTL, append=pairs(b'"%s"' % id.encode())))

    granted = list[float]()

    async def visit(load: Callable[[str], Any]) -> None:
        for number, id in enumerate(ids):
            if number % 5 == 1:
                spoil(world.proxy)
            accepted, began, record = world.proxy.accepted, time.monotonic(), None
            async with Lateness() as lateness:
                with suppress(BackendUnavailable):
                    record = await load(id)
            world.model.operations.append((began, time.monotonic() - began))
            # The time of an operation is granted once more where the event loop itself was late:
            # the answer may have been lying there.
            is_late = in_loop and lateness.seconds > LATE_SHARE / 2 * world.limit
            granted.append(world.limit if is_late else 0)
            world.proxy.calm()
            if record is None or number % 5 == 1:
                assert number % 5 == 1
                assert bodies((await load(id)).messages) == [b'"%s"' % id.encode()]
                assert world.proxy.accepted > accepted, "the connection was used again"
            else:
                assert (record.id, bodies(record.messages)) == (id, [b'"%s"' % id.encode()])

    async def load(id: str) -> Any:
        return backend.load(id, 5)

    with world.ruler() as ruler:
        asyncio.run(visit(partial(backend.aload, window=5) if in_loop else load))
    world.slowest(ruler)
    for operation, more in zip(world.model.operations, granted, strict=True):
        assert ruler.fair(*operation) <= world.limit + more
    backend.close()
    world.check()


class Lateness:
    """By how many seconds at most a bare timer of the event loop is late in a block."""

    TICK = 0.005

    async def __aenter__(self) -> "Lateness":
        self.seconds = 0.0
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)  # until it has begun
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)  # so that what is due by now is noted
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + self.TICK
            try:
                await asyncio.sleep(self.TICK)
            finally:
                self.seconds = max(self.seconds, time.monotonic() - due)


@pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])
def test_an_unanswered_connect_is_given_up_in_time(world: World, in_loop: bool) -> None:
    """A machine that is gone does not even refuse: the connection itself is waited for."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as gone, ExitStack() as callers:
        for _ in range(4):  # until there is no room for one more
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(gone.getsockname())
        # However patient one is with connections: the operation has its time.
        url = f"redis://127.0.0.1:{gone.getsockname()[1]}"
        world.point_at(url, SOCKET_CONNECT_TIMEOUT=8 * world.limit)
        backend = RedisBackend(cache_alias=world.alias)
        with world.ruler() as ruler:
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                asyncio.run(backend.aload("a", 5)) if in_loop else backend.load("a", 5)
            world.model.operations.append((began, time.monotonic() - began))
        # Where the event loop is late, an operation of a task gets its time once more.
        assert world.slowest(ruler) <= (2 if in_loop else 1) * world.limit
        backend.close()
    world.point_at(world.url)
    world.check()


@pytest.mark.parametrize("spoil", FAULTS)
def test_spoiled_replies_under_load_delay_no_operation(
    world: World, spoil: Callable[[Proxy], None]
) -> None:
    with world.ruler() as ruler, Crowd(world):
        for _ in range(5):
            time.sleep(0.8 * world.limit)
            spoil(world.proxy)
        time.sleep(0.5)
        world.proxy.calm()
        world.settle()
    world.check_times_of_crowd(ruler, replies=2 if spoil is spoil_by_delay_and_loss else 1)
    world.check()


def test_a_blackhole_slows_no_operation_after_the_breaker_opened(world: World) -> None:
    writer = Writer(world, ConversationStore(world.backend()), 0, [new_id() for _ in range(20)])
    writer.turns(300)
    before = turn_times(world)
    world.proxy.silent = True
    writer.turns(3)
    turn_times(world)
    writer.turns(300)
    during = turn_times(world)
    added = statistics.median(during) - statistics.median(before)
    world.note(
        f"median turn {statistics.median(before) * 1000:.2f} ms before, "
        f"{statistics.median(during) * 1000:.2f} ms in the blackhole"
    )
    assert added < 0.001
    world.proxy.silent = False
    world.check()


def turn_times(world: World) -> list[float]:
    """Return how long each turn took, of which each is two operations, and forget that."""
    took = [seconds for _, seconds in world.model.operations]
    world.model.operations.clear()
    return [load + save for load, save in zip(took[::2], took[1::2], strict=True)]


@pytest.mark.chaos
def test_slow_calls_do_not_make_the_breaker_flap(world: World) -> None:
    with Crowd(world):
        time.sleep(1)
        world.proxy.slow_share, world.proxy.slow_by = 0.3, 0.8 * world.limit
        time.sleep(60)
    world.proxy.calm()
    changes = 2 * world.outages_told
    world.note(f"{changes} changes of state in a minute, {len(world.model.operations)} operations")
    assert changes <= 2
    world.check()


def test_a_commit_that_is_too_large_for_the_line_goes_in_pieces(world: World) -> None:
    """And the other conversations never notice."""
    store = ConversationStore(world.backend())
    others = [store.create() for _ in range(5)]
    for other in others:
        other["known"] = True
        other.save()
    large = store.create()
    texts = [f"{number:03}" + "x" * 60_000 for number in range(60)]
    for text in texts:
        large.messages.append("user", text)
    world.proxy.bandwidth = 150_000 / world.limit  # of which a piece takes more, and a message less
    large.save()
    assert large.degraded
    while store.health().pending_replay:
        for other in others:
            assert not store.get(other.id).degraded
        time.sleep(world.limit)
    world.proxy.calm()
    large.reload()
    assert [message["content"] for message in large.messages.all()] == texts
    assert world.outages_told == 0
    world.check()
    assert world.proxy.carried < 10 * len("".join(texts))


def test_timeouts_of_the_first_seconds_are_no_outage(world: World) -> None:
    """All threads of a process connect at once, as all do after a deployment."""
    backend = world.backend()
    store = ConversationStore(backend)
    world.proxy.silent = True
    with ThreadPoolExecutor(16) as pool:
        degraded = pool.map(lambda number: store.open(f"c{number}").degraded, range(16))
        assert all(degraded)
    world.proxy.calm()
    assert not backend.health().using_fallback
    assert not store.open("c0").degraded
    assert world.outages_told == 0
    world.check()


def test_a_refused_connection_is_an_outage_in_the_first_second_too(world: World) -> None:
    store = ConversationStore(world.backend())
    world.server.kill()
    assert store.open("c0").degraded
    wait_until(lambda: world.outages_told == 1)
    world.restart()
    world.check()
