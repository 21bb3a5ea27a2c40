"""The chat turn that is measured everywhere: load the conversation with its last 20 messages,
change one state value, append two messages, save. A message has 200 bytes of text."""

from benchmarks.rivals import messages, text
from django_convstate import Conversation, ConversationStore


def stored(store: ConversationStore, count: int) -> Conversation:
    """Store a conversation of so many messages."""
    conversation = store.create()
    conversation["city"] = "Jaipur"
    for message in messages(count):
        conversation.messages.append(**message)
    conversation.save()
    return conversation


def say(conversation: Conversation) -> None:
    """Do all of a turn between its load and its save."""
    conversation.messages.window(20)
    conversation["lastQuery"] = text()
    conversation.messages.append("user", text())
    conversation.messages.append("assistant", text())


def turn(store: ConversationStore, id: str) -> None:
    known = store.get(id)
    say(known)
    known.save()


async def aturn(store: ConversationStore, id: str) -> None:
    known = await store.aget(id)
    say(known)
    await known.asave()
