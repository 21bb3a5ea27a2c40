"""The concierge for people. With JavaScript the page talks to the API; without, to these views."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from django_convstate.typing import ConversationRequest

from .chat import reply_to
from .notes import raw
from .refusals import MAX_TEXT, Refused, refusing, text_of
from .sidebar import conversations_of, reopen
from .transcript import transcript_of
from .undo import begin_anew, forget_undo, offer_undo, undo, undo_for
from .visitors import welcome

SUGGESTIONS: Final = (
    "A 4 day trip to Jaipur, relaxed, we love food and forts, under $500",
    "Nike running shoes for women under $80",
    "A boutique hotel in Paris",
    "Italian restaurants in San Jose",
    "Flights to Tokyo",
    "What is near the Louvre?",
)
# Everything comes from here, and nothing is inline. 'self' covers the websocket, too.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Shown while Redis is away.
DEGRADED: Final = (
    "My store is not available right now. You can go on: I keep what you say in memory, and save "
    "it when the store is back."
)

Page = Callable[[ConversationRequest], HttpResponse]


def _shows_refusals(view: Page) -> Page:
    @wraps(view)
    def wrapper(request: ConversationRequest) -> HttpResponse:
        try:
            with refusing():
                return view(request)
        except Refused as refused:
            # Without the transcript: it may be the store that refuses.
            draft = request.POST.get("text", "")
            return _page(request, {"refused": refused, "draft": draft}, refused.status)

    return wrapper


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@_shows_refusals
def chat(request: ConversationRequest) -> HttpResponse:
    """Show the conversation; POST says something first."""
    if request.method != "POST":
        shown = transcript_of(request.conversation)
        shown["conversations"] = conversations_of(request)
        return welcome(request, _page(request, shown))
    text = text_of(request.POST.get("text"))
    with request.conversation.turn():
        reply_to(request.conversation, text)
    return redirect("chat")


@require_POST
@_shows_refusals
def new(request: ConversationRequest) -> HttpResponse:
    response = redirect("chat")
    offer_undo(response, begin_anew(request))
    return response


@require_POST
@_shows_refusals
def former(request: ConversationRequest) -> HttpResponse:
    """Go back to the conversation before "New"."""
    undo(request)
    response = redirect("chat")
    forget_undo(response)
    return response


@require_POST
@_shows_refusals
def open_one(request: ConversationRequest) -> HttpResponse:
    """Go on with one of the visitor's conversations."""
    reopen(request, request.POST.get("id"))
    return redirect("chat")


def _page(request: ConversationRequest, shown: dict[str, Any], status: int = 200) -> HttpResponse:
    context = {**shown, "suggestions": SUGGESTIONS, "max_text": MAX_TEXT}
    context["degraded_text"] = DEGRADED
    context["raw_state"] = raw(shown.get("state", {}))
    context["undo_for"] = 0 if shown.get("message_count") else undo_for(request)
    response = render(request, "concierge/chat.html", context, status=status)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response
