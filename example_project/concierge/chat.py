"""One turn of a conversation: what somebody says goes in, and an answer comes out."""

from itertools import takewhile

from django.templatetags.static import static

from django_convstate import Conversation

from .replies import MAX_QUESTIONS, Reply, compose
from .slots import assume, context_of, note
from .topics import Topic
from .understanding import understand


def reply_to(conversation: Conversation, text: str) -> str:
    """Return the answer to `text`. State and messages of `conversation` have both afterwards; to
    save them is up to the caller."""
    asked = _asked(conversation)
    found = understand(text, context_of(conversation, asked[-1] if asked else None))
    if found.topic:
        note(conversation, found.topic, found)
    reply = compose(conversation, found, asked, turn=len(conversation.messages) // 2)
    if found.topic:
        _note_reply(conversation, found.topic, reply)
    conversation.messages.append("user", text)
    _say(conversation, text, reply)
    return reply.text


def _asked(conversation: Conversation) -> list[str]:
    """Return the slots that the last answers asked for, back to the last one that did not ask."""
    recent = conversation.messages.window(2 * MAX_QUESTIONS)
    asked = [message.get("asks", "") for message in recent if message["role"] == "assistant"]
    return list(takewhile(bool, reversed(asked)))[::-1]


def _note_reply(conversation: Conversation, topic: Topic, reply: Reply) -> None:
    assume(conversation, topic, reply.assumed)
    conversation["intentSpecific"] = reply.is_specific
    if reply.asks:
        conversation.incr("clarifying_questions_count")
    if reply.itinerary:
        conversation["itinerary"] = reply.itinerary
    elif topic.is_trip:
        conversation.pop("itinerary", None)


def _say(conversation: Conversation, text: str, reply: Reply) -> None:
    domain = conversation.setdefault("domain", "general")
    conversation.setdefault("intentSpecific", False)
    image = static(f"concierge/images/{domain}.svg")
    extra = {"asks": reply.asks} if reply.asks else {}
    if image != conversation.get("lastImageUrl"):
        extra["image"] = image
    conversation.update(lastQuery=text, lastAnswer=reply.text, lastImageUrl=image)
    conversation.messages.append("assistant", reply.text, **extra)
