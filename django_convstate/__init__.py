"""Conversation state for Django: `request.conversation` remembers.

from django_convstate import conversations
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from .backends import get_backend
from .backends.reports import ConversationSummary, Finding, Health, PurgeReport
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
from .store import ConversationStore, conversations

if TYPE_CHECKING:
    from .http.login import aclaim_conversation, claim_conversation

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
    "Finding",
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


def __getattr__(name: str) -> Any:
    # Not imported before they are used: a command or a worker needs nothing of Django's HTTP.
    if name in {"aclaim_conversation", "claim_conversation"}:
        from .http import login

        return getattr(login, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
