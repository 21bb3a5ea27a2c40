"""The concierge for programs: JSON in, JSON out.

    curl -c jar -b jar -H 'Content-Type: application/json' \\
         -d '{"text": "a hotel in Paris"}' http://127.0.0.1:8000/api/messages

Without a CSRF token, and yet no other site can speak for a visitor: a browser sends the cookie of
the conversation (SameSite=Lax) with no POST or DELETE from elsewhere, and a request of this content
type, or with this method, it does not send to a foreign origin at all unless the server agrees
first, which ours never does.
"""

from typing import Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from django_convstate.typing import ConversationRequest

from .chat import is_known, reply_to
from .refusals import Refused, json_of, refusing, said
from .sidebar import conversations_of, reopen
from .transcript import status_of, transcript_of
from .undo import UNDO_FOR, begin_anew, forget_undo, offer_undo, undo


@method_decorator([csrf_exempt, never_cache], name="dispatch")
class ApiView(View):
    """Answers in JSON when it refuses, too."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            with refusing():
                return super().dispatch(request, *args, **kwargs)
        except Refused as refused:
            return refusal(refused)

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> JsonResponse:
        refused = super().http_method_not_allowed(request, *args, **kwargs)
        return method_refusal(refused.headers["Allow"])


class MessagesView(ApiView):
    """POST {"text": ...}: say something, and get the answer. With an "id" of the client's own, that
    is safe to repeat."""

    def post(self, request: ConversationRequest) -> JsonResponse:
        text, id = said(json_of(request))
        conversation = request.conversation
        started = conversation.is_new
        with conversation.turn():
            if not is_known(conversation, id):
                reply_to(conversation, text, id)
        return JsonResponse(
            {
                "reply": conversation.messages[-1],
                "started": started,  # a new conversation, perhaps because the last one expired
                **status_of(conversation),
            }
        )


class ConversationView(ApiView):
    """GET: the conversation so far. DELETE: forget it, and begin anew."""

    def get(self, request: ConversationRequest) -> JsonResponse:
        return JsonResponse(transcript_of(request.conversation))

    def delete(self, request: ConversationRequest) -> JsonResponse:
        request.conversation.delete()
        return JsonResponse(transcript_of(request.conversation))


class NewView(ApiView):
    """POST {}: begin a new conversation. DELETE: go back to the one before, for `undo_for` seconds.

    The body makes a POST from a form elsewhere impossible, which could take a visitor's cookie.
    """

    def post(self, request: ConversationRequest) -> JsonResponse:
        json_of(request)
        former = begin_anew(request)
        shown = transcript_of(request.conversation)
        response = JsonResponse({**shown, "undo_for": UNDO_FOR if former else 0})
        offer_undo(response, former)
        return response

    def delete(self, request: ConversationRequest) -> JsonResponse:
        undo(request)
        response = JsonResponse(transcript_of(request.conversation))
        forget_undo(response)
        return response


class ConversationsView(ApiView):
    """GET: the visitor's conversations. POST {"id": ...}: go on with one of them."""

    def get(self, request: ConversationRequest) -> JsonResponse:
        return JsonResponse({"conversations": conversations_of(request)})

    def post(self, request: ConversationRequest) -> JsonResponse:
        reopen(request, json_of(request).get("id"))
        return JsonResponse(transcript_of(request.conversation))


def refusal(refused: Refused) -> JsonResponse:
    return JsonResponse({"error": refused.as_json()}, status=refused.status)


def method_refusal(allowed: str) -> JsonResponse:
    response = refusal(Refused(405, "method_not_allowed", f"Here, use one of {allowed}."))
    response.headers["Allow"] = allowed
    return response
