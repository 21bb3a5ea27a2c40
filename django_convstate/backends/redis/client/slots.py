"""How long an operation waits for a slot, where as many as CACHES allows are under way."""

import time
from typing import Final

from redis.exceptions import RedisError

from ....exceptions import BackendUnavailable
from .config import ServerConfig

SLOT_TIMEOUT: Final = 5.0  # seconds that an operation may wait for a slot
SILENT_TIMEOUTS: Final = 2  # timeouts without any answer, after which no operation waits any more


class SlotWait:
    """Whether it is worth waiting on for a slot: while the server answers others, or may."""

    def __init__(self, config: ServerConfig) -> None:
        self.interval = config.timeout  # seconds until it is asked again
        self._max_concurrency = config.max_concurrency
        self._answered_at = 0.0

    def note(self, error: object) -> None:
        """Record how an operation has ended."""
        if not isinstance(error, (RedisError, OSError)):
            self._answered_at = time.monotonic()

    def check(self, began: float) -> None:
        """Raise `BackendUnavailable` if an operation that waits since `began`, by
        `time.monotonic()`, has waited long enough."""
        now = time.monotonic()
        silent = now - max(self._answered_at, began) > SILENT_TIMEOUTS * self.interval
        if silent or now - began > SLOT_TIMEOUT:
            raise BackendUnavailable(
                f"{self._max_concurrency} operations on Redis were under way for "
                f"{now - began:.1f} s. If it does answer, raise max_connections in "
                "CONNECTION_POOL_KWARGS."
            )
