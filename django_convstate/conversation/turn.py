"""A turn is a lease: queued for, renewed while it is held, and given back at the end. It knows the
id that it is for, and no Conversation.

The queue is the store's (see `acquire` in backends/base.py). A place in it expires after `LEASE`
seconds unless it is renewed, so a turn dies with its process; and what is committed carries the
lease, so a turn that was taken for dead cannot write over the next one.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Literal

from ..backends.records import Record
from ..backends.toolkit.isolation import run_isolated
from ..exceptions import ConversationBusy, ConversationError
from ..repository import Repository
from ..tracebacks import clears_locals
from .wakeups import Waiter, turn_ended

OnBusy = Literal["wait", "reject"]

LEASE: Final = 5.0  # seconds
RENEW_INTERVAL: Final = LEASE / 3
POLL_INTERVAL: Final = 0.25  # seconds, per waiter ahead of us
RELEASE_TIMEOUT: Final = 1.0  # seconds, for the release of a task that is being cancelled


@clears_locals
class Turn:
    """A turn of conversation `id`, from queueing for it to its end."""

    def __init__(self, repository: Repository, id: str, wait: float) -> None:
        """Prepare to wait for at most `wait` seconds."""
        self.id = id
        self.lease = secrets.token_hex(16)
        self._repository = repository
        self._wait = wait
        self._has_begun = False

    def acquire(self) -> Record | None:
        """Wait for the turn, and return the conversation as the turns before have left it.

        Raises:
            ConversationBusy: the turn was not free in time.
        """
        deadline, woken = time.monotonic() + self._wait, threading.Event()
        with Waiter(self.id, woken.set) as waiter:
            while True:
                woken.clear()
                acquired = self._repository.acquire(self.id, self.lease, LEASE)
                if acquired.position == 0:
                    self._has_begun = True
                    return acquired.record
                waiter.at_position(acquired.position)
                woken.wait(_pause(acquired.position, deadline))

    async def aacquire(self) -> Record | None:
        """See `acquire`."""
        deadline, woken = time.monotonic() + self._wait, asyncio.Event()
        wake = partial(_set_from_any_thread, woken, asyncio.get_running_loop())
        with Waiter(self.id, wake) as waiter:
            while True:
                woken.clear()
                acquired = await self._repository.aacquire(self.id, self.lease, LEASE)
                if acquired.position == 0:
                    self._has_begun = True
                    return acquired.record
                waiter.at_position(acquired.position)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_pause(acquired.position, deadline)):
                        await woken.wait()

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew the lease from a thread of its own while the block runs. Should that find it lost,
        the commit will say so."""
        done = threading.Event()

        def renew() -> None:
            is_held = True
            while is_held and not done.wait(RENEW_INTERVAL):
                with suppress(ConversationError):  # there is time for another try
                    is_held = run_isolated(self._repository.renew, self.id, self.lease, LEASE)

        thread = threading.Thread(target=renew, name="convstate-turn", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def arenewing(self) -> "_Renewal":
        """See `renewing`. The lease is renewed by a task."""

        async def renew() -> None:
            is_held = True
            while is_held:
                await asyncio.sleep(RENEW_INTERVAL)
                with suppress(ConversationError):
                    is_held = await self._repository.arenew(self.id, self.lease, LEASE)

        return _Renewal(renew)

    def end(self, *, is_released: bool) -> None:
        """Give the lease back, unless a commit does or did, and wake who may be next."""
        if not is_released:
            with suppress(ConversationError):  # it expires by itself
                self._repository.release(self.id, self.lease)
        if self._has_begun:
            turn_ended(self.id)

    async def aend(self, *, is_released: bool) -> None:
        """See `end`. The lease is given back even if the task is cancelled."""
        try:
            if not is_released:
                await _even_if_cancelled(self._arelease())
        finally:
            if self._has_begun:
                turn_ended(self.id)

    async def _arelease(self) -> None:
        with suppress(ConversationError, TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._repository.arelease(self.id, self.lease)


class _Renewal:
    """Runs a task for as long as a block does. No generator, because an event loop that is closed
    would close that before the block is done."""

    def __init__(self, renew: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._renew = renew

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._renew(), name="convstate-turn")

    async def __aexit__(self, *error: object) -> None:
        if not self._task.done():  # as that of a closed event loop is
            self._task.cancel()
            await asyncio.wait([self._task])


def check_on_busy(on_busy: object) -> None:
    """Raise `ValueError` for what a turn does not take."""
    if on_busy not in ("wait", "reject"):
        raise ValueError(f"on_busy is 'wait' or 'reject', not {on_busy!r}.")


def _set_from_any_thread(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nothing waits there
        loop.call_soon_threadsafe(event.set)


def _pause(position: int, deadline: float) -> float:
    """Return how many seconds to wait before asking again.

    Raises:
        ConversationBusy: the time is up.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise ConversationBusy("Another turn of this conversation is under way.")
    # In time to keep our place.
    return min(POLL_INTERVAL * position, RENEW_INTERVAL, left)


async def _even_if_cancelled(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


_unfinished: Final[set[asyncio.Task[None]]] = set()  # an event loop keeps only weak references
