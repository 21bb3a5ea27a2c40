"""Conversations in Django Channels: `scope["conversation"]`, and consumers that are a chat each.

from django_convstate.channels import AsyncConversationConsumer, ConversationMiddlewareStack
"""

from .consumers import AsyncConversationConsumer, ConversationConsumer
from .middleware import ConversationMiddleware, ConversationMiddlewareStack
from .scope import ScopeConversation

__all__ = [
    "AsyncConversationConsumer",
    "ConversationConsumer",
    "ConversationMiddleware",
    "ConversationMiddlewareStack",
    "ScopeConversation",
]
