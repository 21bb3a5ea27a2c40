"""What asks the channel layer, and goes on without it.

A circuit breaker for the process: after one failure nothing asks the layer, and costs time for it,
until one thread has found that it is back. What could not be told meanwhile is told then, as far as
that takes no more than to say which conversations to read again: no message is lost with the layer,
because messages are in the store.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from .backends.toolkit import forksafe
from .backends.toolkit.isolation import run_isolated

logger = logging.getLogger("django_convstate")

# In seconds. Requests and sockets go on without a layer that is unavailable.
LAYER_TIMEOUT: Final = 1.0
LAYER_RETRY_PAUSE: Final = 5.0
MAX_PENDING: Final = 10_000  # of what is told later; more is read with the next message of a client

Operation = Callable[[], Awaitable[None]]
# What a caller has got wrong says nothing about the layer.
_MISTAKES: Final = (TypeError, ValueError, AssertionError)


class LayerBreaker:
    """Whether the channel layer is asked in this process."""

    def __init__(self) -> None:
        self._lock = forksafe.lock()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all: in a forked process, where the thread that asks the layer is not."""
        self.is_open = False
        self._era = object()  # changes when all is forgotten
        # What is done when the layer is back, and in which event loop, if that still runs.
        self._pending: dict[Hashable, tuple[asyncio.AbstractEventLoop | None, Operation]] = {}

    async def attempt(self, operation: Operation, key: Hashable, later: Operation) -> bool:
        """Do something with the layer, and tell whether that succeeded. It does not raise.

        Args:
            key: of two operations with the same key the last one is done later.
            later: is done in its place when the layer is back.
        """
        if not self.is_open:
            try:
                async with asyncio.timeout(LAYER_TIMEOUT):
                    await operation()
            except _MISTAKES as error:
                logger.warning("The channel layer was given what it does not take: %r", error)
                return False
            except Exception as error:
                self.failed(error)
            else:
                return True
        self.postpone(key, later, asyncio.get_running_loop())
        return False

    def failed(self, error: Exception) -> None:
        """Ask the layer no more, until one thread has found that it is back."""
        with self._lock:
            if self.is_open:
                return
            self.is_open = True
        try:
            threading.Thread(target=run_isolated, args=(self._recover,), daemon=True).start()
        except RuntimeError:
            self.is_open = False  # the next one that needs the layer tries again
        logger.warning(
            "The channel layer is unavailable: %r. Open websockets are not told what others have "
            "saved until it is back; nothing is lost. See CHANNEL_LAYERS.",
            error,
        )

    def postpone(
        self, key: Hashable, later: Operation, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        """Do something when the layer is back, in an event loop if that still runs."""
        with self._lock:
            if len(self._pending) < MAX_PENDING or key in self._pending:
                self._pending[key] = loop, later

    def forget(self, key: Hashable) -> None:
        """Do not do it any more."""
        self._pending.pop(key, None)

    def _recover(self) -> None:
        began, era = time.monotonic(), self._era
        while True:
            time.sleep(LAYER_RETRY_PAUSE)
            if era is not self._era:
                return
            try:
                _run(None, _probe)
                while self._pending:
                    self._do_one()
            except Exception:
                logger.debug("The channel layer is still unavailable.", exc_info=True)
                continue
            with self._lock:
                if not self._pending:
                    self.is_open = False
                    break
        logger.warning("The channel layer is back after %.1f s.", time.monotonic() - began)

    def _do_one(self) -> None:
        with self._lock:
            key = next(iter(self._pending))
            loop, later = self._pending.pop(key)
        try:
            _run(loop, later)
        except _MISTAKES:
            logger.warning("The channel layer was given what it does not take.", exc_info=True)
        except Exception:
            with self._lock:
                self._pending.setdefault(key, (loop, later))
            raise


def _run(loop: asyncio.AbstractEventLoop | None, operation: Operation) -> None:
    """Do something in the loop, since a layer in memory wakes consumers in its own one only; in a
    new one where that does not run any more."""

    async def run() -> None:
        async with asyncio.timeout(LAYER_TIMEOUT):
            await operation()

    if loop is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(run(), loop).result(2 * LAYER_TIMEOUT)
    else:
        asyncio.run(run())


async def _probe() -> None:
    from channels.layers import get_channel_layer

    if (layer := get_channel_layer()) is not None:
        await layer.group_send("convstate.probe", {"type": "conversation.probe"})


breaker = LayerBreaker()
forksafe.reset_in_child(breaker.begin_anew)
