"""The client of all threads of a process."""

import queue
import time
from typing import Any

from ..operations import Operation
from .config import ServerConfig
from .deadline import Deadline
from .factory import make_client, sentinels_of
from .retrying import execute, execute_in_cluster, retrying
from .slots import SlotWait


class SyncClient:
    """redis-py's client, with a limit of operations that are under way at once: `with` waits for a
    slot."""

    def __init__(self, config: ServerConfig) -> None:
        self.redis = make_client(config)
        self._deadline = Deadline(config.timeout)
        self._tries = config.tries
        self._execute = execute_in_cluster if config.is_cluster else execute
        self._wait = SlotWait(config)
        # A semaphore, whose items are the slots: in C, and so ten times faster than threading's.
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(config.max_concurrency):
            self._slots.put(None)

    def __enter__(self) -> "SyncClient":
        began = time.monotonic()
        while True:
            try:
                self._slots.get(timeout=self._wait.interval)
            except queue.Empty:
                self._wait.check(began)
            else:
                return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._slots.put(None)
        self._wait.note(error)

    def send(self, operation: Operation[Any]) -> Any:
        """Return the server's reply. Needs a slot."""
        return retrying(self.redis, self._tries, self._deadline, self._execute, operation)

    def close(self) -> None:
        """Close all connections."""
        for each in (self.redis, *sentinels_of(self.redis)):
            each.close()
