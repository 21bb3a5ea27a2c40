"""Health, for load balancers and for people: whether this process can serve conversations (ready),
and whether it runs at all (live). Connected in urls.py.

A process that goes on in memory while the store is away is ready: taken out of service, it could
serve nobody, and all of them would go at once.
"""

import dataclasses
import threading
import time
from contextlib import suppress
from typing import Final

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..backends.records import Health
from ..backends.toolkit.isolation import run_isolated
from ..store import conversations

FRESH: Final = 1.0  # seconds for which an answer is good
PATIENCE: Final = 0.6  # seconds to wait for one
PATIENCE_FOR_STAFF: Final = 0.2


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 if conversations can be served, and 503 if not; for staff, with details."""
    health = _looks.now()
    is_ready = health.connected or (health.using_fallback and not health.is_full)
    status = "unavailable" if not is_ready else "degraded" if health.using_fallback else "ok"
    details = dataclasses.asdict(health) if _is_staff(request) else {}
    return JsonResponse({"status": status, **details}, status=200 if is_ready else 503)


@never_cache
@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200. Whether the store is there is no reason to restart this process."""
    return JsonResponse({"status": "ok"})


def _is_staff(request: HttpRequest) -> bool:
    """Tell whether staff asks, if that can be found out in time: sessions may be in the store that
    is away."""
    if not request.COOKIES or not hasattr(request, "user"):
        return False
    found = []

    def look() -> None:
        with suppress(Exception):
            found.append(bool(request.user.is_staff))

    looking = threading.Thread(target=run_isolated, args=(look,), daemon=True)
    looking.start()
    looking.join(PATIENCE_FOR_STAFF)
    return found == [True]


class _Looks:
    """Looks at the store, at most once a second and for all who ask; and not for ever."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._looking: threading.Thread | None = None
        self._health: Health | None = None
        self._seen_at = 0.0

    def now(self) -> Health:
        with self._guard:
            if self._health is not None and time.monotonic() - self._seen_at < FRESH:
                return self._health
            if self._looking is None:
                # A thread, because a backend of somebody's own may know no time limit.
                self._looking = threading.Thread(target=self._look, daemon=True)
                self._looking.start()
            looking = self._looking
        looking.join(PATIENCE)
        with self._guard:
            if looking.is_alive() or self._health is None:
                return Health(conversations.backend.name, False, detail="It does not answer.")
            return self._health

    def _look(self) -> None:
        try:
            health = run_isolated(conversations.health)
        except Exception as error:
            health = Health(conversations.backend.name, False, detail=type(error).__name__)
        with self._guard:
            self._health, self._seen_at, self._looking = health, time.monotonic(), None


_looks = _Looks()
