"""A request as `ConversationMiddleware` hands it on, for type checkers."""

from collections.abc import Awaitable, Callable

from django.http import HttpRequest

from django_convstate import Conversation


class ChatRequest(HttpRequest):
    conversation: Conversation
    aconversation: Callable[[], Awaitable[Conversation]]
