"""For Django REST framework: a serializer of conversations.

from django_convstate.integrations.rest_framework import ConversationSerializer
"""

try:
    from rest_framework import serializers
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "django_convstate.integrations.rest_framework needs Django REST framework: "
        f"pip install django-convstate[drf]. ({error})",
        name=error.name,
    ) from error

from typing import Any

from ..conversation.conversation import Conversation


class ConversationSerializer(serializers.BaseSerializer):
    """Shows a conversation, and reads none: id, state, messages and times, and not the owner.

        return Response(ConversationSerializer(request.conversation).data)

    The messages are the newest WINDOW ones, which are in memory. Override `messages_of` for others.
    """

    def to_representation(self, instance: Conversation) -> dict[str, Any]:
        """Return what is rendered."""
        return {
            "id": instance.id,
            "state": dict(instance),
            "messages": self.messages_of(instance),
            "created_at": _shown(instance.created_at),
            "modified_at": _shown(instance.modified_at),
            "last_accessed": _shown(instance.last_accessed),
            "expires_at": _shown(instance.expires_at),
        }

    def messages_of(self, conversation: Conversation) -> list[dict[str, Any]]:
        """Return the messages to be shown, oldest first."""
        return [message.copy() for message in conversation.messages.window()]


_moments = serializers.DateTimeField()


def _shown(moment: Any) -> Any:
    """Return a moment as the project's settings of REST framework want it."""
    return None if moment is None else _moments.to_representation(moment)
