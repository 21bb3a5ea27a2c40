"""A client that hangs up while its view is running. Under ASGI, Django cancels the request then.

An async view is cancelled with it, may clean up, and what it had said is saved. A sync view cannot
be stopped: it runs to its end in its thread, and is saved as if the client were still there. For
that the view runs in a task of its own, because a request that is cancelled never learns what
became of its thread.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final

from asgiref.sync import SyncToAsync, iscoroutinefunction
from django.http import HttpResponseBase

from ..conversation.cancellation import CANCELLED_TIMEOUT, in_background
from . import streaming
from .saving import RequestSaving

# In seconds: how often to see whether the view is known by now.
VIEW_POLL_INTERVAL: Final = 0.05

_MISSING: Final = object()


async def responding(
    work: Coroutine[Any, Any, HttpResponseBase], saving: RequestSaving
) -> HttpResponseBase:
    """Return the response that `work` makes, which runs the view and saves its conversation. Both
    are done before a cancellation is raised; at a second one they go on in the background."""
    context = copy_context()
    task = asyncio.create_task(work, context=context)
    try:
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            ending = in_background(_end(task, saving))
            await asyncio.wait([ending])
            response = ending.result()
            if response is None:
                raise
            return response  # the view has caught the cancellation
        else:
            return task.result()
        finally:
            _adopt(context)
    finally:
        del task  # or an error would be part of a cycle


async def _end(
    task: "asyncio.Task[HttpResponseBase]", saving: RequestSaving
) -> HttpResponseBase | None:
    """Wait for the end of a request that is cancelled. Return the response of a view that has
    caught the cancellation; None: there is nothing to be sent."""
    is_cancelled = await _end_view(task, saving)
    if task.cancelled():
        return None
    response = task.result()
    if is_cancelled:
        return response
    if saving.stream is not None:
        await streaming.end(saving.stream)
    return None


async def _end_view(task: "asyncio.Task[Any]", saving: RequestSaving) -> bool:
    """Wait for the end of the task in which a view runs, and tell whether it was cancelled for
    that. Other middleware may have it before the view is known: not for long, or it is cancelled,
    too."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CANCELLED_TIMEOUT
    while saving.view is None and not task.done() and loop.time() < deadline:
        await asyncio.wait([task], timeout=VIEW_POLL_INTERVAL)
    can_be_cancelled = saving.view is None or iscoroutinefunction(saving.view)
    is_cancelled = can_be_cancelled and not saving.is_answered and task.cancel()
    await asyncio.wait([task])
    return is_cancelled


def responding_in_thread(
    work: Callable[[], HttpResponseBase], saving: RequestSaving
) -> HttpResponseBase:
    """The same for a request that is served by sync code in a thread, between sync middleware. That
    waits for async code of Django's, and asgiref would cancel the task of this."""
    outer: list[Any] | None = getattr(SyncToAsync.threadlocal, "task_context", None)
    if outer is None:  # under WSGI
        return work()
    gate = _Gate(saving)
    SyncToAsync.threadlocal.task_context = gate.tasks
    outer.append(gate)
    try:
        response = work()
    finally:
        outer.remove(gate)
        SyncToAsync.threadlocal.task_context = outer
    if gate.is_closed:
        if saving.stream is not None:
            saving.stream.close()
        raise asyncio.CancelledError
    return response


class _Gate:
    """Stands for the tasks that a thread waits for, in the list of what asgiref cancels and awaits
    when the task that waits for the thread is cancelled."""

    def __init__(self, saving: RequestSaving) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.is_closed = False  # the request was cancelled, and the view was not
        self._saving = saving

    def cancel(self) -> None:
        """See `__await__`."""
        self.is_closed = True

    def __await__(self) -> Generator[Any, None, None]:
        return self._end().__await__()

    async def _end(self) -> None:
        for task in self.tasks[:1]:
            self.is_closed = not await _end_view(task, self._saving)


def _adopt(context: Context) -> None:
    """Take over the context variables that a task has set, as if it had been no task."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(value)
