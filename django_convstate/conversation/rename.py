"""Giving a stored conversation a new id, on the server: nothing of it passes through here."""

from ..exceptions import BackendUnavailable, ConversationNotFound
from ..repository import Repository


def rename(repository: Repository, id: str) -> str:
    """Give a conversation a new id, and return that.

    Raises:
        ConversationNotFound: there is none (any more).
        BackendUnavailable: the store is unavailable.
    """
    new_id = repository.id_beside(id)
    try:
        found = repository.rename(id, new_id)
    except BackendUnavailable:
        found = repository.rename(id, new_id)  # perhaps only the answer was lost
    if not found:
        raise ConversationNotFound
    return new_id


async def arename(repository: Repository, id: str) -> str:
    """See `rename`."""
    new_id = repository.id_beside(id)
    try:
        found = await repository.arename(id, new_id)
    except BackendUnavailable:
        found = await repository.arename(id, new_id)  # perhaps only the answer was lost
    if not found:
        raise ConversationNotFound
    return new_id
