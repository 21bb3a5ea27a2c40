"""What a page or a client is shown of a conversation."""

from datetime import UTC, datetime
from typing import Any, Final

from django_convstate import Conversation

from .notes import notes_of

SHOWN: Final = 50  # messages; as many as come with the conversation, so they cost nothing more


def transcript_of(conversation: Conversation) -> dict[str, Any]:
    """Return the newest messages, oldest first, and what `status_of` does."""
    return {"messages": conversation.messages.window(SHOWN), **status_of(conversation)}


def status_of(conversation: Conversation) -> dict[str, Any]:
    """Return everything but the messages, as JSON. `ttl` and `expires_in` are in seconds; what
    expires is None until there is something that can."""
    expires_at = conversation.expires_at
    left = (expires_at - datetime.now(UTC)).total_seconds() if expires_at else None
    return {
        "state": dict(conversation),
        "notes": notes_of(conversation),
        "message_count": len(conversation.messages),
        "expires_at": expires_at.isoformat() if expires_at else None,
        # For clients whose clock is wrong.
        "expires_in": round(max(0.0, left), 1) if left is not None else None,
        "ttl": conversation.ttl,
        # Whether Redis is away, and this is what this process knows.
        "degraded": conversation.degraded,
    }
