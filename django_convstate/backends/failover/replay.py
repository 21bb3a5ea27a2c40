"""Sends the primary the changes of one conversation that were made while it was unavailable.

Each change goes as it was, with its commit number, so that one which did arrive the first time is
not applied again. It is merged as any commit is: appends go behind what others have appended,
counters add up, nested changes are merged, the later value of a key wins, and a conversation that
others have deleted stays deleted. Limits were checked when it was accepted.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from ... import clock, ids
from ...conversation.merge import MERGE_TRIES, merged, pause_after
from ...exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationConflict,
    ConversationError,
    ConversationInterrupted,
    InvalidConversationValue,
)
from ..base import ConversationStateBackend
from ..records import Change, Committed, Create, Diverged
from ..toolkit.packed import PackedMessages
from ..toolkit.stored import StoredConversation
from ..toolkit.writer import ThisProcess
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
                write, end = pending.writes[0]
            try:
                self._send(id, pending, write, end)
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

    def _send(self, id: str, pending: PendingWrites, write: Write, end: int) -> None:
        if isinstance(write, Change):
            self._commit(id, pending, write, end)
        elif isinstance(write, Touch):
            self._primary.touch(id, write.ttl)
        else:
            record = self._primary.peek(id, 1)
            if record is not None and record.created_at <= write.at:
                self._primary.delete(id)
            pending.is_begun_anew = True

    def _commit(self, id: str, pending: PendingWrites, change: Change, end: int) -> None:
        primary, keep = self._primary, change.keep_messages
        # Where nothing was known here, the author counts messages as the primary does: from a load
        # before the outage.
        if keep is not None and pending.offset is None and pending.base is not None:
            record = primary.peek(id, 1)
            pending.offset = 0 if record is None else record.end - pending.shared_end
        change.commit.floor = ThisProcess.writer.lowest_open(id, change.commit)
        try:
            committed = self._merging(id, _rebased(change, pending))
        except ConversationInterrupted:
            if pending.base is None or pending.base.expires_at(primary.max_age) > clock.time():
                raise  # it has not expired: others have deleted it, and so it stays deleted
            with suppress(ConversationConflict):  # it is restored already, perhaps by us
                self._restore(id, pending.base)
            pending.offset = 0
            committed = self._merging(id, _rebased(change, pending))
        except InvalidConversationValue:
            # Others have made something else of a counter. The rest of the change is applied.
            self.stats.conflicts += 1
            committed = self._merging(id, replace(_rebased(change, pending), increment={}))
        pending.is_begun_anew = False
        if keep is not None:
            self.stats.conflicts += _keeps_more(keep, pending)
            pending.shared_end = min(pending.shared_end, keep)
        pending.offset = committed.end - end
        if committed.repeated and pending.offset > 0:
            # It had arrived before the outage, and what others have appended comes behind it.
            pending.shared_end = end

    def _merging(self, id: str, change: Change) -> Committed:
        """Commit a change, merged with what others have changed meanwhile."""
        for failures in range(MERGE_TRIES):
            try:
                return self._primary.commit(id, change)
            except Diverged as diverged:
                gone = {id for id, data in diverged.messages.items() if data is None}
                if gone:  # others have dropped a message that was changed here
                    self.stats.conflicts += 1
                    kept = [each for each in change.replace if each.id not in gone]
                    change = replace(change, replace=kept)
                change = merged(change, diverged)
                time.sleep(pause_after(failures + 1))
        raise ConversationBusy("Others did not stop changing what this change began from.")

    def _restore(self, id: str, base: StoredConversation) -> None:
        """Make a conversation that has expired in the outage what it was before. Those of its
        messages that were not known here count as dropped."""
        record = base.record(id, 0, self._primary.max_age)
        record.last_accessed, record.dropped = clock.time(), base.messages.start
        messages = PackedMessages(base.messages.packed, base.messages.start)
        self._primary.restore(id, record, messages, unless_deleted=True)

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
            keep = pending.shared_end + offset
        elif keep >= pending.shared_end:
            keep = max(0, keep + offset)
    create, visitor = change.create, change.visitor
    if create is Create.MUST_BE_NEW:
        visitor = change.owner or ""  # what is there by then may be another owner's
    if create is Create.MUST_BE_NEW or pending.base is None:
        # It was begun here; or nothing was known of it, but a client had a token for it. In either
        # case another process may have replayed first what the client has sent there.
        create = Create.EITHER
    return replace(
        change,
        create=create,
        visitor=visitor,
        # The deletion that comes before in the journal is not a reason to refuse it.
        unless_deleted=change.unless_deleted or not pending.is_begun_anew,
        expected_version=None,
        keep_messages=keep,
        max_state_bytes=None,
        max_messages=change.max_messages if change.drop_oldest else None,
        window=0,
    )


def _keeps_more(keep: int, pending: PendingWrites) -> bool:
    """Tell whether others have appended something behind what is to be dropped."""
    return keep < pending.shared_end and (pending.offset or 0) > 0
