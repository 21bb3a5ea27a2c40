"""Tells open websockets through the channel layer that messages were saved elsewhere: `notify`.

Here, and not in `channels`, because a process that only serves requests needs nothing else of
Channels, and imports nothing of it as long as CHANNEL_LAYERS is not set.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.asyncio import async_unsafe
from django.utils.crypto import salted_hmac

from .backends.toolkit.isolation import run_isolated
from .conversation.conversation import Conversation, working_copy_of

logger = logging.getLogger("django_convstate")

# In seconds. Requests and sockets go on without a layer that is unavailable.
LAYER_TIMEOUT: Final = 1.0
LAYER_RETRY_PAUSE: Final = 5.0

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
    """Return the name of the group of all consumers whose socket was opened in a session. Whoever
    reads it in the layer cannot use it."""
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


class LayerUser:
    """What uses the channel layer, and goes on without it. Of failures in a row the first is
    logged, with `_layer_outage`: what the failures mean."""

    _layer_outage: ClassVar[str]
    _layer_failed = False

    @contextmanager
    def _surviving_layer_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._note_layer_error(error)
        else:
            self._layer_failed = False

    def _note_layer_error(self, error: Exception) -> None:
        if not self._layer_failed:
            logger.warning("The channel layer is unavailable: %s %r", self._layer_outage, error)
        self._layer_failed = True


class _Sender(LayerUser):
    """Sends by the default layer. After a failure it does not try for a while, so that not every
    response waits for a layer that is unavailable. Consumers that have missed something then read
    it when the layer is back: see `channels/listening.py`."""

    _layer_outage = (
        "open websockets are not told what requests have saved, and read it later; nor are they "
        "closed by a logout."
    )

    def __init__(self) -> None:
        self._retry_at = 0.0
        self._stuck: threading.Thread | None = None  # one that has not come to its end in time

    def send(self, group: str, event: Event) -> None:
        """Send from sync code: by the event loop that this code was called from, since a layer in
        memory wakes consumers in its own loop only; else by one in a thread. Neither to connect nor
        to look up a host can be stopped, so the thread is not waited for."""
        if not self._may_try():
            return
        with self._trying():
            loop = _loop_of_caller()
            if loop is not None:
                asyncio.run_coroutine_threadsafe(_send(group, event), loop).result(LAYER_TIMEOUT)
            else:
                self._send_in_thread(group, event)

    async def asend(self, group: str, event: Event) -> None:
        """See `send`."""
        if self._may_try():
            with self._trying():
                await _send(group, event)

    def _send_in_thread(self, group: str, event: Event) -> None:
        sent: Future[None] = Future()

        def run() -> None:
            try:
                asyncio.run(_send(group, event))
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

    def _may_try(self) -> bool:
        return time.monotonic() >= self._retry_at

    @contextmanager
    def _trying(self) -> Iterator[None]:
        with self._surviving_layer_errors():
            try:
                yield
            except Exception:
                self._retry_at = time.monotonic() + LAYER_RETRY_PAUSE
                raise


async def _send(group: str, event: Event) -> None:
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    if layer is not None:
        async with asyncio.timeout(LAYER_TIMEOUT):
            await layer.group_send(group, event)


def _loop_of_caller() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop from which this thread was called by `sync_to_async`."""
    known = SyncToAsync.threadlocal
    loop: asyncio.AbstractEventLoop | None = getattr(known, "main_event_loop", None)
    if loop is None or getattr(known, "main_event_loop_pid", None) != os.getpid():
        return None
    return loop if loop.is_running() else None


_sender = _Sender()
