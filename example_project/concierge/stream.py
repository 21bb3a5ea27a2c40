"""The concierge for clients without websockets: an answer as server-sent events.

    curl -N -c jar -b jar -H 'Content-Type: application/json' \\
         -d '{"text": "a hotel in Paris"}' http://127.0.0.1:8000/api/stream

Needs no CSRF token, for the reasons given in `api`.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from django_convstate import Conversation
from django_convstate.channels import anotify
from django_convstate.typing import ConversationRequest

from .api import method_refusal, refusal
from .live import answering
from .refusals import Refused, json_of, refusing, said
from .stopping import stop


@csrf_exempt
@never_cache
async def stream(request: ConversationRequest) -> HttpResponseBase:
    """POST {"text": ...}: say something, and watch the answer being made. Ends without an event if
    this has been answered before. DELETE: stop the answer that is being made, for all who watch."""
    if request.method not in ("POST", "DELETE"):
        return method_refusal("POST, DELETE")
    try:
        with refusing():
            if request.method == "DELETE":
                await stop(await request.aconversation())
                return HttpResponse(status=204)
            return await _answer(request)
    except Refused as refused:
        return refusal(refused)


async def _answer(request: ConversationRequest) -> HttpResponseBase:
    if not isinstance(request, ASGIRequest):
        raise Refused(501, "not_streaming", "This server does not stream. POST to /api/messages.")
    text, id = said(json_of(request))
    events = _events(await request.aconversation(), text, id)
    # What the store refuses is still a refusal here, and no stream that breaks off.
    first = await anext(events, "")
    return StreamingHttpResponse(
        _from(first, events),
        content_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # or nginx would collect what is to be seen at once
    )


async def _events(
    conversation: Conversation, text: str, id: str | None
) -> AsyncGenerator[str, None]:
    async with conversation.aturn(), aclosing(answering(conversation, text, id, _save)) as events:
        async for event in events:
            yield f"data: {json.dumps(event)}\n\n"


async def _save(conversation: Conversation) -> None:
    await conversation.asave()
    await anotify(conversation)  # the middleware does so only when all is said


async def _from(first: str, events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event
