"""Conversation state for Django: `request.conversation` remembers.

from django_convstate import conversations
"""

__version__ = "0.1.0"

from .backends import get_backend
from .conversation.conversation import Conversation
from .exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationConflict,
    ConversationCorrupt,
    ConversationError,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationTooLarge,
    InvalidBackend,
    InvalidConversationId,
    InvalidConversationValue,
)
from .store import ConversationStore, conversations

__all__ = [
    "BackendUnavailable",
    "Conversation",
    "ConversationBusy",
    "ConversationConflict",
    "ConversationCorrupt",
    "ConversationError",
    "ConversationInterrupted",
    "ConversationNotFound",
    "ConversationStore",
    "ConversationTooLarge",
    "InvalidBackend",
    "InvalidConversationId",
    "InvalidConversationValue",
    "conversations",
    "get_backend",
]
