"""What a page or a client is shown of a conversation."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django_convstate import Conversation

from .slots import KEYS

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
        "notes": [{"name": name, "value": value} for name, value in _notes(conversation)],
        "message_count": len(conversation.messages),
        "expires_at": expires_at.isoformat() if expires_at else None,
        # For clients whose clock is wrong.
        "expires_in": round(max(0.0, left), 1) if left is not None else None,
        "ttl": conversation.ttl,
        # Whether Redis is away, and this is what this process knows.
        "degraded": conversation.degraded,
    }


def _notes(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the state as lines to read: a path such as "preferences.city", and text."""
    for key in sorted(state, key=lambda key: (*KEYS, key).index(key)):
        yield from _lines(key, state[key])


def _lines(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(f"{path}.{key}", item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", _text(item)
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " · ".join(_text(item) for item in value.values())
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
