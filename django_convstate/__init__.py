"""Conversation state for Django: `request.conversation` remembers.

from django_convstate import conversations
"""

__version__ = "0.1.0"

from .backends import get_backend
from .backends.reports import ConversationSummary, Health, PurgeReport
from .conversation.conversation import Conversation
from .conversation.message import Message
from .conversation.messages import Messages
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
    MessageNotFound,
)
from .http.request import aclaim_conversation, claim_conversation
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
    "ConversationSummary",
    "ConversationTooLarge",
    "Health",
    "InvalidBackend",
    "InvalidConversationId",
    "InvalidConversationValue",
    "Message",
    "MessageNotFound",
    "Messages",
    "PurgeReport",
    "aclaim_conversation",
    "claim_conversation",
    "conversations",
    "get_backend",
]
