"""Health views for load balancers and operators: whether this process can serve conversations
(ready), and whether it runs at all (live). Connected in urls.py.

A process that serves from memory while the store is unavailable is ready: taken out of service it
could serve no client, and all processes would be taken out at once. One that has never reached the
store, or whose login is refused, is not: that is a wrong setting, and no outage.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..backends.reports import Health
from ..backends.toolkit.isolation import run_isolated
from ..store import conversations

T = TypeVar("T")

# In seconds.
MAX_AGE: Final = 1.0  # of an answer that is given again
HEALTH_TIMEOUT: Final = 0.6
STAFF_TIMEOUT: Final = 0.2


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 if conversations can be served, and 503 if not; for staff, with details."""
    health = _cache.get()
    serves_from_memory = health.using_fallback and not (health.is_full or health.is_misconfigured)
    is_ready = health.connected or serves_from_memory
    status = "unavailable" if not is_ready else "degraded" if health.using_fallback else "ok"
    details = dataclasses.asdict(health) if _staff_check.is_staff(request) else {}
    return JsonResponse({"status": status, **details}, status=200 if is_ready else 503)


@never_cache
@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200. An unavailable store is no reason to restart this process."""
    return JsonResponse({"status": "ok"})


class _StaffCheck:
    """Looks whether the user is staff, in one thread at a time: where the store of the sessions
    hangs, a thread that waits for it cannot be stopped, and any client can send a cookie."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._started_at = 0.0

    def is_staff(self, request: HttpRequest) -> bool:
        """Tell whether the user is staff, within STAFF_TIMEOUT. False, too, if that takes too long
        or fails: sessions may be in the store that is unavailable."""
        if not request.COOKIES or not hasattr(request, "user"):
            return False
        deadline = time.monotonic() + STAFF_TIMEOUT
        # What has taken too long already is not waited for again.
        if not self._guard.acquire(timeout=_left_of(STAFF_TIMEOUT, self._started_at)):
            return False
        self._started_at = time.monotonic()
        asked = _in_thread(lambda: bool(request.user.is_staff))
        asked.add_done_callback(lambda _: self._guard.release())
        try:
            return asked.result(max(0.0, deadline - time.monotonic()))
        except Exception:
            return False


class _HealthCache:
    """Asks the store for its health: at most once a second for all requests, in one thread at a
    time, because a custom backend may have no timeout."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._asked: Future[tuple[Health, float]] | None = None  # the answer, and its time
        self._asked_at = 0.0

    def get(self) -> Health:
        """Return a health that is at most MAX_AGE old, within HEALTH_TIMEOUT; at once, if the store
        has not answered for longer than that."""
        with self._guard:
            asked = self._asked
            if asked is None or _is_old(asked):
                self._asked_at = time.monotonic()
                asked = self._asked = _in_thread(_ask)
            timeout = _left_of(HEALTH_TIMEOUT, self._asked_at)
        try:
            return asked.result(timeout)[0]
        except TimeoutError:
            return _unhealthy("It does not answer.")
        except Exception as error:
            return _unhealthy(type(error).__name__)


def _ask() -> tuple[Health, float]:
    try:
        health = conversations.health()
    except Exception as error:
        health = _unhealthy(type(error).__name__)
    return health, time.monotonic()


def _is_old(asked: "Future[tuple[Health, float]]") -> bool:
    if not asked.done():
        return False
    has_failed = asked.exception() is not None  # the thread could not be started
    return has_failed or time.monotonic() - asked.result()[1] >= MAX_AGE


def _unhealthy(detail: str) -> Health:
    backend = conversations.backend
    return Health(backend.name, connected=False, detail=detail)


def _in_thread(function: Callable[[], T]) -> "Future[T]":
    """Run `function` in a daemon thread, so that it can be waited for with a timeout. An error, of
    the start of the thread, too, is that of the future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(run_isolated(function))
        except BaseException as error:
            future.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:  # there are too many threads
        future.set_exception(error)
    return future


def _left_of(timeout: float, started_at: float) -> float:
    """Return how many seconds are left, at least 0, of a timeout that began at `started_at`."""
    return max(0.0, started_at + timeout - time.monotonic())


_cache = _HealthCache()
_staff_check = _StaffCheck()
