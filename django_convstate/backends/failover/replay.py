"""Sends the primary the changes of one conversation that were made while it was unavailable.

Each change goes as it was, with its commit id, so that one which did arrive the first time is not
applied again. It is merged as any commit is: appends go behind what others have appended, counters
add up, the later value of a key wins, and a conversation that others have deleted stays deleted.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from ... import ids
from ...exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationConflict,
    ConversationError,
    ConversationInterrupted,
    InvalidConversationValue,
)
from ..base import ConversationStateBackend
from ..records import Change, Create
from ..toolkit.stored import StoredConversation
from .journal import PendingWrites, Touch, Write
from .offline import OfflineStore

logger = logging.getLogger("django_convstate")


@dataclass(slots=True)
class ReplayStats:
    """What became of the writes of an outage. `replayed` counts all that the primary applied,
    `conflicts` those of them that it applied in part. `lost` were refused by the primary, or
    belonged to a conversation that is gone."""

    replayed: int = 0
    conflicts: int = 0
    lost: int = 0


class Replayer:
    """Sends the changes in the journal to the primary, one conversation at a time. `stats` counts
    them, until it is replaced."""

    def __init__(self, primary: ConversationStateBackend, offline: OfflineStore) -> None:
        """Send nothing yet."""
        self.stats = ReplayStats()
        self._primary = primary
        self._offline = offline

    def replay(self, id: str) -> None:
        """Send all changes of one conversation, and then drop it here.

        Raises:
            BackendUnavailable: the primary is unavailable again. What it has applied is not pending
                any more.
        """
        offline = self._offline
        while True:
            with offline.lock:
                pending = offline.journal.get(id)
                if pending is None:
                    return
                write, message_count = pending.writes[0]
            try:
                self._send(id, pending, write, message_count)
            except BackendUnavailable:
                raise
            except ConversationBusy as error:
                raise BackendUnavailable(str(error)) from error
            except ConversationError as error:
                self._give_up(id, pending, error)
                continue
            self.stats.replayed += 1
            with offline.lock:
                if offline.journal.get(id) is not pending or pending.writes[0][0] is not write:
                    # A deletion has taken the place of these writes; or another thread, after the
                    # backend was closed and used again, has replayed this one as well.
                    continue
                if offline.journal.remove_first(id):
                    offline.discard(id)
                    return

    def _send(self, id: str, pending: PendingWrites, write: Write, message_count: int) -> None:
        if isinstance(write, Change):
            self._commit(id, pending, write, message_count)
        elif isinstance(write, Touch):
            self._primary.touch(id, write.ttl)
        elif (record := self._primary.peek(id, 1)) and record.created_at <= write.at:
            self._primary.delete(id)

    def _commit(self, id: str, pending: PendingWrites, change: Change, message_count: int) -> None:
        primary, keep = self._primary, change.keep_messages
        # Where nothing was known here, the author counts messages as the primary does: from a load
        # before the outage.
        if keep is not None and pending.offset is None and pending.base is not None:
            record = primary.peek(id, 1)
            pending.offset = 0 if record is None else record.message_count - pending.shared_count
        try:
            committed = primary.commit(id, _rebased(change, pending))
        except ConversationInterrupted:
            if pending.base is None or pending.base.expires_at(primary.max_age) > time.time():
                raise  # it has not expired: others have deleted it, and so it stays deleted
            with suppress(ConversationConflict):  # it is restored already, perhaps by us
                primary.commit(id, _creating(pending.base))
            pending.offset = -pending.base.unloaded_count
            committed = primary.commit(id, _rebased(change, pending))
        except InvalidConversationValue:
            # Others have made something else of a counter. The rest of the change is applied.
            self.stats.conflicts += 1
            committed = primary.commit(id, replace(_rebased(change, pending), increment={}))
        if keep is not None:
            self.stats.conflicts += _keeps_more(keep, pending)
            pending.shared_count = min(pending.shared_count, keep)
        pending.offset = committed.message_count - message_count

    def _give_up(self, id: str, pending: PendingWrites, error: ConversationError) -> None:
        with self._offline.lock:
            if self._offline.journal.get(id) is not pending:
                return  # a deletion has taken the place of these writes
            lost = self._offline.journal.drop(id)
            self._offline.discard(id)
        self.stats.lost += lost
        logger.warning(
            "Conversation %s: %d changes accepted during the outage are lost, because the store "
            "refused the first of them: %s",
            ids.hashed_id(id),
            lost,
            error,
        )


def _rebased(change: Change, pending: PendingWrites) -> Change:
    """Return a change as it is sent after an outage: its version was checked when it was accepted,
    and it drops only messages that its author had seen."""
    keep, offset = change.keep_messages, pending.offset or 0
    if keep is not None:
        if _keeps_more(keep, pending):
            keep = pending.shared_count + offset
        elif keep >= pending.shared_count:
            keep = max(0, keep + offset)
    create = change.create
    if create is Create.MUST_BE_NEW or pending.base is None:
        # It was begun here; or nothing was known of it, but a client had a token for it. In either
        # case another process may have replayed first what the client has sent there.
        create = Create.EITHER
    return replace(change, create=create, expected_version=None, keep_messages=keep)


def _keeps_more(keep: int, pending: PendingWrites) -> bool:
    """Tell whether others have appended something behind what is to be dropped."""
    return keep < pending.shared_count and (pending.offset or 0) > 0


def _creating(stored: StoredConversation) -> Change:
    return Change(
        create=Create.MUST_BE_NEW,
        owner=stored.owner,
        ttl=stored.ttl,
        set=stored.state,
        append=stored.messages,
    )
