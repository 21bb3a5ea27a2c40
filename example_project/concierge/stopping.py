"""Stop: the visitor has read enough of an answer that is still being made.

The consumer that makes it takes no message of its client before it is done, and another process may
be making it. So the word to stop goes through the channel layer, to a channel of the answer's own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Final

from channels.layers import get_channel_layer

from django_convstate import Conversation

from .refusals import Refused

LAYER_TIMEOUT: Final = 1  # seconds


async def stop(conversation: Conversation) -> None:
    """Stop the answer that is being made in a conversation, if there is one.

    Raises:
        Refused: the channel layer cannot be reached.
    """
    layer: Any = get_channel_layer()
    if not await _reaches(layer.group_send(_group(conversation), {"type": "stop"})):
        raise Refused(503, "unavailable", "The answer cannot be stopped at the moment.")


@asynccontextmanager
async def stoppable(conversation: Conversation) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set when the answer is to stop. While the channel layer is away it is
    not, and the answer is given all the same."""
    layer: Any = get_channel_layer()
    channel, group = await layer.new_channel("stop"), _group(conversation)
    is_stopped = asyncio.Event()

    async def listen() -> None:
        await layer.receive(channel)
        is_stopped.set()

    if not await _reaches(layer.group_add(group, channel)):
        yield is_stopped
        return
    listening = asyncio.create_task(listen())
    try:
        yield is_stopped
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await _reaches(layer.group_discard(group, channel))


async def _reaches(action: Awaitable[None]) -> bool:
    """Wait for the channel layer, and tell whether it has answered."""
    try:
        async with asyncio.timeout(LAYER_TIMEOUT):
            await action
    except Exception:
        return False
    return True


def _group(conversation: Conversation) -> str:
    """Return the name of a group; those of Channels have few characters to choose from."""
    return f"stop.{sha256(conversation.id.encode()).hexdigest()}"
