"""Types for annotations in projects that use this package."""

from collections.abc import Awaitable, Callable

from django.http import HttpRequest

from .conf import StoreOptions
from .conversation.conversation import Conversation

__all__ = ["ConversationRequest", "StoreOptions"]


class ConversationRequest(HttpRequest):
    """A request as `ConversationMiddleware` hands it on, for type checkers:

        def view(request: ConversationRequest) -> HttpResponse: ...

    No request is an instance of it.
    """

    conversation: Conversation
    aconversation: Callable[[], Awaitable[Conversation]]
