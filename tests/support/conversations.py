"""What tests do with a Conversation."""

from typing import Any
from unittest import mock

from django_convstate import Conversation, conversations
from django_convstate.backends.records import Change


def changes_of(conversation: Conversation) -> list[Change]:
    """Save, and return what was sent to the backend."""
    sent: list[Change] = []

    backend = conversations.backend
    commit = backend.commit

    def record(id: str, change: Change) -> Any:
        sent.append(change)
        return commit(id, change)

    with mock.patch.object(backend, "commit", record):
        conversation.save()
    return sent


def contents(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages.all()]
