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
    details = dataclasses.asdict(health) if _is_staff(request) else {}
    return JsonResponse({"status": status, **details}, status=200 if is_ready else 503)


@never_cache
@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200. An unavailable store is no reason to restart this process."""
    return JsonResponse({"status": "ok"})


def _is_staff(request: HttpRequest) -> bool:
    """Tell whether the user is staff. False, too, if that takes too long or fails: sessions may be
    in the store that is unavailable."""
    if not request.COOKIES or not hasattr(request, "user"):
        return False
    try:
        return _in_thread(lambda: bool(request.user.is_staff)).result(STAFF_TIMEOUT)
    except Exception:
        return False


class _HealthCache:
    """Asks the store for its health: at most once a second for all requests, in one thread at a
    time, because a custom backend may have no timeout."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._asked: Future[tuple[Health, float]] | None = None  # the answer, and its time

    def get(self) -> Health:
        """Return a health that is at most MAX_AGE old, within HEALTH_TIMEOUT."""
        with self._guard:
            asked = self._asked
            if asked is None or (asked.done() and time.monotonic() - asked.result()[1] >= MAX_AGE):
                asked = self._asked = _in_thread(_ask)
        try:
            return asked.result(HEALTH_TIMEOUT)[0]
        except TimeoutError:
            return _unhealthy("It does not answer.")


def _ask() -> tuple[Health, float]:
    try:
        health = conversations.health()
    except Exception as error:
        health = _unhealthy(type(error).__name__)
    return health, time.monotonic()


def _unhealthy(detail: str) -> Health:
    backend = conversations.backend
    return Health(backend.name, connected=False, detail=detail)


def _in_thread(function: Callable[[], T]) -> "Future[T]":
    """Run `function` in a daemon thread, so that it can be waited for with a timeout."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run_isolated, args=(run,), daemon=True).start()
    return future


_cache = _HealthCache()
