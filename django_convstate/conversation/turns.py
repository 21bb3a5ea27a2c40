"""A turn of a conversation: it saves, takes the lease, loads, and at the end saves once more and
gives the lease back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol, TypeVar

from ..backends.records import Change, Create, Record
from ..exceptions import ConversationInterrupted
from ..repository import Repository
from ..tracebacks import clear_own_locals
from .cancellation import CANCELLED_TIMEOUT, log_unsaved, uncancelled
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


@contextmanager
def in_turn(
    conversation: S,
    copy: WorkingCopy,
    repository: Repository,
    wait: float,
    send: Callable[[], None],
) -> Iterator[S]:
    """Yield the conversation in a turn for which it waits at most `wait` seconds. `send` stores
    what is staged."""
    is_released = False
    conversation.save()
    turn = Turn(repository, copy.id, wait)  # now, for a receiver may change the id
    copy.enter_turn(turn.lease)
    try:
        _continue(copy, turn.acquire())
        with turn.renewing():
            try:
                yield conversation
                gives_up = copy.stage_last(turn.lease)
            except INTERRUPTIONS:
                is_released = _save_interrupted(copy, turn.lease, send)
                raise
            except BaseException:
                copy.discard_changes()
                raise
            send()
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
    conversation: S,
    copy: WorkingCopy,
    repository: Repository,
    wait: float,
    send: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncIterator[S]:
    """See `in_turn`."""
    is_released = False
    await conversation.asave()
    turn = Turn(repository, copy.id, wait)  # now, for a receiver may change the id
    copy.enter_turn(turn.lease)
    try:
        _continue(copy, await turn.aacquire())
        async with turn.arenewing():
            try:
                yield conversation
                gives_up = copy.stage_last(turn.lease)
            except INTERRUPTIONS:
                is_released = await _asave_interrupted(copy, turn.lease, send)
                raise
            except BaseException:
                copy.discard_changes()
                raise
            await uncancelled(send())
            is_released = gives_up
    except BaseException as error:
        clear_own_locals(error)
        raise
    finally:
        copy.leave_turn()
        await turn.aend(is_released=is_released or bool(copy.pending))


def _save_interrupted(copy: WorkingCopy, lease: str, send: Callable[[], None]) -> bool:
    """Save what was said before the client hung up, and tell whether that has given up the lease.
    An error is only logged, because the interruption has to propagate."""
    try:
        try:
            copy.log.interrupt_streams()
        finally:
            gives_up = copy.stage_last(lease)
            send()
    except Exception as error:
        log_unsaved(error)
        copy.note_unsaved()
        return False
    return gives_up


async def _asave_interrupted(
    copy: WorkingCopy, lease: str, send: Callable[[], Coroutine[Any, Any, None]]
) -> bool:
    """See `_save_interrupted`."""
    try:
        try:
            copy.log.interrupt_streams()
        finally:
            gives_up = copy.stage_last(lease)
            await uncancelled(send(), CANCELLED_TIMEOUT)
    except Exception as error:
        log_unsaved(error)
        copy.note_unsaved()
        return False
    return gives_up


def _continue(copy: WorkingCopy, record: Record | None) -> None:
    """Continue with what the turn before has left.

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
        copy.load(record)
    elif copy.degraded:
        # Another process may have accepted it in an outage, and not replayed it yet.
        copy.begin(copy.id, owner=copy.owner, create=Create.EITHER, unless_deleted=True)
    elif copy.is_stored:
        raise ConversationInterrupted("The conversation was deleted or has expired.")
