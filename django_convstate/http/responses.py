"""The responses to errors that are no fault of a view: what a client sent cannot be kept, a message
is not there, a conversation is busy, its store is unavailable.

Each is plain text, with DEBUG too: a sentence in the client's language and, where something was
refused, which value it was, its size and the limit. What the client sent is not repeated.
"""

import logging
import re
import traceback
from pathlib import Path
from typing import Final

from django.http import HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationTooLarge,
    InvalidConversationId,
    InvalidConversationValue,
    MessageNotFound,
)

logger = logging.getLogger("django_convstate")

_PACKAGE: Final = str(Path(__file__).parents[1])
_RESPONSES: Final = (
    (ConversationTooLarge, 413, gettext_lazy("That is too large for your conversation.")),
    (InvalidConversationId, 400, gettext_lazy("That cannot be the id of a conversation.")),
    (InvalidConversationValue, 400, gettext_lazy("That cannot be kept in your conversation.")),
    (ConversationNotFound, 404, gettext_lazy("There is no such conversation.")),
    (MessageNotFound, 404, gettext_lazy("The conversation has no such message.")),
    (
        ConversationConflict,
        409,
        gettext_lazy("Your conversation has changed meanwhile. Please load it again."),
    ),
    (
        ConversationBusy,
        409,
        gettext_lazy(
            "Something else is under way in your conversation. Please try again in a moment."
        ),
    ),
    (
        (ConversationInterrupted, ConversationCorrupt),
        400,
        gettext_lazy("Your conversation has ended. Please begin a new one."),
    ),
)

# Of errors whose text says what was refused. That of others may be about ids.
_EXPLAINED: Final = (ConversationTooLarge, InvalidConversationId, InvalidConversationValue)
_MAX_LENGTH: Final = 400
# The keys and positions by which an error names a value, from the first bracket to the last; and
# how many of them a programmer may have chosen. The others may be text of the client.
_KEYS: Final = re.compile(r"\[.*\]", re.DOTALL)
_PLAIN_KEYS: Final = re.compile(r"""(\[[0-9]+\]|\[(["'])[A-Za-z_][A-Za-z0-9_-]{0,31}\2\])*""")


def response_for(error: Exception, *, at_save: bool = False) -> HttpResponse | None:
    """Return 413 for what is too large, 400 for what cannot be kept and for a conversation that is
    gone or damaged, 404 for a conversation or message that is not there, 409 for a conversation
    that is busy or has changed, 503 for an unavailable store; None for other errors."""
    for kinds, status, sentence in _RESPONSES:
        if isinstance(error, kinds):
            lines = [str(sentence)]
            if isinstance(error, _EXPLAINED):
                lines.append(explanation(error))
                origin = "at the save after the view" if at_save else _origin(error)
                text = "A request was answered with %s: %s It was raised %s."
                logger.warning(text, status, lines[-1], origin)
            return _text("\n".join(lines), status)
    if isinstance(error, BackendUnavailable):
        logger.error("A request was answered with 503: its conversation is unavailable. %s", error)
        message = _("Your conversation cannot be reached right now. Please try again in a moment.")
        response = _text(message, 503)
        response.headers["Retry-After"] = "5"
        return response
    return None


def explanation(error: BaseException) -> str:
    """Return what an error says; if it refuses a value, without the keys that may be text of the
    client."""
    if not isinstance(error, _EXPLAINED):
        return str(error)
    text = _KEYS.sub(lambda keys: _plain(keys[0]), str(error))
    return text.encode(errors="replace").decode()[:_MAX_LENGTH]


def _plain(keys: str) -> str:
    plain: str = _PLAIN_KEYS.match(keys)[0]  # type: ignore[index]  # which may be empty
    return plain if plain == keys else f"{plain}[…]"


def _text(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")


def _origin(error: Exception) -> str:
    """Return which line of the project has caused `error`, for the log: there is no traceback,
    because a client can cause such errors at will."""
    origin = "in a view"
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            origin = f"in {frame.f_code.co_filename}, line {line}"
    return origin
