"""Giving a stored conversation a new id, with nothing lost that somebody saves in the meantime.

No backend can rename, least of all across the nodes of a cluster. So it is copied, and what was
copied is deleted only if it is still what was copied.
"""

from typing import TYPE_CHECKING, Final

from .. import ids
from ..backends.records import Change, Create, Record
from ..exceptions import BackendUnavailable, ConversationBusy, ConversationConflict

if TYPE_CHECKING:
    from ..store import ConversationStore

ALL_MESSAGES: Final = 2**31 - 1
TRIES: Final = 10  # while others keep writing to what is being moved
_CANNOT_MOVE: Final = "Others kept saving this conversation, so it could not be given a new id."


def move(store: "ConversationStore", id: str) -> Record:
    """Move a conversation, and return it as it is under its new id.

    Raises:
        ConversationNotFound: there is none (any more).
        ConversationBusy: others did not stop saving it.
    """
    for _ in range(TRIES):
        record = store.load(id, ALL_MESSAGES)
        copy = ids.new_id()
        store.commit(copy, _copy_of(record))
        if _retire(store, id, record.version):
            return store.load(copy)
        store.backend.delete(copy)
    raise ConversationBusy(_CANNOT_MOVE)


async def amove(store: "ConversationStore", id: str) -> Record:
    for _ in range(TRIES):
        record = await store.aload(id, ALL_MESSAGES)
        copy = ids.new_id()
        await store.acommit(copy, _copy_of(record))
        if await _aretire(store, id, record.version):
            return await store.aload(copy)
        await store.backend.adelete(copy)
    raise ConversationBusy(_CANNOT_MOVE)


def _retire(store: "ConversationStore", id: str, version: int) -> bool:
    """Delete what has been copied. False: it is not, or not any more, what was copied."""
    try:
        return store.backend.delete(id, version)
    except ConversationConflict:
        return False
    except BackendUnavailable:
        return _retire_again(store, id, version)


async def _aretire(store: "ConversationStore", id: str, version: int) -> bool:
    try:
        return await store.backend.adelete(id, version)
    except ConversationConflict:
        return False
    except BackendUnavailable:
        return await _aretire_again(store, id, version)


def _retire_again(store: "ConversationStore", id: str, version: int) -> bool:
    # The first time perhaps only the reply was lost. If it is gone now, that was us.
    try:
        store.backend.delete(id, version)
    except ConversationConflict:
        return False
    return True


async def _aretire_again(store: "ConversationStore", id: str, version: int) -> bool:
    try:
        await store.backend.adelete(id, version)
    except ConversationConflict:
        return False
    return True


def _copy_of(record: Record) -> Change:
    if record.degraded:
        raise BackendUnavailable(
            "The store is away, and perhaps messages with it that are not known here; the "
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
