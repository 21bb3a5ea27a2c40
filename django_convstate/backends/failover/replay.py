"""Sends the primary the changes of one conversation that were made while it was unavailable.

Each change goes as it was, with its commit number, so that one which did arrive the first time is
not applied again. It is merged as any commit is: appends go behind what others have appended,
counters add up, nested changes are merged, the later value of a key wins, and a conversation that
others have deleted stays deleted. Limits were checked when it was accepted.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

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
from ..records import Change, Committed, Create, Diverged, Record
from ..toolkit.packed import PackedMessages
from ..toolkit.stored import StoredConversation
from ..toolkit.writer import ThisProcess
from .journal import PendingWrites, Touch, Write, steady_time
from .offline import OfflineStore
from .pieces import divided, is_too_large, mark_of
from .snapshot import KEPT_MESSAGES

CLOCK_TTL: Final = 1.0  # seconds until the conversation that shows the primary's clock is gone

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

    def __init__(
        self,
        primary: ConversationStateBackend,
        offline: OfflineStore,
        log: Callable[..., object] = logger.log,
    ) -> None:
        """Send nothing yet. `log` takes what `logging.log` does."""
        self.stats = ReplayStats()
        self._log = log
        self._primary = primary
        self._offline = offline

    def replay(self, id: str) -> None:
        """Send all changes of one conversation, and then drop it here.

        Raises:
            BackendUnavailable: the primary is unavailable again, or the change takes too long. What
                was applied is not pending any more.
            ConversationBusy: others did not stop changing the same.
        """
        offline = self._offline
        while True:
            with offline.lock:
                pending = offline.journal.get(id)
                if pending is None:
                    return
                write, end = pending.writes[0]
            if isinstance(write, Change) and is_too_large(write):
                self.divide(id)
                continue
            try:
                is_there = self._send(id, pending, write, end)
            except (BackendUnavailable, ConversationBusy):
                raise
            except ConversationError as error:
                self._give_up(id, pending, write, end, error)
                continue
            stored = None if len(pending.writes) > 1 else self._peek(id)
            self._remove(id, pending, write, end, stored, with_followers=is_there)

    def _peek(self, id: str) -> Record | None:
        """Return how the primary has a conversation by now, so that it goes on with its history if
        the next outage comes before it is loaded again. None: that is not known."""
        with suppress(ConversationError):
            return self._primary.peek(id, KEPT_MESSAGES)
        return None

    def _remove(
        self,
        id: str,
        pending: PendingWrites,
        write: Write,
        end: int,
        stored: Record | None,
        *,
        with_followers: bool,
    ) -> None:
        """Remove a write that was applied. If it is the last one, the conversation is `stored`."""
        offline = self._offline
        with offline.lock:
            self.stats.replayed += not pending.pieces
            if not self._is_first(id, pending, write):
                # A deletion has taken the place of these writes; or another thread, after the
                # backend was closed and used again, has replayed this one as well.
                return
            if with_followers:
                _, pending.shared_end = pending.writes[pending.followers]
                pending.offset = (pending.offset or 0) + end - pending.shared_end
                offline.journal.remove_followers(id)
            if offline.journal.remove_first(id):
                offline.discard(id)
                if stored is not None:
                    offline.known.put(id, stored, offline.known.era)

    def divide(self, id: str) -> bool:
        """Divide the first of the changes, which takes too long, and tell whether it could be."""
        with self._offline.lock:
            journal = self._offline.journal
            pending = journal.get(id)
            if pending is None:
                return False
            write, end = pending.writes[0]
            # A head is sent until there is an answer: what becomes of the others depends on it.
            pieces = divided(id, write, end) if isinstance(write, Change) else None
            if pieces is None or pending.followers:
                return False
            journal.divide_first(id, pieces)
            return True

    def _is_first(self, id: str, pending: PendingWrites, write: Write) -> bool:
        return self._offline.journal.get(id) is pending and pending.writes[0][0] is write

    def _send(self, id: str, pending: PendingWrites, write: Write, end: int) -> bool:
        """Send a write, and tell whether it is the head of pieces that are all there already."""
        if isinstance(write, Change):
            was_sent, pending.is_head_sent = pending.is_head_sent, bool(pending.followers)
            committed = self._commit(id, pending, write, end)
            return committed.repeated and self._has_followers(id, pending, was_sent)
        if isinstance(write, Touch):
            self._primary.touch(id, write.ttl)
        else:
            record = self._primary.peek(id, 1)
            if record is not None and not self._is_newer(id, record, write.at):
                self._primary.delete(id)
            pending.is_begun_anew = True
        return False

    def _is_newer(self, id: str, record: Record, moment: float) -> bool:
        """Tell whether others have begun a conversation after a moment here. Only if our clock says
        so, and that of the primary, too: what was deleted has to go."""
        if record.created_at <= moment:
            return False
        now, beside = steady_time(), self._primary.id_beside(id)
        committed = self._primary.commit(beside, Change(ttl=CLOCK_TTL, set={"probe": b"true"}))
        return record.created_at > moment + committed.expires_at - CLOCK_TTL - now

    def _has_followers(self, id: str, pending: PendingWrites, was_sent: bool) -> bool:
        """Tell whether the whole was applied of which the head had been applied already: or else it
        was the head itself, at an earlier try."""
        with self._offline.lock:
            followers = list(islice(pending.writes, 1, pending.followers + 1))
        if not followers or not was_sent:
            return bool(followers)
        mark = mark_of([write for write, _ in followers if isinstance(write, Change)])
        return mark is not None and self._primary.find(id, mark) is not None

    def _commit(self, id: str, pending: PendingWrites, change: Change, end: int) -> Committed:
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
            if pending.base is None or not pending.has_expired:
                raise  # it has not expired: others have deleted it, and so it stays deleted
            if pending.may_be_restored:
                with suppress(ConversationConflict):  # it is restored already, perhaps by us
                    self._restore(id, pending.base)
            else:
                pending.base = None  # it begins anew, with what was changed here
            pending.offset = 0
            committed = self._merging(id, _rebased(change, pending))
        except InvalidConversationValue:
            # Others have made something else of a counter. The rest of the change is applied.
            self.stats.conflicts += 1
            committed = self._merging(id, replace(_rebased(change, pending), increment={}))
        pending.is_begun_anew = False
        if keep is not None:
            self.stats.conflicts += pending.is_shifted or _keeps_more(keep, pending)
            pending.shared_end = min(pending.shared_end, keep)
        pending.offset = committed.end - end
        if committed.repeated and pending.offset > 0:
            # It had arrived before the outage, and what others have appended comes behind it.
            pending.shared_end = end
        return committed

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

    def _give_up(
        self, id: str, pending: PendingWrites, write: Write, end: int, error: ConversationError
    ) -> None:
        """Drop the first change, with all pieces of it, because the primary refuses it."""
        with self._offline.lock:
            if not self._is_first(id, pending, write):
                return  # a deletion has taken the place of these writes
            if isinstance(write, Change):
                _note_refused(pending, write)
            journal = self._offline.journal
            while pending.pieces:
                journal.remove_first(id)
            if journal.remove_first(id):
                self._offline.discard(id)
        self.stats.lost += 1
        self._log(
            logging.WARNING,
            "Conversation %s: a change accepted during the outage is lost, because the store "
            "refused it: %s",
            ids.hashed_id(id),
            error,
        )


def _note_refused(pending: PendingWrites, change: Change) -> None:
    """Note what the changes that come after a refused one have to observe."""
    if change.create is Create.MUST_BE_NEW or change.owner is not None:
        pending.visitor = change.owner or ""
    if change.append or change.keep_messages is not None or pending.pieces:
        pending.is_shifted = True


def _rebased(change: Change, pending: PendingWrites) -> Change:
    """Return a change as it is sent after an outage: its version was checked when it was accepted,
    and it drops only messages that its author had seen."""
    keep, offset = change.keep_messages, pending.offset or 0
    if pending.is_shifted:
        keep = None
    elif keep is not None:
        if _keeps_more(keep, pending):
            keep = pending.shared_end + offset
        elif keep >= pending.shared_end:
            keep = max(0, keep + offset)
    create, visitor = change.create, change.visitor
    if visitor is None:
        visitor = pending.visitor
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
