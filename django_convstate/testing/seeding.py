"""Conversations that are there when a test begins."""

from collections.abc import Iterable, Mapping

from ..codec import JSON
from ..conversation.conversation import Conversation
from ..ids import Owner
from ..store import ConversationStore, conversations


def seed(
    messages: Iterable[tuple[str, JSON] | dict[str, JSON]] = (),
    state: Mapping[str, JSON] | None = None,
    *,
    owner: Owner = None,
    ttl: float | None = None,
    id: str | None = None,
    store: ConversationStore = conversations,
) -> Conversation:
    """Return a conversation that is saved.

        trip = seed([("user", "hi"), ("assistant", "hello")], {"city": "Paris"}, owner=user)

    Args:
        messages: pairs of role and content, or dictionaries, which are kept as they are.
        state: what is under its keys.
        owner, ttl, id: see `ConversationStore.create`.
        store: where to.

    Raises:
        ValueError: neither a message nor a key is given, and an empty conversation is not stored.
    """
    conversation = store.create(owner, ttl, id)
    _fill(conversation, messages, state)
    conversation.save()
    return conversation


async def aseed(
    messages: Iterable[tuple[str, JSON] | dict[str, JSON]] = (),
    state: Mapping[str, JSON] | None = None,
    *,
    owner: Owner = None,
    ttl: float | None = None,
    id: str | None = None,
    store: ConversationStore = conversations,
) -> Conversation:
    """See `seed`."""
    conversation = store.create(owner, ttl, id)
    _fill(conversation, messages, state)
    await conversation.asave()
    return conversation


def _fill(
    conversation: Conversation,
    messages: Iterable[tuple[str, JSON] | dict[str, JSON]],
    state: Mapping[str, JSON] | None,
) -> None:
    conversation.update(state or {})
    for message in messages:
        if isinstance(message, dict):
            conversation.messages.extend([message])
        else:
            role, content = message
            conversation.messages.append(role, content)
    if not conversation.is_modified:
        raise ValueError("An empty conversation is not stored: give it a message or a key.")
