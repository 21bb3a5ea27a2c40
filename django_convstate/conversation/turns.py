"""A turn of a conversation: it saves, takes the lease, loads, and at the end saves once more and
gives the lease back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final, Protocol, TypeVar

from ..backends.records import Change, Create, Record
from ..exceptions import ConversationBusy, ConversationInterrupted, ConversationNotFound
from ..repository import Repository
from ..tracebacks import clear_own_locals, clears_locals
from .cancellation import CANCELLED_TIMEOUT, log_unsaved, uncancelled
from .sending import asend, send
from .turn import Turn
from .working_copy import WorkingCopy


class Saved(Protocol):
    """What a turn is of."""

    def save(self) -> None:
        """Store what has changed."""

    async def asave(self) -> None:
        """See `save`."""


S = TypeVar("S", bound=Saved)

# What is raised in the block when a client hangs up: its generator is closed, its task cancelled.
INTERRUPTIONS: Final = (GeneratorExit, asyncio.CancelledError)

CONTINUE_TRIES: Final = 10

_OTHERS_DID_NOT_STOP: Final = (
    "Other threads or tasks did not stop saving the same object while its turn was to begin. What "
    "they have changed is kept."
)

# The frames of a block are the project's, and keep their locals; those below a save do not.
send_staged, asend_staged = clears_locals(send), clears_locals(asend)


@contextmanager
def in_turn(conversation: S, copy: WorkingCopy, repository: Repository, wait: float) -> Iterator[S]:
    """Yield the conversation in a turn for which it waits at most `wait` seconds."""
    is_released = False
    conversation.save()
    turn = Turn(repository, copy.id, wait)  # now, for a receiver may change the id
    copy.enter_turn(turn.lease)
    try:
        record: Record | None = turn.acquire()
        for tries in range(CONTINUE_TRIES):
            if _has_continued(copy, record, keeps_changes=tries >= 2):
                break
            conversation.save()
            record = None
            with suppress(ConversationNotFound):
                record = repository.load(copy.id)
        else:
            raise ConversationBusy(_OTHERS_DID_NOT_STOP)
        with turn.renewing():
            try:
                yield conversation
                refusals, gives_up = copy.stage_last(turn.lease)
            except INTERRUPTIONS:
                is_released = _save_interrupted(conversation, copy, repository, turn.lease)
                raise
            except BaseException:
                copy.discard_changes()
                raise
            send_staged(conversation, copy, repository, refusals)
            is_released = gives_up
    except BaseException as error:
        clear_own_locals(error)
        raise
    finally:
        copy.leave_turn()
        # What could not be sent may be sent once more, and gives up the lease then.
        turn.end(is_released=is_released or bool(copy.pending))


@asynccontextmanager
async def in_aturn(
    conversation: S, copy: WorkingCopy, repository: Repository, wait: float
) -> AsyncIterator[S]:
    """See `in_turn`."""
    is_released = False
    await conversation.asave()
    turn = Turn(repository, copy.id, wait)  # now, for a receiver may change the id
    copy.enter_turn(turn.lease)
    try:
        record: Record | None = await turn.aacquire()
        for tries in range(CONTINUE_TRIES):
            if _has_continued(copy, record, keeps_changes=tries >= 2):
                break
            await conversation.asave()
            record = None
            with suppress(ConversationNotFound):
                record = await repository.aload(copy.id)
        else:
            raise ConversationBusy(_OTHERS_DID_NOT_STOP)
        async with turn.arenewing():
            try:
                yield conversation
                refusals, gives_up = copy.stage_last(turn.lease)
            except INTERRUPTIONS:
                is_released = await _asave_interrupted(conversation, copy, repository, turn.lease)
                raise
            except BaseException:
                copy.discard_changes()
                raise
            await uncancelled(asend_staged(conversation, copy, repository, refusals))
            is_released = gives_up
    except BaseException as error:
        clear_own_locals(error)
        raise
    finally:
        copy.leave_turn()
        await turn.aend(is_released=is_released or bool(copy.pending))


def _save_interrupted(
    conversation: object, copy: WorkingCopy, repository: Repository, lease: str
) -> bool:
    """Save what was said before the client hung up, and tell whether that has given up the lease.
    An error is only logged, because the interruption has to propagate."""
    try:
        try:
            copy.log.interrupt_streams()
        finally:
            refusals, gives_up = copy.stage_last(lease)
            send_staged(conversation, copy, repository, refusals)
    except Exception as error:
        log_unsaved(error)
        copy.note_unsaved()
        return False
    return gives_up


async def _asave_interrupted(
    conversation: object, copy: WorkingCopy, repository: Repository, lease: str
) -> bool:
    """See `_save_interrupted`."""
    try:
        try:
            copy.log.interrupt_streams()
        finally:
            refusals, gives_up = copy.stage_last(lease)
            sent = asend_staged(conversation, copy, repository, refusals)
            await uncancelled(sent, CANCELLED_TIMEOUT)
    except Exception as error:
        log_unsaved(error)
        copy.note_unsaved()
        return False
    return gives_up


def _has_continued(copy: WorkingCopy, record: Record | None, *, keeps_changes: bool) -> bool:
    """Continue with what the turn before has left. False: another thread or task has changed
    something since we saved, which has to be saved first.

    Args:
        keeps_changes: continue all the same, and keep what has changed, as it is when a receiver of
            `conversation_saved` changes something each time, or a tool many times a second. What
            is on its way to the store has to arrive there first in any case.
    """
    with copy.lock.held:
        if copy.pending or (copy.is_modified and not keeps_changes):
            return False
        _become(copy, record)
        return True


def _become(copy: WorkingCopy, record: Record | None) -> None:
    """Do as `_has_continued`, whatever has changed.

    Raises:
        ConversationInterrupted: that is nothing.
        ConversationConflict: it was to be a new one, or is another owner's.
    """
    if record is not None:
        # An unknown record says nothing of what is stored: a new conversation stays as it is, with
        # its owner, and the commit checks the id.
        if record.is_unknown and copy.create is Create.MUST_BE_NEW:
            return
        if not record.is_unknown:
            change = Change(create=copy.create, visitor=copy.visitor)
            change.refuse_unless_fits(record.version, record.owner)
        _keep_changes(copy, partial(copy.load, record))
    elif copy.degraded:
        # Another process may have accepted it in an outage, and not replayed it yet.
        begin = partial(copy.begin, copy.id, owner=copy.owner, create=Create.EITHER)
        _keep_changes(copy, partial(begin, unless_deleted=True))
    elif copy.is_stored:
        raise ConversationInterrupted("The conversation was deleted or has expired.")


def _keep_changes(copy: WorkingCopy, load: Callable[[], None]) -> None:
    """Call `load`, and do again what has changed before to what is loaded then."""
    state, said, ttl = copy.state, copy.log.changes(), copy.new_ttl
    changes = None if state.is_untouched else state.changes()
    load()
    if changes is not None:
        state.do_again(changes)
    copy.log.do_again(said)
    if ttl is not None:
        copy.set_ttl(ttl)
