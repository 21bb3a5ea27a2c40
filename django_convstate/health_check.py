"""A check for django-health-check 4:

HealthCheckView.as_view(checks=["django_convstate.health_check.Conversations"])
"""

import dataclasses

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from .store import conversations


@dataclasses.dataclass
class Conversations(HealthCheck):  # type: ignore[misc]
    """The store of conversations: unavailable, or going on in memory, which is a warning."""

    async def run(self) -> None:
        health = await conversations.ahealth()
        if health.using_fallback:
            raise ServiceWarning(health.detail or "Changes are still to be brought home.")
        if not health.connected:
            raise ServiceUnavailable(health.detail)
