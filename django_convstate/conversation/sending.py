"""Sending what a conversation has staged, change by change, and taking note of the answers."""

import asyncio

from ..exceptions import ConversationConflict
from ..repository import Repository
from .pending import REFUSALS
from .working_copy import WorkingCopy


def send(conversation: object, copy: WorkingCopy, repository: Repository, refusals: int) -> None:
    """Store what is staged. Raises as `Conversation.save` does.

    Args:
        conversation: what the signals are about.
        refusals: how many changes of it had been refused when this was staged.
    """
    while copy.pending and (change := copy.pending.first):
        try:
            committed = repository.commit(copy.id, change)
        except REFUSALS:
            copy.refuse(change)
            raise
        has_created = copy.acknowledge(change, committed)
        if has_created is not None:
            repository.announce_saved(conversation, has_created)
    if copy.refusals != refusals:
        raise _refused_with_another()
    copy.save_failed = False


async def asend(
    conversation: object, copy: WorkingCopy, repository: Repository, refusals: int
) -> None:
    """See `send`."""
    try:
        while copy.pending and (change := copy.pending.first):
            try:
                committed = await repository.acommit(copy.id, change)
            except REFUSALS:
                copy.refuse(change)
                raise
            has_created = copy.acknowledge(change, committed)
            if has_created is not None:
                await repository.aannounce_saved(conversation, has_created)
    except asyncio.CancelledError:
        # Not the view's to answer: the client has gone. The end of the request sends it.
        copy.save_failed = False
        raise
    if copy.refusals != refusals:
        raise _refused_with_another()
    copy.save_failed = False


def _refused_with_another() -> ConversationConflict:
    return ConversationConflict(
        "Another thread or task was saving the same object, and the store has refused that. What "
        "was to be saved here is forgotten with it: reload() and decide again."
    )
