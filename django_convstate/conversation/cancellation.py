"""Saving what was said although the task that said it is cancelled: under ASGI, when a client hangs
up."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ..exceptions import BackendUnavailable

logger = logging.getLogger("django_convstate")

T = TypeVar("T")

# Seconds that a task which is cancelled, or a stream that has ended, waits for a save.
CANCELLED_TIMEOUT: Final = 5.0

# An event loop keeps only weak references to its tasks.
_background: Final[set["asyncio.Task[Any]"]] = set()


def in_background(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Run `work` in a task of its own, which is kept until it has ended."""
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def uncancelled(work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
    """Await `work` to its end, even if this task is cancelled meanwhile, once or more often. The
    cancellation is raised afterwards, and an error of `work` is only logged then.

    Args:
        seconds: the limit for `work`; None: CANCELLED_TIMEOUT, counted from a cancellation.

    Raises as `work` does, and:
        BackendUnavailable: the time was up, and `work` was cancelled.
    """
    task = in_background(work if seconds is None else _in_time(work, seconds))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancelled is None and seconds is None:
                asyncio.get_running_loop().call_later(CANCELLED_TIMEOUT, task.cancel)
            cancelled = error
    if cancelled is None:
        return task.result()
    failed = _late(CANCELLED_TIMEOUT) if task.cancelled() else task.exception()
    if failed is not None:
        log_unsaved(failed)
    raise cancelled


async def _in_time(work: Coroutine[Any, Any, T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise _late(seconds) from None


def _late(seconds: float) -> BackendUnavailable:
    return BackendUnavailable(f"The store gave no answer within {seconds} s.")


def log_unsaved(error: BaseException) -> None:
    """Log that what a client had said when it hung up could not be saved."""
    logger.error(
        "A client has hung up, and its conversation was not saved. %s: %s",
        type(error).__name__,
        error,
    )
