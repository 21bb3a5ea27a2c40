"""What both kinds of consumer share: how many messages their client has, the group through which
consumers notify each other, and what an error means to the client.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured

from ..conversation.cancellation import CANCELLED_TIMEOUT, log_unsaved, uncancelled
from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.message import Message
from ..exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationConflict,
    ConversationCorrupt,
    ConversationError,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationTooLarge,
    InvalidConversationId,
    InvalidConversationValue,
    MessageNotFound,
)
from ..http.responses import explanation
from ..layer import LAYER_RETRY_PAUSE, breaker
from ..news import group_name, news_event, read_again, session_group
from .scope import TOKEN_MESSAGE, ScopeConversation

logger = logging.getLogger("django_convstate")

TOKEN_REFUSED: Final = 4401
GONE: Final = 4404
BUSY: Final = 4409
UNAVAILABLE: Final = 4503

PAGE_SIZE: Final = 100  # messages sent at a time to a client that has missed many
# In seconds. A channel layer drops a member of a group after a day. It may be unavailable, which
# does not end the chat.
REJOIN_INTERVAL: Final = 8 * 3600.0

_CLOSE_CODES: Final = (
    (InvalidConversationId, TOKEN_REFUSED),
    ((ConversationNotFound, ConversationInterrupted, ConversationCorrupt), GONE),
    ((ConversationConflict, ConversationBusy), BUSY),
    (BackendUnavailable, UNAVAILABLE),
    ((ConversationTooLarge, InvalidConversationValue, MessageNotFound), None),
)


def log_error(error: ConversationError) -> int | None:
    """Log `error`, and return the code with which to close the socket; None: leave it open.

    Raises:
        error: it does not concern the client.
    """
    for kinds, code in _CLOSE_CODES:
        if isinstance(error, kinds):
            level = logging.ERROR if code == UNAVAILABLE else logging.INFO
            logger.log(
                level,
                "An operation of a websocket failed; its client gets %s: %s",
                code or type(error).__name__,
                explanation(error),
            )
            return code
    raise error


@contextmanager
def saving_interrupted(
    conversation: Conversation, save: Callable[[Conversation], None]
) -> Iterator[None]:
    """Save what a handler had said when the server cancelled it, as servers do some seconds after
    its client has disconnected. An error is only logged, because the cancellation propagates."""
    try:
        yield
    except asyncio.CancelledError:
        try:
            working_copy_of(conversation).log.interrupt_streams()
            save(conversation)
        except Exception as error:
            log_unsaved(error)
        raise


@asynccontextmanager
async def asaving_interrupted(
    conversation: Conversation, save: Callable[[Conversation], Coroutine[Any, Any, None]]
) -> AsyncIterator[None]:
    """See `saving_interrupted`."""
    try:
        yield
    except asyncio.CancelledError:
        try:
            working_copy_of(conversation).log.interrupt_streams()
            await uncancelled(save(conversation), CANCELLED_TIMEOUT)
        except Exception as error:
            log_unsaved(error)
        raise


def id_changed() -> ConversationNotFound:
    """Return the error for a handler after which the socket's conversation has another id."""
    return ConversationNotFound(
        "The handler has deleted the conversation of this socket or given it a new id, and no "
        "cookie can be sent now."
    )


def not_json(problem: str) -> InvalidConversationValue:
    """Return the error for a frame that is not a message in JSON."""
    return InvalidConversationValue(f"A frame {problem}; each has to be text, and JSON.")


def news_message(messages: list[Message], count: int) -> dict[str, Any]:
    """Return the message to the client with the `messages` of others; then it has `count`."""
    return {"type": "conversation.messages", "messages": messages, "count": count}


class Listening:
    """The part of a consumer that has no twin."""

    scope: dict[str, Any]
    channel_layer: Any
    channel_name: str

    # Whether one message of the conversation is handled at a time, from any socket or request (see
    # `Conversation.turn`). A socket that has waited for too long is closed with 4409.
    one_turn = False
    # How many messages the client has; None: it has not said, and gets those from now on.
    seen: int | None = None
    # How many it had before an outage; None: there is none.
    _seen_before_outage: int | None = None
    _has_handled_message = False
    _id: str | None = None  # of the conversation that was loaded last
    _joined_id: str | None = None  # of the conversation whose group was joined
    _session_group: str | None = None  # which a logout closes; None: there is no login
    _rejoin_at = 0.0
    _layer_failed = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Run one connection. What an error shows of its frames, the middleware around it clears: a
        wrapper here, too, would be half a KiB for each idle socket."""
        handle = scope.get("conversation")
        if not isinstance(handle, ScopeConversation):
            raise ImproperlyConfigured(
                f"{type(self).__name__} finds no conversation in its scope. Wrap it, or the "
                "URLRouter that leads to it, in ConversationMiddlewareStack in asgi.py."
            )
        self._handle = handle
        self._ttl = handle.ttl
        self.seen = _requested_seen(scope)
        self._session_group = _session_group_of(scope)

        self._receive_from_client = receive
        try:
            await super().__call__(  # type: ignore[misc]
                scope, self._receive_or_idle, _SendIfConnected(handle, send)
            )
        finally:
            await self._leave()

    async def _receive_or_idle(self) -> Any:
        try:
            async with asyncio.timeout(min(self._ttl / 3, REJOIN_INTERVAL)):
                return await self._receive_from_client()
        except TimeoutError:
            return {"type": "conversation.idle"}

    # The conversation, and how much of it the client has.

    def _note_loaded(self, conversation: Conversation) -> None:
        if self._id not in (None, conversation.id) and not self._handle.is_used:
            self.seen = self._seen_before_outage = None  # which was of another one
        self._id = conversation.id
        self._ttl = conversation.ttl
        log = working_copy_of(conversation).log
        log.remote_ranges = []
        count = log.end
        self._note_outage(conversation)
        if self.seen is None or (conversation.degraded and count < self.seen):
            # Messages that are out of reach in an outage were not removed.
            self.seen = count

    def _note_outage(self, conversation: Conversation) -> None:
        """After an outage, have the client get again what was added since it began: only what is
        known in this process could be sent then, and others may have saved in between."""
        if conversation.degraded and self._seen_before_outage is None:
            self._seen_before_outage = self.seen
        elif not conversation.degraded and self._seen_before_outage is not None:
            self.seen, self._seen_before_outage = self._seen_before_outage, None

    def _missing(self, conversation: Conversation, kept: int | None) -> list[range]:
        """Return the positions of the messages that the client has yet to get, and set `seen` back
        to the first of them; an empty range, if messages were only removed. Of those that it has,
        those after the first `kept` are gone."""
        count, seen = working_copy_of(conversation).log.end, self.seen or 0
        self.seen = start = min(seen, count, count if kept is None else kept)
        return [] if start == count == seen else [range(start, count)]

    def _note_saved(self, conversation: Conversation) -> tuple[bool, list[range]]:
        """Note a save. Return whether it changed the number of messages, and the positions of those
        that others have added before it."""
        if self._handle.is_used:
            self._handle.note_saved(conversation)
        if conversation.degraded:
            self._note_outage(conversation)
        log = working_copy_of(conversation).log
        remote = [range(*bounds) for bounds in log.remote_ranges or ()]
        log.remote_ranges = []
        seen = log.end - sum(map(len, remote))
        has_changed, self.seen = seen != self.seen, seen
        return has_changed, remote

    def _accept_token(self, content: dict[str, Any]) -> None:
        token = content.get("token")
        if self._has_handled_message or not isinstance(token, str):
            raise InvalidConversationId("A token has to be a string, and the first message.")
        self._handle.present(token)
        self._id = None
        seen = content.get("seen")
        self.seen = seen if type(seen) is int and seen >= 0 else None

    # The group.

    def _is_relevant(self, news: dict[str, Any]) -> bool:
        """Tell whether the client has yet to get what another consumer has committed."""
        is_ours = news["sender"] == self.channel_name
        is_known = news["kept"] is None and news["count"] <= (self.seen or 0)
        return self._handle.is_open and not (is_ours or is_known)

    def _must_join(self, id: str) -> bool:
        if self.channel_layer is None:
            return False
        return id != self._joined_id or time.monotonic() >= self._rejoin_at

    async def _ajoin(self, id: str) -> bool:
        """Get the news of a conversation from now on, and tell whether that is another one than
        before. Done anew before the layer forgets it."""
        if not self._must_join(id):
            return False
        is_another = id != self._joined_id
        if is_another and self._joined_id is not None:
            await self._discard(group_name(self._joined_id))
        self._joined_id = id
        join = partial(self._add, group_name(id), self._session_group)

        async def join_later() -> None:
            await join()
            await self.channel_layer.send(self.channel_name, read_again())

        has_joined = await breaker.attempt(join, self.channel_name, join_later)
        pause = REJOIN_INTERVAL / 2 if has_joined else LAYER_RETRY_PAUSE
        self._rejoin_at = time.monotonic() + pause
        return is_another and has_joined

    def _join(self, id: str) -> bool:
        """See `_ajoin`."""
        return self._must_join(id) and async_to_sync(self._ajoin)(id)

    async def _leave(self) -> None:
        if self._joined_id is not None:
            breaker.forget(self.channel_name)
            await self._discard(group_name(self._joined_id))
            self._joined_id = None
            if self._session_group is not None:
                await self._discard(self._session_group)

    async def _add(self, *groups: str | None) -> None:
        for group in filter(None, groups):
            await self.channel_layer.group_add(group, self.channel_name)

    async def _discard(self, group: str) -> None:
        leave = partial(self.channel_layer.group_discard, group, self.channel_name)
        await breaker.attempt(leave, (group, self.channel_name), leave)

    async def _anotify(self, count: int, kept: int | None) -> None:
        """Notify the others of a commit. See `news_event`."""
        if self.channel_layer is not None and self._id is not None:
            group = group_name(self._id)
            news = news_event(count, kept, self.channel_name)
            send = partial(self.channel_layer.group_send, group)
            again = read_again(news)
            await breaker.attempt(partial(send, news), (group, again["kept"]), partial(send, again))

    def _notify(self, count: int, kept: int | None) -> None:
        """See `_anotify`."""
        async_to_sync(self._anotify)(count, kept)

    @property
    def channel_receive(self) -> Callable[[], Awaitable[dict[str, Any]]]:
        """What Channels sets, and awaits, to receive from the layer. An error of it would close the
        socket, so it is guarded here."""
        return self._receive_from_layer

    @channel_receive.setter
    def channel_receive(self, receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._unguarded_receive = receive

    async def _receive_from_layer(self) -> dict[str, Any]:
        began = time.monotonic()
        try:
            event = await self._unguarded_receive()
        except Exception as error:
            if not self._layer_failed:
                logger.warning(
                    "The channel layer is unavailable: a socket gets news of others late. If the "
                    "layer is well and nothing is said, its socket_timeout is too short. %r",
                    error,
                )
            self._layer_failed = True
        else:
            self._layer_failed = False
            return event
        self._rejoin_at = 0.0
        # One that has failed after it has waited for long need not be waited for once more.
        await asyncio.sleep(max(0.0, began + LAYER_RETRY_PAUSE - time.monotonic()))
        return read_again()  # events may be lost, so load and compare


class _SendIfConnected:
    """The `send` of a consumer. Some servers raise OSError where the client has disconnected,
    others do nothing. Its last message is handled and committed all the same."""

    # No method of the consumer, which keeps it: that were a cycle.
    __slots__ = ("_handle", "_send")

    def __init__(
        self, handle: ScopeConversation, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        self._handle = handle
        self._send = send

    async def __call__(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:
            self._handle.is_open = False


def is_token(content: Any) -> bool:
    """Tell whether a message presents a token."""
    return isinstance(content, dict) and content.get("type") == TOKEN_MESSAGE


def pages(missing: list[range]) -> Iterator[range]:
    """Cut ranges of positions into what is sent at a time. An empty range is one page."""
    for positions in missing:
        for first in range(0, len(positions) or 1, PAGE_SIZE):
            yield positions[first : first + PAGE_SIZE]


def _session_group_of(scope: dict[str, Any]) -> str | None:
    key = getattr(scope.get("session"), "session_key", None)
    is_logged_in = getattr(scope.get("user"), "is_authenticated", False)
    return session_group(key) if is_logged_in and key is not None else None


def _requested_seen(scope: dict[str, Any]) -> int | None:
    """Return the number in `?seen=12`."""
    query = parse_qs(scope.get("query_string", b"").decode("latin1"))
    text = query.get("seen", [""])[-1]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
