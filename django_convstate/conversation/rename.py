"""Giving a stored conversation a new id, with nothing lost that others save in the meantime.

No backend can rename, least of all across the nodes of a cluster. So it is copied, and what was
copied is deleted only if it is still what was copied.
"""

from typing import Final, Protocol

from .. import ids
from ..backends.records import Change, Committed, Create, Record
from ..exceptions import BackendUnavailable, ConversationBusy, ConversationConflict

ALL_MESSAGES: Final = 2**31 - 1
TRIES: Final = 10  # while others keep writing to what is being renamed
_CANNOT_RENAME: Final = "Others kept saving this conversation, so it could not be given a new id."


class Records(Protocol):
    """Where conversations are kept: what of a repository a rename needs, each with a twin."""

    def load(self, id: str, window: int | None = None) -> Record: ...
    def commit(self, id: str, change: Change) -> Committed: ...
    def remove(self, id: str, expected_version: int | None = None) -> bool: ...
    async def aload(self, id: str, window: int | None = None) -> Record: ...
    async def acommit(self, id: str, change: Change) -> Committed: ...
    async def aremove(self, id: str, expected_version: int | None = None) -> bool: ...


def rename(records: Records, id: str) -> Record:
    """Give a conversation a new id, and return it as it is under that.

    Raises:
        ConversationNotFound: there is none (any more).
        ConversationBusy: others did not stop saving it.
        BackendUnavailable: the store is unavailable, so that its older messages are not known.
    """
    for _ in range(TRIES):
        record = records.load(id, ALL_MESSAGES)
        copy = ids.new_id()
        records.commit(copy, _copy_of(record))
        if _retire(records, id, record.version):
            return records.load(copy)
        records.remove(copy)
    raise ConversationBusy(_CANNOT_RENAME)


async def arename(records: Records, id: str) -> Record:
    """See `rename`."""
    for _ in range(TRIES):
        record = await records.aload(id, ALL_MESSAGES)
        copy = ids.new_id()
        await records.acommit(copy, _copy_of(record))
        if await _aretire(records, id, record.version):
            return await records.aload(copy)
        await records.aremove(copy)
    raise ConversationBusy(_CANNOT_RENAME)


def _retire(records: Records, id: str, version: int) -> bool:
    """Delete what has been copied. False: it is not, or not any more, what was copied."""
    try:
        return records.remove(id, version)
    except ConversationConflict:
        return False
    except BackendUnavailable:
        return _retire_again(records, id, version)


async def _aretire(records: Records, id: str, version: int) -> bool:
    try:
        return await records.aremove(id, version)
    except ConversationConflict:
        return False
    except BackendUnavailable:
        return await _aretire_again(records, id, version)


def _retire_again(records: Records, id: str, version: int) -> bool:
    # The first time perhaps only the reply was lost. If it is gone now, we have deleted it.
    try:
        records.remove(id, version)
    except ConversationConflict:
        return False
    return True


async def _aretire_again(records: Records, id: str, version: int) -> bool:
    try:
        await records.aremove(id, version)
    except ConversationConflict:
        return False
    return True


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
