"""Telling the primary what has happened to a conversation while it was away.

Each change goes as it was, with its commit id, so that one which did arrive the first time is not
applied again. It is merged as any commit is: appends go behind what others have said, counters add
up, the later value of a key wins, and a conversation that somebody has deleted stays deleted.
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
from ..toolkit.stored import Entry
from .journal import Line, Touch, Write
from .offline import Shelter

logger = logging.getLogger("django_convstate")


@dataclass(slots=True)
class Tally:
    """What became of the writes of an outage. `lost` were refused by the primary, or belonged to
    what is not there any more; `conflicts` were applied in part."""

    home: int = 0
    conflicts: int = 0
    lost: int = 0


def bring_home(primary: ConversationStateBackend, shelter: Shelter, id: str, tally: Tally) -> None:
    """Tell the primary everything about one conversation, and let go of it here.

    Raises:
        BackendUnavailable: it is away again. What it has been told is struck out.
    """
    while True:
        with shelter.lock:
            line = shelter.journal.line(id)
            if line is None:
                return
            write, count = line.writes[0]
        try:
            _tell(primary, id, line, write, count, tally)
        except BackendUnavailable:
            raise
        except ConversationBusy as error:
            raise BackendUnavailable(str(error)) from error
        except ConversationError as error:
            _give_up(shelter, id, error, tally)
            return
        tally.home += 1
        with shelter.lock:
            if id in shelter.journal and shelter.journal.done(id):
                shelter.let_go(id)
                return


def _tell(
    primary: ConversationStateBackend, id: str, line: Line, write: Write, count: int, tally: Tally
) -> None:
    if isinstance(write, Change):
        _commit(primary, id, line, write, count, tally)
    elif isinstance(write, Touch):
        primary.touch(id, write.ttl)
    elif (record := primary.peek(id, 1)) and record.created_at <= write.at:
        primary.delete(id)


def _commit(
    primary: ConversationStateBackend, id: str, line: Line, change: Change, count: int, tally: Tally
) -> None:
    keep = change.keep_messages
    # Of a conversation of which nothing is known here, its author has seen all that is dropped.
    if keep is not None and line.surplus is None and line.base is not None:
        record = primary.peek(id, 1)
        line.surplus = 0 if record is None else record.message_count - line.shared
    try:
        committed = primary.commit(id, _as_of_now(change, line))
    except ConversationInterrupted:
        if line.base is None or line.base.expires_at(primary.max_age) > time.time():
            raise  # it did not expire: somebody has deleted it, and so it stays
        line.restoring = line.restoring or _all_of(line.base)
        with suppress(ConversationConflict):  # another process has done so
            primary.commit(id, line.restoring)
        line.surplus = -line.base.hidden
        committed = primary.commit(id, _as_of_now(change, line))
    except InvalidConversationValue:
        # Somebody has made something else of a counter. What was said goes home all the same.
        tally.conflicts += 1
        committed = primary.commit(id, replace(_as_of_now(change, line), increment={}))
    if keep is not None:
        tally.conflicts += _keeps_more(keep, line)
        line.shared = min(line.shared, keep)
    line.surplus = committed.message_count - count


def _as_of_now(change: Change, line: Line) -> Change:
    """Return a change as it is sent after an outage: it was accepted, so it is not checked against
    a version any more, and it drops only messages that its author had seen."""
    keep, surplus = change.keep_messages, line.surplus or 0
    if keep is not None:
        if _keeps_more(keep, line):
            keep = line.shared + surplus
        elif keep >= line.shared:
            keep = max(0, keep + surplus)
    create = change.create
    if create is Create.MUST_BE_NEW or line.base is None:
        # Begun here; or nothing was known of it, but a client had a token for it. In either case
        # another process may have come home first with what the client has said there.
        create = Create.EITHER
    return replace(change, create=create, expected_version=None, keep_messages=keep)


def _keeps_more(keep: int, line: Line) -> bool:
    """Tell whether others have said something behind what is to be dropped."""
    return keep < line.shared and (line.surplus or 0) > 0


def _all_of(entry: Entry) -> Change:
    return Change(
        create=Create.MUST_BE_NEW,
        owner=entry.owner,
        ttl=entry.ttl,
        set=entry.state,
        append=entry.messages,
    )


def _give_up(shelter: Shelter, id: str, error: ConversationError, tally: Tally) -> None:
    with shelter.lock:
        lost = shelter.journal.drop(id)
        shelter.let_go(id)
    tally.lost += lost
    logger.warning(
        "Conversation %s: %d changes made while the store was away are lost. %s",
        ids.hashed_id(id),
        lost,
        error,
    )
