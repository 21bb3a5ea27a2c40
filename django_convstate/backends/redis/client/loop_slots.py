"""How many tasks of an event loop may do something at once, the others one after the other."""

import asyncio
from collections import deque


class LoopSlots:
    """A semaphore as asyncio's, in fewer calls where no task waits."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot, if there is one."""
        if self._free:
            self._free -= 1
            return True
        return False

    def reserve(self) -> asyncio.Future[None]:
        """Join the queue. Returns a future that is done when its slot has been taken for it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def resign(self, future: asyncio.Future[None]) -> None:
        """Leave the queue, and give the slot back if there is one by now."""
        if not future.cancel():
            self.give_back()

    def give_back(self) -> None:
        """Give a slot back: the task that has waited longest gets it."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # by its cancellation
                future.set_result(None)
                return
        self._free += 1
