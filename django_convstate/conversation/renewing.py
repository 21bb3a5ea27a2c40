"""Renews the lease of a turn for as long as its block runs, if that lasts.

Here is when a lease is renewed, and from which thread or task. How that is done, and how long a
lease is good, is in turn.py.

In asyncio it is a timer of the event loop that starts a task. In sync code the thread of a turn is
busy with the block, so another one has to look at the clock: the watcher, one for all turns of the
process, which sleeps while there are none. It starts a thread for each turn that lasts, so that a
renewal which takes long holds up no other. A turn that ends before starts none.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any, Final

from ..backends.toolkit import forksafe
from ..exceptions import ConversationError

WATCHER: Final = "convstate-watcher"  # the name of its thread, which stays
RETRY_PAUSE: Final = 0.25  # seconds, after which a thread that could not be started is tried again


class ThreadRenewal:
    """Calls `renew` while a `with` block runs, from a thread of its own that the watcher starts.

    That goes on until the block ends or `renew` returns False; after a `ConversationError` there is
    time for another try. Once the block is left, none is under way.
    """

    def __init__(self, renew: Callable[[], bool], after: float, interval: float) -> None:
        """Prepare. The first call is `after` so many seconds, and the others are an `interval`, in
        seconds, apart."""
        self.due = time.monotonic() + after  # when the thread is to be started; inf: it was
        self._renew = renew
        self._interval = interval
        self._is_over = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        _watcher.add(self)

    def __exit__(self, *error: object) -> None:
        # Each says first that it is there, and looks for the other then: so either we see the
        # thread, or it sees that all is over, and renews nothing.
        self._is_over = True
        if not _watcher.remove(self):
            return
        thread = self._thread
        # It may be this one, if the garbage collector closes a generator with a turn in it.
        if thread is not None and thread is not threading.current_thread():
            self._ended.set()
            thread.join()

    def start(self) -> None:
        """Start the thread, or put that off if there is none to be had. For the watcher."""
        self._ended = threading.Event()
        thread = threading.Thread(target=self._run, name="convstate-turn", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # "can't start new thread"
            self.due = time.monotonic() + RETRY_PAUSE
        else:
            self.due = inf

    def _run(self) -> None:
        self._thread = threading.current_thread()
        is_held = True
        while is_held and not self._is_over:
            with suppress(ConversationError):
                is_held = self._renew()
            self._ended.wait(self._interval)


class TaskRenewal:
    """See `ThreadRenewal`. It is a task, and an `async with` block. No generator, because an event
    loop that is closed would close that before the block is done."""

    def __init__(
        self, renew: Callable[[], Coroutine[Any, Any, bool]], after: float, interval: float
    ) -> None:
        """See `ThreadRenewal`."""
        self._renew = renew
        self._after = after
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._after, self._start)

    async def __aexit__(self, *error: object) -> None:
        self._timer.cancel()
        if self._task is not None and not self._task.done():  # as that of a closed event loop is
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="convstate-turn")

    async def _run(self) -> None:
        is_held = True
        while is_held:
            with suppress(ConversationError):
                is_held = await self._renew()
            await asyncio.sleep(self._interval)


class _Watcher:
    """Starts the renewals that are due, from a thread that starts with the first turn.

    There is no lock where turns begin and end: each step is one operation on a set or a flag.
    """

    def __init__(self) -> None:
        self._renewals: set[ThreadRenewal] = set()
        self._next_look = inf  # at the clock
        self._woken = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, renewal: ThreadRenewal) -> None:
        """Watch a renewal until it is removed."""
        self._renewals.add(renewal)
        if renewal.due < self._next_look:  # as if there were no others
            self._woken.set()
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def remove(self, renewal: ThreadRenewal) -> bool:
        """Watch it no more. False: it began in the parent of this process."""
        if renewal not in self._renewals:
            return False
        self._renewals.remove(renewal)
        return True

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            thread = threading.Thread(target=self._run, name=WATCHER, daemon=True)
            with suppress(RuntimeError, MemoryError):  # there is none to be had; the next turn's is
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            self._next_look = inf  # what begins while this looks has it look again
            self._woken.clear()
            self._next_look = due = self._start_due()
            self._woken.wait(None if due == inf else due - time.monotonic())

    def _start_due(self) -> float:
        """Start the renewals that are due, and return when the next one is."""
        now, next_due = time.monotonic(), inf
        for renewal in list(self._renewals):
            if renewal.due <= now:
                renewal.start()
            next_due = min(next_due, renewal.due)
        return next_due


_watcher = _Watcher()


def _reset() -> None:
    global _watcher
    _watcher = _Watcher()


# A child has no threads of its parent, and renews none of the turns that its parent has begun.
forksafe.reset_in_child(_reset)
