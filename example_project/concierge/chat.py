"""One turn of a conversation: what somebody says goes in, and an answer comes out."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from django.templatetags.static import static

from django_convstate import Conversation

from .replies import MAX_QUESTIONS, Reply, compose
from .slots import assume, context_of, note
from .topics import Topic
from .understanding import understand

RECENT = 50  # messages among which one that is sent again is known


@dataclass(frozen=True, slots=True)
class Answer:
    """What is left to say: the words, and the further fields of their message."""

    text: str
    extra: dict[str, Any]


def reply_to(conversation: Conversation, text: str, id: str | None = None) -> str:
    """Return the answer to `text`. State and messages of `conversation` have both afterwards; to
    save them is up to the caller."""
    answer = take_in(conversation, text, id)
    conversation.messages.append("assistant", answer.text, **answer.extra)
    conversation["lastAnswer"] = answer.text
    return answer.text


def take_in(conversation: Conversation, text: str, id: str | None = None) -> Answer:
    """Return the answer to `text`, which `conversation` has afterwards. The answer is still to be
    appended, and noted as the last one.

    Args:
        conversation: the conversation.
        text: what somebody says.
        id: the client's own name for this message; None: it has none.
    """
    asked = _asked(conversation)
    found = understand(text, context_of(conversation, asked[-1] if asked else None))
    if found.topic:
        note(conversation, found.topic, found)
    reply = compose(conversation, found, asked, turn=len(conversation.messages) // 2)
    if found.topic:
        _note_reply(conversation, found.topic, reply)
    conversation.messages.append("user", text, **({"id": id} if id else {}))
    conversation["lastQuery"] = text
    return Answer(reply.text, _extra(conversation, reply))


def is_known(conversation: Conversation, id: str | None) -> bool:
    """Tell whether a message has come before. A client whose line has broken cannot know, and sends
    it again."""
    recent = conversation.messages.window(RECENT) if id else []
    return any(message.get("id") == id for message in recent)


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


def _extra(conversation: Conversation, reply: Reply) -> dict[str, Any]:
    domain = conversation.setdefault("domain", "general")
    conversation.setdefault("intentSpecific", False)
    image = static(f"concierge/images/{domain}.svg")
    extra = {"asks": reply.asks} if reply.asks else {}
    if image != conversation.get("lastImageUrl"):
        extra["image"] = image
    conversation["lastImageUrl"] = image
    return extra
