"""One turn at a time: whoever comes while a turn of the conversation is under way waits in line,
and begins with what it has left.

The line is the store's (see `acquire` in backends/base.py). A place in it lapses after `LEASE`
seconds unless it is renewed, so a turn dies with its process; and what is committed carries the
lease, so a turn that was taken for dead cannot write over the next one.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from ..backends.base import ConversationStateBackend
from ..backends.records import Record
from ..backends.toolkit.isolation import run_isolated
from ..exceptions import ConversationBusy, ConversationError, ConversationInterrupted
from .wakeups import Waiter, turn_ended

if TYPE_CHECKING:
    from ..store import ConversationStore
    from .conversation import Conversation

OnBusy = Literal["wait", "reject"]

LEASE: Final = 5.0  # seconds
RENEW_EVERY: Final = LEASE / 3
PAUSE: Final = 0.25  # seconds, for each one before us, until we ask again
LAST_WORD: Final = 1.0  # seconds that a task which is being cancelled takes at most for a release


@dataclass(slots=True)
class Turn:
    """A turn of conversation `id`, from standing in line to its end."""

    id: str = field(repr=False)
    lease: str = field(default_factory=partial(secrets.token_hex, 16), repr=False)
    has_begun: bool = False
    is_released: bool = False


@contextmanager
def turn(conversation: "Conversation", on_busy: OnBusy) -> Iterator["Conversation"]:
    """See `Conversation.turn`."""
    store, patience = conversation._store, _patience(conversation, on_busy)
    conversation.save()
    mine = _enter(conversation)
    try:
        _begin(conversation, mine, _acquire(store, mine, patience))
        with _renewing(store.backend, mine):
            try:
                yield conversation
                releases = _pack(conversation, mine)
            except BaseException:
                _forget(conversation)
                raise
            conversation._send()
            mine.is_released = releases
    finally:
        if _leave(conversation, mine):
            _release(store.backend, mine)
        if mine.has_begun:
            turn_ended(mine.id)


@asynccontextmanager
async def aturn(conversation: "Conversation", on_busy: OnBusy) -> AsyncIterator["Conversation"]:
    store, patience = conversation._store, _patience(conversation, on_busy)
    await conversation.asave()
    mine = _enter(conversation)
    try:
        _begin(conversation, mine, await _aacquire(store, mine, patience))
        async with _arenewing(store.backend, mine):
            try:
                yield conversation
                releases = _pack(conversation, mine)
            except BaseException:
                _forget(conversation)
                raise
            await conversation._asend()
            mine.is_released = releases
    finally:
        try:
            if _leave(conversation, mine):
                await _even_if_cancelled(_arelease(store.backend, mine))
        finally:
            if mine.has_begun:
                turn_ended(mine.id)


def check_on_busy(on_busy: object) -> None:
    """Raise `ValueError` for what `turn` does not take."""
    if on_busy not in ("wait", "reject"):
        raise ValueError(f"on_busy is 'wait' or 'reject', not {on_busy!r}.")


def _patience(conversation: "Conversation", on_busy: OnBusy) -> float:
    """Return for how many seconds to wait in line."""
    check_on_busy(on_busy)
    return 0 if on_busy == "reject" else conversation._store.options.turn_wait


def _enter(conversation: "Conversation") -> Turn:
    if conversation._turn is not None:
        raise RuntimeError("This conversation is in a turn already; they cannot be nested.")
    mine = conversation._turn = Turn(conversation.id)
    return mine


def _begin(conversation: "Conversation", mine: Turn, record: Record | None) -> None:
    mine.has_begun = True
    if record is not None:
        conversation._take(record)
    elif conversation._is_stored:
        raise ConversationInterrupted("The conversation was deleted or has expired.")


def _pack(conversation: "Conversation", mine: Turn) -> bool:
    """Pack what has changed, and tell whether to send it gives up the lease."""
    conversation._pack()
    return conversation._outbox.release(mine.lease)


def _forget(conversation: "Conversation") -> None:
    """Go back to what the store holds."""
    conversation._outbox.clear()
    conversation._state.forget_changes()
    conversation.messages.forget_changes()


def _leave(conversation: "Conversation", mine: Turn) -> bool:
    """Tell whether the lease is still to be given up. What could not be sent may be sent once more,
    and does so then."""
    conversation._turn = None
    return not (mine.is_released or conversation._outbox)


# Waiting in line.


def _acquire(store: "ConversationStore", mine: Turn, patience: float) -> Record | None:
    give_up, woken = time.monotonic() + patience, threading.Event()
    with Waiter(mine.id, woken.set) as waiter:
        while True:
            woken.clear()
            acquired = store.acquire(mine.id, mine.lease, LEASE)
            if acquired.position == 0:
                return acquired.record
            waiter.stands_at(acquired.position)
            woken.wait(_pause(acquired.position, give_up))


async def _aacquire(store: "ConversationStore", mine: Turn, patience: float) -> Record | None:
    give_up, woken = time.monotonic() + patience, asyncio.Event()
    with Waiter(mine.id, partial(_set_from_anywhere, woken, asyncio.get_running_loop())) as waiter:
        while True:
            woken.clear()
            acquired = await store.aacquire(mine.id, mine.lease, LEASE)
            if acquired.position == 0:
                return acquired.record
            waiter.stands_at(acquired.position)
            with suppress(TimeoutError):
                async with asyncio.timeout(_pause(acquired.position, give_up)):
                    await woken.wait()


def _set_from_anywhere(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nobody waits there
        loop.call_soon_threadsafe(event.set)


def _pause(position: int, give_up: float) -> float:
    """Return how long to wait before asking again.

    Raises:
        ConversationBusy: the time is up.
    """
    left = give_up - time.monotonic()
    if left <= 0:
        raise ConversationBusy("Another turn of this conversation is under way.")
    # In time to keep our place.
    return min(PAUSE * position, RENEW_EVERY, left)


# Keeping the turn, and giving it back.


@contextmanager
def _renewing(backend: ConversationStateBackend, mine: Turn) -> Iterator[None]:
    """Renew the lease from a thread of its own while the block runs. Should that find it lost, the
    commit will say so."""
    done = threading.Event()

    def renew() -> None:
        is_held = True
        while is_held and not done.wait(RENEW_EVERY):
            with suppress(ConversationError):  # there is time for another try
                is_held = run_isolated(backend.renew, mine.id, mine.lease, LEASE)

    thread = threading.Thread(target=renew, name="convstate-turn", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@asynccontextmanager
async def _arenewing(backend: ConversationStateBackend, mine: Turn) -> AsyncIterator[None]:
    async def renew() -> None:
        is_held = True
        while is_held:
            await asyncio.sleep(RENEW_EVERY)
            with suppress(ConversationError):
                is_held = await backend.arenew(mine.id, mine.lease, LEASE)

    task = asyncio.create_task(renew(), name="convstate-turn")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _release(backend: ConversationStateBackend, mine: Turn) -> None:
    with suppress(ConversationError):  # it lapses by itself
        backend.release(mine.id, mine.lease)


async def _arelease(backend: ConversationStateBackend, mine: Turn) -> None:
    with suppress(ConversationError, TimeoutError):
        async with asyncio.timeout(LAST_WORD):
            await backend.arelease(mine.id, mine.lease)


async def _even_if_cancelled(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


_unfinished: Final[set[asyncio.Task[None]]] = set()  # an event loop keeps only weak references
