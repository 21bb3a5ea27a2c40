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
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal

from ..backends.records import Record
from ..backends.toolkit.isolation import run_isolated
from ..exceptions import ConversationBusy, ConversationError
from ..repository import Repository
from ..tracebacks import clears_locals
from .renewing import TaskRenewal, ThreadRenewal
from .wakeups import Waiter, turn_ended

OnBusy = Literal["wait", "reject"]

LEASE: Final = 5.0  # seconds
RENEW_AFTER: Final = 1.0  # seconds; a turn that ends before is not renewed
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

    def renewing(self) -> ThreadRenewal:
        """Return a context manager that renews the lease while its block runs, if that lasts.
        Should the lease be lost, the commit will say so."""
        return ThreadRenewal(self._renew, RENEW_AFTER, RENEW_INTERVAL)

    def arenewing(self) -> TaskRenewal:
        """See `renewing`."""
        return TaskRenewal(self._arenew, RENEW_AFTER, RENEW_INTERVAL)

    def _renew(self) -> bool:
        return run_isolated(self._repository.renew, self.id, self.lease, LEASE)

    async def _arenew(self) -> bool:
        return await self._repository.arenew(self.id, self.lease, LEASE)

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
