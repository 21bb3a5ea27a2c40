"""What an idle websocket keeps in memory: thousands of them are open on one process."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from inspect import iscoroutinefunction
from types import FrameType
from typing import Any

import pytest

from django_convstate.channels import ConversationMiddlewareStack
from tests.support.consumers import Chat
from tests.support.tabs import Browser, Tab

pytestmark = pytest.mark.django_db


def waiting(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames in which a task waits, from the outermost."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await


def ours(task: "asyncio.Task[Any]") -> list[FrameType]:
    """Return those of this package."""
    frames = waiting(task.get_coro())
    return [each for each in frames if each.f_globals["__name__"].startswith("django_convstate.")]


def running(tab: Tab) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = tab.future
    return task


async def test_each_layer_is_one_coroutine(browser: Browser) -> None:
    tab = await browser.open()
    assert [frame.f_code.co_qualname for frame in ours(running(tab))] == [
        "_PassingHeaders.__call__",
        "ConversationMiddleware.__call__",
        "Listening.__call__",
    ]


async def test_it_keeps_no_scope_but_those_of_the_server_and_of_the_consumer(
    browser: Browser,
) -> None:
    tab = await browser.open()
    outermost, *inner = (frame.f_locals["scope"] for frame in ours(running(tab)))
    assert "conversation" not in outermost
    assert all(scope is inner[0] and "conversation" in scope for scope in inner)


async def test_it_is_released_without_a_collection_of_garbage() -> None:
    """Channels' own sync consumers are not: the error that ends them is kept."""
    consumers: list[weakref.ref[Any]] = []

    class Noted(Chat):
        async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
            consumers.append(weakref.ref(self))
            await super().__call__(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        browser = Browser(Noted)
        tab = await browser.open()
        await tab.say("hello")
        await browser.leave()
        del tab, browser
        assert [consumer() for consumer in consumers] == [None]
    finally:
        gc.enable()


def test_a_server_takes_it_for_an_application_of_asgi_3() -> None:
    application: Any = ConversationMiddlewareStack(Chat.as_asgi())
    assert iscoroutinefunction(application.__call__)
