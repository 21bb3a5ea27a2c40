"""An empty store for each test.

In the place of each backend, every store gets one that has nothing in common with it but the
connections: memory of its own, or keys with a prefix of its own. So nothing has to be deleted
before a test, nothing of the project's is touched, and tests that run at the same time do not meet.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import clock
from ..backends import stand_ins
from ..backends.base import ConversationStateBackend
from ..exceptions import BackendUnavailable
from .clients import clients_with_conversations

logger = logging.getLogger("django_convstate")

Backend = ConversationStateBackend


class IsolatedStores:
    """The backends that all stores use for the length of a test. Thread-safe."""

    def __init__(self) -> None:
        self.name = f"test-{secrets.token_hex(6)}"
        self.on_new: list[Callable[[Backend], object]] = []  # called with each new backend
        self._isolated: dict[Backend, Backend] = {}
        self._lock = threading.RLock()

    def stand_in(self, backend: Backend) -> Backend:
        """Return what is to be used in the place of `backend`: the same one each time."""
        with self._lock:
            if backend not in self._isolated:
                isolated = self._isolated[backend] = backend.isolated(self.name)
                for call in self.on_new:
                    call(isolated)
            return self._isolated[backend]

    def backends(self) -> list[Backend]:
        """Return those that are used so far."""
        with self._lock:
            return list(self._isolated.values())

    def erase(self) -> None:
        """Drop all that was stored. What cannot be deleted expires by itself."""
        for backend in self.backends():
            try:
                backend.erase()
            except BackendUnavailable as error:
                logger.warning(
                    "What a test has stored in the %s backend could not be deleted, and is left to "
                    "expire: %s",
                    backend.name,
                    error,
                )


_current: list[IsolatedStores] = []


def current_stores() -> IsolatedStores:
    """Return the stores of the test that runs.

    Raises:
        RuntimeError: none has asked for them.
    """
    if not _current:
        raise RuntimeError(
            "This works in a test with an empty store only: use the pytest fixture "
            "`empty_conversations`, the class `ConversationTestMixin`, or `with empty_store():`."
        )
    return _current[-1]


@contextmanager
def empty_store() -> Iterator[None]:
    """Have every store be empty in a with block, and drop what was stored in it afterwards.

    Test clients have `conversation` and `aconversation()` there. A clock that was moved is put
    right at the end.
    """
    stores, ahead = IsolatedStores(), clock.ahead
    _current.append(stores)
    stand_ins.append(stores.stand_in)
    try:
        with clients_with_conversations():
            yield
    finally:
        clock.set_ahead(ahead)
        try:
            stores.erase()
        finally:
            stand_ins.remove(stores.stand_in)
            _current.remove(stores)
