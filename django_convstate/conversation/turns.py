"""A turn of a conversation: it saves, takes the lease, loads, and at the end saves once more and
gives the lease back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

from ..repository import Repository
from ..tracebacks import clear_own_locals
from .turn import Turn
from .working_copy import WorkingCopy


class Saved(Protocol):
    """What a turn is of."""

    def save(self) -> None:
        """Store what has changed."""

    async def asave(self) -> None:
        """See `save`."""


S = TypeVar("S", bound=Saved)


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
        copy.begin_turn(turn.acquire())
        with turn.renewing():
            try:
                yield conversation
                gives_up = copy.stage_last(turn.lease)
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
    send: Callable[[], Awaitable[None]],
) -> AsyncIterator[S]:
    """See `in_turn`."""
    is_released = False
    await conversation.asave()
    turn = Turn(repository, copy.id, wait)  # now, for a receiver may change the id
    copy.enter_turn(turn.lease)
    try:
        copy.begin_turn(await turn.aacquire())
        async with turn.arenewing():
            try:
                yield conversation
                gives_up = copy.stage_last(turn.lease)
            except BaseException:
                copy.discard_changes()
                raise
            await send()
            is_released = gives_up
    except BaseException as error:
        clear_own_locals(error)
        raise
    finally:
        copy.leave_turn()
        await turn.aend(is_released=is_released or bool(copy.pending))
