"""Wakes those in this process who wait for a turn, so that the end of one here starts the next at
once.

Only the store knows who is next, for others wait in other processes. So this is a hint: a waiter
that is woken asks the store, and one that is not woken asks it anyway after a while.
"""

from collections.abc import Callable
from math import inf

from ..backends.toolkit import forksafe


class Waiter:
    """A place in a conversation's queue, for the length of a `with` block."""

    def __init__(self, id: str, notify: Callable[[], object]) -> None:
        """Queue for conversation `id`; `notify` wakes us, from any thread."""
        self.notify = notify
        # The turn for which our place would be the next, in numbers of turns that ended here.
        self.place = inf
        self.woken_at = -1
        self._id = id

    def __enter__(self) -> "Waiter":
        with _guard:
            _queues.setdefault(self._id, _Queue()).waiters.append(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with _guard:
            queue = _queues[self._id]
            queue.waiters.remove(self)
            if not queue.waiters:
                del _queues[self._id]
            elif error is not None and self.woken_at == queue.ended:
                queue.wake()

    def at_position(self, position: int) -> None:
        """Note how many the store said are ahead of us. If we were woken in vain, one of them may
        be here."""
        with _guard:
            queue = _queues[self._id]
            self.place = queue.ended + position
            if self.woken_at == queue.ended:
                queue.wake(up_to=self.place)


class _Queue:
    def __init__(self) -> None:
        self.ended = 0
        self.waiters: list[Waiter] = []

    def wake(self, up_to: float = inf) -> None:
        """Wake the one who seems to be next, of those who have not been since the last turn."""
        candidates = [w for w in self.waiters if w.woken_at != self.ended and w.place <= up_to]
        if candidates:
            waiter = min(candidates, key=lambda waiter: waiter.place)
            waiter.woken_at = self.ended
            waiter.notify()


def turn_ended(id: str) -> None:
    """Wake who may be next in the queue of conversation `id`."""
    with _guard:
        if (queue := _queues.get(id)) is not None:
            queue.ended += 1
            queue.wake()


_guard = forksafe.lock()
_queues: dict[str, _Queue] = {}
forksafe.reset_in_child(_queues.clear)  # a child has none of the threads that wait in its parent
