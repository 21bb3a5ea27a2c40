"""Tells open websockets through the channel layer that messages were saved elsewhere: `notify`.

Here, and not in `channels`, because a process that only serves requests needs nothing else of
Channels, and imports nothing of it as long as CHANNEL_LAYERS is not set.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.asyncio import async_unsafe
from django.utils.crypto import salted_hmac

from .backends.toolkit.isolation import run_isolated
from .conversation.conversation import Conversation, working_copy_of
from .layer import LAYER_TIMEOUT, Operation, breaker

EVERYTHING: Final = 2**31  # a count of messages that no client has

logger = logging.getLogger("django_convstate")

Event = dict[str, Any]


def group_name(id: str) -> str:
    """Return the name of the group of all consumers that have conversation `id` open."""
    digest = salted_hmac("django_convstate.group", id, algorithm="sha256").hexdigest()
    return f"convstate.{digest}"


def news_event(count: int, kept: int | None = None, sender: str = "") -> Event:
    """Return the event, handled by `conversation_news` of a consumer, that has the others of its
    group read what is new. The messages are not in it, because a channel layer limits the size.

    Args:
        count: how many messages are stored now.
        kept: how many of the messages that were stored before are left; None: all.
        sender: the channel name of the consumer that committed, which ignores the event.
    """
    return {"type": "conversation.news", "count": count, "kept": kept, "sender": sender}


def session_group(session_key: str) -> str:
    """Return the name of the group of all consumers whose socket was opened in a session. A
    reader of the layer cannot use it as a session key."""
    digest = salted_hmac("django_convstate.session", session_key, algorithm="sha256").hexdigest()
    return f"convstate.session.{digest}"


# Handled by `conversation_logout` of a consumer, which closes its socket.
_LOGOUT_EVENT: Final[Event] = {"type": "conversation.logout"}


@async_unsafe("In async code, write `await anotify(conversation)`.")
def notify(conversation: Conversation, event: Mapping[str, Any] | None = None) -> None:
    """Tell the open websockets of a conversation that messages were saved, so that they read them
    and send them to their clients. Our consumers and `ConversationMiddleware` do so by themselves;
    this is for commands, tasks and other consumers.

    It does not raise if the channel layer is unavailable, waits for a second at most, and does
    nothing where there is none.

    Args:
        conversation: saved just now.
        event: one of your own instead, which goes to the method of the consumers that its "type"
            names, as `group_send` of Channels has it.
    """
    if has_layer():
        _sender.send(group_name(conversation.id), _event(conversation, event))


async def anotify(conversation: Conversation, event: Mapping[str, Any] | None = None) -> None:
    """See `notify`."""
    if has_layer():
        await _sender.asend(group_name(conversation.id), _event(conversation, event))


def notify_of_saved(conversation: Conversation) -> None:
    """Call `notify` if messages were saved and not announced yet."""
    if working_copy_of(conversation).has_news:
        with suppress(SynchronousOnlyOperation):  # by a sync middleware within an event loop
            notify(conversation)


async def anotify_of_saved(conversation: Conversation) -> None:
    """See `notify_of_saved`."""
    if working_copy_of(conversation).has_news:
        await anotify(conversation)


def notify_of_logout(session_key: str) -> None:
    """Close the websockets that were opened in a session which has ended."""
    if has_layer():
        try:
            _send_logout(session_key)
        except SynchronousOnlyOperation:  # by a sync middleware within an event loop
            logger.warning(
                "The websockets of a session that has ended stay open: a sync middleware that runs "
                "within an event loop cannot reach the channel layer."
            )


async def anotify_of_logout(session_key: str) -> None:
    """See `notify_of_logout`."""
    if has_layer():
        await _sender.asend(session_group(session_key), _LOGOUT_EVENT)


def has_layer() -> bool:
    """Tell whether a channel layer is configured."""
    return bool(getattr(settings, "CHANNEL_LAYERS", None))


@async_unsafe("In async code, write `await anotify_of_logout(session_key)`.")
def _send_logout(session_key: str) -> None:
    _sender.send(session_group(session_key), _LOGOUT_EVENT)


def _event(conversation: Conversation, event: Mapping[str, Any] | None) -> Event:
    return news_event(*working_copy_of(conversation).take_news()) if event is None else {**event}


def read_again(missed: Event | None = None) -> Event:
    """Return the event that has consumers load the conversation and read what they have missed; if
    that may have taken messages away, all of it."""
    return news_event(EVERYTHING, None if (missed or {}).get("kept") is None else 0)


class _Sender:
    """Sends by the default layer, and goes on without one that is unavailable."""

    def __init__(self) -> None:
        self._stuck: threading.Thread | None = None  # one that has not come to its end in time

    def send(self, group: str, event: Event) -> None:
        """Send from sync code: by the event loop that this code was called from, since a layer in
        memory wakes consumers in its own loop only; else by one in a thread. Neither to connect nor
        to look up a host can be stopped, so the thread is not waited for."""
        loop = _loop_of_caller()
        if not breaker.is_open:
            try:
                if loop is not None:
                    sending = asyncio.run_coroutine_threadsafe(_send(group, event), loop)
                    sending.result(LAYER_TIMEOUT)
                else:
                    self._send_in_thread(group, event)
            except Exception as error:
                breaker.failed(error)
            else:
                return
        breaker.postpone(*_later(group, event), loop)

    async def asend(self, group: str, event: Event) -> None:
        """See `send`."""
        await breaker.attempt(partial(_send, group, event), *_later(group, event))

    def _send_in_thread(self, group: str, event: Event) -> None:
        sent: Future[None] = Future()

        def run() -> None:
            try:
                asyncio.run(asyncio.wait_for(_send(group, event), LAYER_TIMEOUT))
            except Exception as error:
                sent.set_exception(error)
            else:
                sent.set_result(None)

        if self._stuck is not None and self._stuck.is_alive():
            return
        thread = threading.Thread(target=run_isolated, args=(run,), daemon=True)
        thread.start()
        try:
            sent.result(LAYER_TIMEOUT)
        except TimeoutError:
            self._stuck = thread
            raise


def _later(group: str, event: Event) -> tuple[Hashable, Operation]:
    """Return what to send when the layer is back, and its key: once for each group, or twice."""
    again = read_again(event)
    return (group, again["kept"]), partial(_send, group, again)


async def _send(group: str, event: Event) -> None:
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    if layer is not None:
        await layer.group_send(group, event)


def _loop_of_caller() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop from which this thread was called by `sync_to_async`."""
    known = SyncToAsync.threadlocal
    loop: asyncio.AbstractEventLoop | None = getattr(known, "main_event_loop", None)
    if loop is None or getattr(known, "main_event_loop_pid", None) != os.getpid():
        return None
    return loop if loop.is_running() else None


_sender = _Sender()
