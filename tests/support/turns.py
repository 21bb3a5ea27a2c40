"""What tests do with turns of a conversation."""

import asyncio
import threading
import time
from typing import Any

import pytest

from django_convstate import (
    Conversation,
    ConversationStore,
)
from django_convstate.backends.base import ConversationStateBackend


def said(conversation: Conversation) -> list[Any]:
    return [message["content"] for message in conversation.messages.all()]


def stored(store: ConversationStore) -> Conversation:
    conversation = store.create()
    conversation["stored"] = True
    conversation.save()
    return conversation


def in_order(conversation: Conversation, contenders: int) -> None:
    """Each question is followed by its answer, and each is there once."""
    words = said(conversation)
    questions = [word for word in words if word.startswith("u")]
    assert words == [word for q in questions for word in (q, q.replace("u", "a"))]
    assert sorted(questions) == sorted(f"u{n}" for n in range(contenders))


def take_turn(conversation: Conversation, name: object) -> None:
    with conversation.turn():
        conversation.messages.append("user", f"u{name}")
        time.sleep(0.002)
        conversation.messages.append("assistant", f"a{name}")


async def atake_turn(conversation: Conversation, name: object) -> None:
    async with conversation.aturn():
        conversation.messages.append("user", f"u{name}")
        await asyncio.sleep(0.002)
        conversation.messages.append("assistant", f"a{name}")


def when_waiting(
    backend: ConversationStateBackend, monkeypatch: pytest.MonkeyPatch
) -> threading.Event:
    """Return what is set as soon as somebody has a place in line, and not the turn."""
    is_waiting, acquire, aacquire = threading.Event(), backend.acquire, backend.aacquire

    def watched(*args: Any) -> Any:
        acquired = acquire(*args)
        if acquired.position:
            is_waiting.set()
        return acquired

    async def awatched(*args: Any) -> Any:
        acquired = await aacquire(*args)
        if acquired.position:
            is_waiting.set()
        return acquired

    monkeypatch.setattr(backend, "acquire", watched)
    monkeypatch.setattr(backend, "aacquire", awatched)
    return is_waiting
