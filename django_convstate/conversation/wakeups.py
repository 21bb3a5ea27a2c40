"""Those in this process who wait for a turn, so that the end of one here wakes the next at once.

Who is next, only the store knows, for others wait elsewhere. So this is a hint and no more: whoever
is woken asks the store, and whoever is not woken asks it anyway after a while.
"""

import os
import threading
from collections.abc import Callable
from math import inf


class Waiter:
    """Somebody who stands in a conversation's line, for the length of a `with` block."""

    def __init__(self, id: str, ring: Callable[[], object]) -> None:
        """Stand in the line of conversation `id`; `ring` wakes us, from whichever thread."""
        self.ring = ring
        # The turn for which our place would be the next, in numbers of turns that ended here.
        self.place = inf
        self.woken_at = -1
        self._id = id

    def __enter__(self) -> "Waiter":
        with _guard:
            _rooms.setdefault(self._id, _Room()).waiters.append(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with _guard:
            room = _rooms[self._id]
            room.waiters.remove(self)
            if not room.waiters:
                del _rooms[self._id]
            elif error is not None and self.woken_at == room.ended:
                room.wake()

    def stands_at(self, position: int) -> None:
        """Note how many the store said are before us. If we were woken in vain, it may be somebody
        here who is one of them."""
        with _guard:
            room = _rooms[self._id]
            self.place = room.ended + position
            if self.woken_at == room.ended:
                room.wake(up_to=self.place)


class _Room:
    def __init__(self) -> None:
        self.ended = 0
        self.waiters: list[Waiter] = []

    def wake(self, up_to: float = inf) -> None:
        """Wake the one who seems to be next, of those who have not been since the last turn."""
        candidates = [w for w in self.waiters if w.woken_at != self.ended and w.place <= up_to]
        if candidates:
            waiter = min(candidates, key=lambda waiter: waiter.place)
            waiter.woken_at = self.ended
            waiter.ring()


def turn_ended(id: str) -> None:
    """Wake who may be next in the line of conversation `id`."""
    with _guard:
        if (room := _rooms.get(id)) is not None:
            room.ended += 1
            room.wake()


_guard = threading.Lock()
_rooms: dict[str, _Room] = {}


def _forget_the_parent() -> None:
    global _guard
    _guard = threading.Lock()
    _rooms.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    # A child has none of the threads that were waiting in its parent.
    os.register_at_fork(after_in_child=_forget_the_parent)
