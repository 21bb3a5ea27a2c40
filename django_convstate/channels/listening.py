"""What both kinds of consumer share: how far their client has heard, the group in which the others
of the conversation are told of news, what an error is to the client.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

from django.core.exceptions import ImproperlyConfigured

from .. import ids
from ..conversation.conversation import Conversation, working_copy_of
from ..conversation.message_log import Message
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
)
from .scope import TOKEN_MESSAGE, ScopeConversation

logger = logging.getLogger("django_convstate")

TOKEN_REFUSED: Final = 4401
GONE: Final = 4404
BUSY: Final = 4409
UNAVAILABLE: Final = 4503

PAGE: Final = 100  # messages told at a time to a client that was away for long
# In seconds. Channel layers forget a member of a group after a day; and they may be away, which is
# no reason to stop the chat.
REJOIN: Final = 8 * 3600.0
LAYER_PATIENCE: Final = 1.0
LAYER_PAUSE: Final = 5.0

_CLOSE_CODES: Final = (
    (InvalidConversationId, TOKEN_REFUSED),
    ((ConversationNotFound, ConversationInterrupted, ConversationCorrupt), GONE),
    ((ConversationConflict, ConversationBusy), BUSY),
    (BackendUnavailable, UNAVAILABLE),
)


def close_code(error: ConversationError) -> int | None:
    """Return the code with which to close a socket after `error`; None: leave it open.

    Raises:
        error: it is not the client's business.
    """
    for kinds, code in _CLOSE_CODES:
        if isinstance(error, kinds):
            return code
    if isinstance(error, (ConversationTooLarge, InvalidConversationValue)):
        return None
    raise error


def error_message(error: ConversationError) -> dict[str, Any]:
    """Return what to tell the client: no more than the kind of error, for its text may name keys
    of the state."""
    return {"type": "conversation.error", "error": type(error).__name__}


def news_message(messages: list[Message], count: int) -> dict[str, Any]:
    """Return what to tell the client of what others have said, after which there are `count`."""
    return {"type": "conversation.messages", "messages": messages, "count": count}


class Listening:
    """The part of a consumer that has no twin."""

    scope: dict[str, Any]
    channel_layer: Any
    channel_name: str

    # Whether one message of the conversation is handled at a time, whichever socket or request it
    # comes from (see `Conversation.turn`). Who has waited for too long is closed with 4409.
    one_turn = False
    # How many messages the client has heard; None: it has not said, and starts from here.
    seen: int | None = None
    # How many it had heard before an outage; None: there is none.
    _sure: int | None = None
    _has_spoken = False
    _ttl: float | None = None
    _group: str | None = None
    _join_again_at = 0.0
    _is_layer_away = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        door = scope.get("conversation")
        if not isinstance(door, ScopeConversation):
            raise ImproperlyConfigured(
                f"{type(self).__name__} finds no conversation in its scope. Wrap it, or the "
                "URLRouter that leads to it, in ConversationMiddlewareStack in asgi.py."
            )
        self._door = door
        self.seen = _asked_for(scope)

        async def receive_or_idle() -> Any:
            try:
                async with asyncio.timeout(self._patience()):
                    return await receive()
            except TimeoutError:
                return {"type": "conversation.idle"}

        async def send_if_heard(message: dict[str, Any]) -> None:
            # Some servers raise this where the client has hung up, others are silent. What it said
            # last is handled and committed all the same; it hears the answer when it comes back.
            try:
                await send(message)
            except OSError:
                door.is_open = False

        try:
            await super().__call__(scope, receive_or_idle, send_if_heard)  # type: ignore[misc]
        finally:
            await self._leave()

    # The conversation and how much of it was heard.

    def _patience(self) -> float:
        """Return after how many seconds without a word the conversation is to be kept alive."""
        return min((self._ttl or self._door.ttl) / 3, REJOIN)

    def _note_loaded(self, conversation: Conversation) -> None:
        self._ttl = conversation.ttl
        working_copy_of(conversation).log.remote_ranges = []
        count = len(conversation.messages)
        self._note_outage(conversation)
        if self.seen is None or (conversation.degraded and count < self.seen):
            # Of what is out of reach in an outage nothing was taken back.
            self.seen = count

    def _note_outage(self, conversation: Conversation) -> None:
        """After an outage, have the client hear again what came home, for others may have spoken in
        between: until then it can only be told what is known here."""
        if conversation.degraded and self._sure is None:
            self._sure = self.seen
        elif not conversation.degraded and self._sure is not None:
            self.seen, self._sure = self._sure, None

    def _lacking(self, conversation: Conversation, kept: int | None) -> range | None:
        """Return the positions that the client has to be told; None: it knows it all. What was
        heard of those after `kept` is not true any more."""
        count, seen = len(conversation.messages), self.seen or 0
        start = min(seen, count, count if kept is None else kept)
        return None if start == count == seen else range(start, count)

    def _note_said(self, conversation: Conversation) -> tuple[bool, list[range]]:
        """Take note of a save. Return whether it said something, and where others have spoken
        meanwhile."""
        self._door.note_saved(conversation)
        if conversation.degraded:
            self._note_outage(conversation)
        log = working_copy_of(conversation).log
        slipped_in = [range(*bounds) for bounds in log.remote_ranges or ()]
        log.remote_ranges = []
        heard = len(conversation.messages) - sum(map(len, slipped_in))
        has_said, self.seen = heard != self.seen, heard
        return has_said, slipped_in

    def _check_id(self, conversation: Conversation) -> None:
        if conversation.id != self._door.id:
            raise ConversationNotFound(
                "The handler has deleted the conversation of this socket or given it a new id, "
                "and no cookie can be sent now."
            )

    def _take_token(self, content: dict[str, Any]) -> None:
        token = content.get("token")
        if self._has_spoken or not isinstance(token, str):
            raise InvalidConversationId("A token comes as a string and before anything else.")
        self._door.present(token)
        self.seen = _count(content.get("seen"))

    def _explain(self, error: ConversationError) -> int | None:
        """Log `error`, and return the code with which to close the socket; None: none."""
        code = close_code(error)
        level = logging.ERROR if code == UNAVAILABLE else logging.INFO
        logger.log(level, "A websocket is told %s: %s", code or type(error).__name__, error)
        return code

    # The others.

    def _concerns(self, news: dict[str, Any]) -> bool:
        """Tell whether the client has yet to hear what another consumer has committed."""
        is_ours = news["sender"] == self.channel_name
        is_known = news["kept"] is None and news["count"] <= (self.seen or 0)
        return self._door.is_open and not (is_ours or is_known)

    def _has_to_join(self) -> bool:
        if self.channel_layer is None:
            return False
        is_another = self._group != ids.group_name(self._door.id)
        return is_another or time.monotonic() >= self._join_again_at

    async def _join(self) -> None:
        """Be told of news from now on."""
        group = ids.group_name(self._door.id)
        if group != self._group:
            await self._leave()
        self._group = group
        has_joined = await self._reaches(self.channel_layer.group_add(group, self.channel_name))
        self._join_again_at = time.monotonic() + (REJOIN / 2 if has_joined else LAYER_PAUSE)

    async def _leave(self) -> None:
        if self._group is not None:
            await self._reaches(self.channel_layer.group_discard(self._group, self.channel_name))
            self._group = None

    async def _tell(self, count: int, kept: int | None) -> None:
        """Tell the others that there are `count` messages now, of which the first `kept` are those
        that were there (None: all). They read them themselves, because what a channel layer
        carries is limited."""
        if self.channel_layer is not None:
            group = ids.group_name(self._door.id)
            news = _news(count, kept, self.channel_name)
            await self._reaches(self.channel_layer.group_send(group, news))

    async def _reaches(self, doing: Awaitable[None]) -> bool:
        """Do something with the channel layer. What it loses in an outage is read from the store
        with what is said next."""
        try:
            async with asyncio.timeout(LAYER_PATIENCE):
                await doing
        except Exception as error:
            self._note_layer_away(error)
            return False
        self._is_layer_away = False
        return True

    @property
    def channel_receive(self) -> Callable[[], Awaitable[dict[str, Any]]]:
        """What Channels sets to hear from the layer, and lets an error of which end the socket."""
        return self._receive_from_layer

    @channel_receive.setter
    def channel_receive(self, receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._unguarded_receive = receive

    async def _receive_from_layer(self) -> dict[str, Any]:
        try:
            return await self._unguarded_receive()
        except Exception as error:
            self._note_layer_away(error)
        self._join_again_at = 0.0
        await asyncio.sleep(LAYER_PAUSE)
        return _news(2**31, None, sender="")  # who knows what was said meanwhile

    def _note_layer_away(self, error: Exception) -> None:
        if not self._is_layer_away:
            logger.warning("The channel layer is away: a socket hears no other. %r", error)
        self._is_layer_away = True


def _news(count: int, kept: int | None, sender: str) -> dict[str, Any]:
    return {"type": "conversation.news", "count": count, "kept": kept, "sender": sender}


def is_token(content: Any) -> bool:
    """Tell whether a message presents a token."""
    return isinstance(content, dict) and content.get("type") == TOKEN_MESSAGE


def pages(positions: range) -> Iterator[range]:
    """Cut `positions` into what is told at a time."""
    for first in range(0, len(positions), PAGE):
        yield positions[first : first + PAGE]


def _asked_for(scope: dict[str, Any]) -> int | None:
    """Return the number in `?seen=12`."""
    query = parse_qs(scope.get("query_string", b"").decode("latin1"))
    text = query.get("seen", [""])[-1]
    return _count(int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
