"""A channel layer that is frozen, or away, costs messages and requests nothing but the first of
them a moment, and sockets miss nothing of what was saved meanwhile."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from channels.layers import get_channel_layer

from django_convstate import layer
from django_convstate.layer import LAYER_TIMEOUT, LayerBreaker, breaker
from tests.chaos.proxy import Proxy
from tests.support.consumers import Chat, SyncChat
from tests.support.docs import ROOT, blocks
from tests.support.ruler import Stopwatch
from tests.support.servers import Server, wait_until
from tests.support.tabs import Browser, contents, stored

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db

MESSAGES = 6


@pytest.fixture
def proxy(server: Server, settings: Any) -> Iterator[Proxy]:
    """Before the server of the layer that docs/live.md configures."""
    with Proxy(server.port) as proxy:
        settings.CHANNEL_LAYERS = documented_layer(proxy.port)
        yield proxy


def documented_layer(port: int) -> Any:
    text = (ROOT / "docs/live.md").read_text()
    (block,) = [block for block in blocks(text, "python") if "CHANNEL_LAYERS" in block]
    names: dict[str, Any] = {}
    exec(block.replace(":6379", f":{port}"), names)
    return names["CHANNEL_LAYERS"]


@pytest.mark.parametrize("consumer", [Chat, SyncChat])
async def test_a_frozen_layer_costs_the_first_message_a_moment(
    proxy: Proxy, consumer: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "LAYER_RETRY_PAUSE", 0.2)
    browser, token = Browser(consumer), stored("before")
    one, other = await browser.open(token), await browser.open(token)
    await one.say("hello")
    assert contents(await other.hear()) == ["hello"]
    proxy.silent = True
    with Stopwatch() as watch:
        for number in range(MESSAGES):
            await one.say(f"{number}")
    assert watch.seconds < (MESSAGES / 2) * LAYER_TIMEOUT
    latecomer = await browser.open(token)
    proxy.silent = False
    for tab in (other, latecomer):
        heard: list[str] = []
        expected = [f"{number}" for number in range(MESSAGES)] if tab is other else ["after"]
        while heard != expected:
            if tab is latecomer and not heard:
                wait_for_end = partial(wait_until, lambda: not breaker.is_open)
                await asyncio.to_thread(wait_for_end)
                await one.say("after")
            heard += contents(await tab.hear())
            assert heard == expected[: len(heard)]
    await browser.leave()


async def test_one_thread_asks_whether_the_layer_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail() -> None:
        raise OSError("away")

    async def succeed() -> None:
        done.append(time.monotonic())

    monkeypatch.setattr(layer, "LAYER_RETRY_PAUSE", 0.1)
    done: list[float] = []
    mine, before = LayerBreaker(), threading.active_count()
    attempts = [mine.attempt(fail, number, succeed) for number in range(20)]
    assert not any(await asyncio.gather(*attempts))
    assert threading.active_count() <= before + 1
    await asyncio.to_thread(wait_until, lambda: len(done) == 20 and not mine.is_open)
    assert await mine.attempt(succeed, 1, succeed)


async def test_what_waits_is_bounded_and_can_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise OSError("away")

    async def note(number: int) -> None:
        done.append(number)

    monkeypatch.setattr(layer, "LAYER_RETRY_PAUSE", 0.2)
    monkeypatch.setattr(layer, "MAX_PENDING", 5)
    done: list[int] = []
    mine = LayerBreaker()
    for number in range(10):
        await mine.attempt(fail, number, partial(note, number))
    mine.forget(2)
    await asyncio.to_thread(wait_until, lambda: not mine.is_open)
    assert done == [0, 1, 3, 4]


async def test_a_mistake_of_the_caller_is_no_outage() -> None:
    async def fail() -> None:
        raise TypeError("not serializable")

    mine = LayerBreaker()
    assert not await mine.attempt(fail, 1, fail)
    assert not mine.is_open


async def test_a_thread_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail() -> None:
        raise OSError("away")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    mine = LayerBreaker()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not await mine.attempt(fail, 1, fail)
    assert not mine.is_open


def test_a_forked_process_begins_anew() -> None:
    breaker.is_open = True  # its thread is the parent's
    pid = os.fork()
    if pid == 0:
        os._exit(int(breaker.is_open))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.slow
async def test_an_idle_socket_of_the_documented_layer_goes_on_listening(proxy: Proxy) -> None:
    """For longer than redis-py's default timeout."""
    channel_layer: Any = get_channel_layer()
    channel = await channel_layer.new_channel()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(11):
            await channel_layer.receive(channel)
    assert type(caught.value) is TimeoutError, "and not redis-py's, of which it is a kind"
