"""A model's answer as server-sent events: `uvicorn --app-dir examples/llm_stream app:application`.

OPENAI_API_KEY, OPENAI_BASE_URL and MODEL say which model, of any OpenAI-compatible endpoint.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import openai
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.template import engines
from django.urls import path
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from django_convstate import Conversation
from django_convstate.typing import ConversationRequest

MODEL = os.environ.get("MODEL", "gpt-5-mini")
SYSTEM = "You are a friendly assistant. Answer in a few sentences."
BUDGET = 4000  # tokens of the history that the model is sent
PAGE = Path(__file__).with_name("page.html")

settings.configure(
    DEBUG=True,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example alone"),
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django_convstate"],
    MIDDLEWARE=[
        "django.middleware.csrf.CsrfViewMiddleware",
        "django_convstate.middleware.ConversationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
application = get_asgi_application()
model = openai.AsyncOpenAI()


@require_GET
@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    messages = request.conversation.messages.window(50)  # type: ignore[attr-defined]
    text = engines["django"].from_string(PAGE.read_text()).render({"messages": messages}, request)
    return HttpResponse(text)


@require_POST
async def chat(request: ConversationRequest) -> HttpResponseBase:
    text = request.POST.get("text", "").strip()
    if not text:
        return HttpResponse("There is no text.", status=400, content_type="text/plain")
    events = answering(await request.aconversation(), text)
    return StreamingHttpResponse(events, content_type="text/event-stream")


async def answering(conversation: Conversation, text: str) -> AsyncIterator[str]:
    """Yield the events of an answer: a `word` for each piece, then `done` or `failed`."""
    async with conversation.aturn():  # a second tab waits here, and then sees what was said
        conversation.messages.append("user", text)
        await conversation.asave()  # kept, whatever becomes of the answer
        usage: dict[str, Any] = {}
        words = conversation.messages.stream(
            "assistant", words_of(conversation, usage), finish=lambda: usage
        )
        try:
            async with aclosing(words):
                async for word in words:
                    yield event("word", word)
        except openai.OpenAIError as error:
            last = event("failed", f"The model does not answer: {error}")
        else:
            last = event("done", usage)
        finally:  # before the client hears that it is done; and if anything else has failed
            await conversation.asave()
    yield last


async def words_of(conversation: Conversation, usage: dict[str, Any]) -> AsyncIterator[str]:
    """Ask the model, and yield its answer in pieces. `usage` has the tokens at the end."""
    reply = await model.chat.completions.create(
        model=MODEL,
        messages=await conversation.messages.afor_llm(system=SYSTEM, budget=BUDGET),
        stream=True,
        stream_options={"include_usage": True},
    )
    async with reply:  # a client that goes away ends the request to the model, too
        async for chunk in reply:
            if chunk.usage:
                usage["tokens"] = chunk.usage.completion_tokens
            if chunk.choices and (word := chunk.choices[0].delta.content):
                yield word


def event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


urlpatterns = [path("", page), path("chat", chat)]
