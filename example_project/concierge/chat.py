"""One turn of a conversation: what the visitor says goes in, and an answer comes out."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from django.templatetags.static import static
from django.utils.text import Truncator

from django_convstate import Conversation

from .replies import MAX_QUESTIONS, Reply, answer
from .slots import topic_of
from .understanding import understand

MAX_TITLE = 40  # characters
RECENT = 50  # messages among which one that is sent again is known


@dataclass(frozen=True, slots=True)
class Answer:
    """What is left to say: the words, and the further fields of their message."""

    text: str
    extra: dict[str, Any]


def reply_to(conversation: Conversation, text: str, id: str | None = None) -> str:
    """Return the answer to `text`. State and messages of `conversation` have both afterwards; to
    save them is up to the caller."""
    said = take_in(conversation, text, id)
    conversation.messages.append("assistant", said.text, **said.extra)
    conversation["lastAnswer"] = said.text
    return said.text


def take_in(conversation: Conversation, text: str, id: str | None = None) -> Answer:
    """Return the answer to `text`, which `conversation` has afterwards. The answer is still to be
    appended, and noted as the last one.

    Args:
        conversation: the conversation.
        text: what the visitor says.
        id: the client's own name for this message; None: it has none.
    """
    asked = _asked(conversation)
    found = understand(
        text,
        topic_of(conversation),
        planning="preferences" in conversation,
        asked=asked[-1] if asked else None,
    )
    reply = answer(conversation, found, asked, turn=len(conversation.messages) // 2)
    conversation.messages.append("user", text, **({"id": id} if id else {}))
    if found.act == "distress":  # none of which is for the notes
        return Answer(reply.text, {})
    if found.topic:
        conversation["intentSpecific"] = reply.is_specific
        conversation.setdefault("title", title_of(text))
    if reply.asks:
        conversation.incr("clarifying_questions_count")
    conversation["lastQuery"] = text
    return Answer(reply.text, _extra(conversation, reply))


def title_of(text: str) -> str:
    """Return what a conversation is called that begins with this request: its first words."""
    return Truncator(" ".join(text.split())).chars(MAX_TITLE)


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


def _extra(conversation: Conversation, reply: Reply) -> dict[str, Any]:
    domain = conversation.setdefault("domain", "general")
    conversation.setdefault("intentSpecific", False)
    image = static(f"concierge/images/{domain}.svg")
    extra = {"asks": reply.asks} if reply.asks else {}
    if image != conversation.get("lastImageUrl"):
        extra["image"] = image
    conversation["lastImageUrl"] = image
    return extra
