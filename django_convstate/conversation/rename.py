"""Giving a stored conversation a new id, with nothing lost that others save in the meantime.

No backend can rename, least of all across the nodes of a cluster. So it is copied, and what was
copied is deleted only if it is still what was copied.
"""

from typing import Final

from .. import ids
from ..backends.records import Change, Create, Record
from ..exceptions import BackendUnavailable, ConversationBusy, ConversationConflict
from ..repository import Repository

ALL_MESSAGES: Final = 2**31 - 1
TRIES: Final = 10  # while others keep writing to what is being renamed
_CANNOT_RENAME: Final = "Others kept saving this conversation, so it could not be given a new id."


def rename(repository: Repository, id: str) -> Record:
    """Give a conversation a new id, and return it as it is under that.

    Raises:
        ConversationNotFound: there is none (any more).
        ConversationBusy: others did not stop saving it.
        BackendUnavailable: the store is unavailable, so that its older messages are not known.
    """
    for _ in range(TRIES):
        record = repository.load(id, ALL_MESSAGES)
        copy = ids.new_id()
        repository.commit(copy, _copy_of(record))
        if _retire(repository, id, record.version):
            return repository.load(copy)
        repository.remove(copy)
    raise ConversationBusy(_CANNOT_RENAME)


async def arename(repository: Repository, id: str) -> Record:
    """See `rename`."""
    for _ in range(TRIES):
        record = await repository.aload(id, ALL_MESSAGES)
        copy = ids.new_id()
        await repository.acommit(copy, _copy_of(record))
        if await _aretire(repository, id, record.version):
            return await repository.aload(copy)
        await repository.aremove(copy)
    raise ConversationBusy(_CANNOT_RENAME)


def _retire(repository: Repository, id: str, version: int, again: bool = False) -> bool:
    """Delete what has been copied. False: it is not, or not any more, what was copied."""
    try:
        # If it is gone the second time, the first time only the reply was lost.
        return repository.remove(id, version) or again
    except ConversationConflict:
        return False
    except BackendUnavailable:
        if again:
            raise
    return _retire(repository, id, version, again=True)


async def _aretire(repository: Repository, id: str, version: int, again: bool = False) -> bool:
    """See `_retire`."""
    try:
        return await repository.aremove(id, version) or again
    except ConversationConflict:
        return False
    except BackendUnavailable:
        if again:
            raise
    return await _aretire(repository, id, version, again=True)


def _copy_of(record: Record) -> Change:
    if record.degraded:
        raise BackendUnavailable(
            "The store is unavailable, and may hold messages that are not known here; the "
            "conversation cannot be given a new id now.",
            transient=False,
        )
    return Change(
        create=Create.MUST_BE_NEW,
        owner=record.owner,
        ttl=record.ttl,
        set=record.state,
        append=record.messages,
    )
