"""Conversations in Django Channels: `scope["conversation"]`, and consumers that are a chat each.

from django_convstate.channels import AsyncConversationConsumer, ConversationMiddlewareStack
"""

try:
    import channels  # noqa: F401 - only to say what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"django_convstate.channels needs Channels: pip install django-convstate[channels]. "
        f"({error})",
        name=error.name,
    ) from error

from ..news import anotify, notify
from ._sync_consumers import ConversationConsumer
from .consumers import AsyncConversationConsumer
from .middleware import ConversationMiddleware, ConversationMiddlewareStack
from .scope import ScopeConversation

__all__ = [
    "AsyncConversationConsumer",
    "ConversationConsumer",
    "ConversationMiddleware",
    "ConversationMiddlewareStack",
    "ScopeConversation",
    "anotify",
    "notify",
]
