"""Sending what a conversation has staged, change by change, and taking note of the answers."""

import asyncio

from ..repository import Repository
from .pending import REFUSALS
from .working_copy import WorkingCopy


def send(conversation: object, copy: WorkingCopy, repository: Repository) -> None:
    """Store what is staged. `conversation` is what the signals are about. Raises as
    `Conversation.save` does."""
    while (change := copy.pending.first) is not None:
        try:
            committed = repository.commit(copy.id, change)
        except REFUSALS:
            copy.refuse(change)
            raise
        has_created = copy.acknowledge(change, committed)
        repository.announce_saved(conversation, has_created)
    copy.save_failed = False


async def asend(conversation: object, copy: WorkingCopy, repository: Repository) -> None:
    """See `send`."""
    try:
        while (change := copy.pending.first) is not None:
            try:
                committed = await repository.acommit(copy.id, change)
            except REFUSALS:
                copy.refuse(change)
                raise
            has_created = copy.acknowledge(change, committed)
            await repository.aannounce_saved(conversation, has_created)
    except asyncio.CancelledError:
        # Not the view's to answer: the client has gone. The end of the request sends it.
        copy.save_failed = False
        raise
    copy.save_failed = False
