"""A check for django-health-check 4:

HealthCheckView.as_view(checks=["django_convstate.health_check.Conversations"])
"""

import dataclasses

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from .store import conversations


@dataclasses.dataclass
class Conversations(HealthCheck):  # type: ignore[misc]
    """Whether the store of conversations is available. Serving from memory is a warning."""

    async def run(self) -> None:
        """Raise what django-health-check shows; nothing if all is well."""
        health = await conversations.ahealth()
        if health.using_fallback and not health.is_misconfigured:
            raise ServiceWarning(
                health.detail or "Changes made in memory are yet to be replayed to the store."
            )
        if not health.connected:
            raise ServiceUnavailable(health.detail)
