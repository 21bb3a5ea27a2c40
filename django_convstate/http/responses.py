"""The responses to errors that are not the fault of a view: a busy conversation, a store that is
unavailable, a message that is not there."""

import logging

from django.http import HttpResponse
from django.utils.translation import gettext as _

from ..exceptions import BackendUnavailable, ConversationBusy, MessageNotFound

logger = logging.getLogger("django_convstate")


def response_for(error: Exception) -> HttpResponse | None:
    """Return 404 for a message that is not there, 409 for a busy conversation, 503 for an
    unavailable store; None for other errors."""
    if isinstance(error, MessageNotFound):
        return _text(str(error), 404)
    if isinstance(error, ConversationBusy):
        return _text(str(error), 409)
    if isinstance(error, BackendUnavailable):
        logger.error("A request was answered with 503: its conversation is unavailable. %s", error)
        message = _("Your conversation cannot be reached right now. Please try again in a moment.")
        response = _text(message, 503)
        response.headers["Retry-After"] = "5"
        return response
    return None


def _text(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
