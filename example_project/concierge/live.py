"""An answer as it comes, and who else is to see it: what the websocket and the event stream share.

What a client is sent are events, JSON objects told apart by their `type`:

    messages    `messages` that are stored now, after which the client has `seen` so many of them;
                with `status`, as `status_of` has it
    answer      `text`, what there is so far of the answer that is being made, "" at its beginning,
                and `image`, if it has one
    ready       what was missed has been sent, and the client has `seen` so many messages
    refused     `error`, as over HTTP

With each word the answer is sent as far as it has come, so that a client that begins to listen in
the middle, or has missed a part, has all of it with the next word.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from django.conf import settings

from django_convstate import Conversation, Message
from django_convstate.channels import anotify

from .chat import Answer, is_known, take_in
from .stopping import stoppable
from .transcript import status_of

Event = dict[str, Any]


def messages_event(conversation: Conversation, messages: list[Message], seen: int) -> Event:
    status = status_of(conversation)
    return {"type": "messages", "messages": messages, "seen": seen, "status": status}


async def answering(
    conversation: Conversation,
    text: str,
    id: str | None,
    save: Callable[[Conversation], Awaitable[None]],
) -> AsyncGenerator[Event, None]:
    """Answer `text` within a turn of `conversation`, and yield the events of it; none, if the
    message `id` has been answered before.

    What was said is saved before the answer begins. One that breaks off is saved as interrupted,
    and one that a visitor stops as stopped, too.
    """
    if is_known(conversation, id):
        return
    async with stoppable(conversation) as is_stopped:
        answer = take_in(conversation, text, id)
        await save(conversation)
        yield _newest(conversation)
        yield await _shown(conversation, answer, "")
        try:
            async with aclosing(_words(conversation, answer, is_stopped)) as words:
                async for so_far in words:
                    yield await _shown(conversation, answer, so_far)
        finally:
            await save(conversation)
        yield _newest(conversation)


async def _words(
    conversation: Conversation, answer: Answer, is_stopped: asyncio.Event
) -> AsyncGenerator[str, None]:
    """Yield what there is so far of the answer, which `conversation` has afterwards."""
    so_far = ""
    words = conversation.messages.stream("assistant", _spoken(answer.text), **answer.extra)
    async with aclosing(words):
        async for word in words:
            so_far += word
            yield so_far
            if is_stopped.is_set() and so_far != answer.text:
                break
    if so_far != answer.text:
        conversation.messages.update(conversation.messages[-1].id, stopped=True)
    else:
        conversation["lastAnswer"] = answer.text


def _newest(conversation: Conversation) -> Event:
    return messages_event(conversation, [conversation.messages[-1]], len(conversation.messages))


async def _spoken(text: str) -> AsyncIterator[str]:
    """Yield the words as if a model thought about each."""
    for word in re.findall(r"\s*\S+|\s+", text):
        await asyncio.sleep(settings.CONCIERGE_PAUSE)
        yield word


async def _shown(conversation: Conversation, answer: Answer, so_far: str) -> Event:
    """Return the event of an answer in the making, and let the others have it, too. They know by
    the place `at` which it will have among the messages whether it is still in the making."""
    event = {"type": "answer", "text": so_far, "image": answer.extra.get("image")}
    at = len(conversation.messages)
    await anotify(conversation, {"type": "chat.answer", "event": event, "at": at})
    return event
