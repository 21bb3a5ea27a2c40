"""What the consumers of a conversation tell each other through the channel layer: the name of their
group, and the event that says that something was committed."""

from typing import Any

from django.utils.crypto import salted_hmac


def group_name(id: str) -> str:
    """Return the name of the group of all consumers that have conversation `id` open."""
    digest = salted_hmac("django_convstate.group", id, algorithm="sha256").hexdigest()
    return f"convstate.{digest}"


def news_event(count: int, kept: int | None = None, sender: str = "") -> dict[str, Any]:
    """Return the event, handled by `conversation_news` of a consumer, that has the others of its
    group read what is new. The messages are not in it, because a channel layer limits the size.

    Args:
        count: how many messages are stored now.
        kept: how many of the messages that were stored before are left; None: all.
        sender: the channel name of the consumer that committed, which ignores the event.
    """
    return {"type": "conversation.news", "count": count, "kept": kept, "sender": sender}
