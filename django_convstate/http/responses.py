"""What answers a request when a view lets one of our errors through that is nobody's mistake."""

import logging

from django.http import HttpResponse
from django.utils.translation import gettext as _

from ..exceptions import BackendUnavailable, ConversationBusy

logger = logging.getLogger("django_convstate")


def answer_to(error: Exception) -> HttpResponse | None:
    """Return 409 for a conversation that is busy, 503 for a store that is away; None for others."""
    if isinstance(error, ConversationBusy):
        return _text(str(error), 409)
    if isinstance(error, BackendUnavailable):
        logger.error("A request was refused, because its conversation cannot be reached: %s", error)
        sorry = _("Your conversation cannot be reached right now. Please try again in a moment.")
        response = _text(sorry, 503)
        response.headers["Retry-After"] = "5"
        return response
    return None


def _text(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
