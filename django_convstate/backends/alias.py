"""What the backends on an entry of CACHES check alike."""

from django.conf import settings
from django.core.checks import CheckMessage, Error


def check_alias(alias: str) -> list[CheckMessage]:
    """Check that CACHES has the entry. No I/O."""
    if alias in settings.CACHES:
        return []
    return [
        Error(
            f"CONVERSATION_STATE['CACHE_ALIAS'] is {alias!r}, which is not in CACHES.",
            hint=f"Known are {', '.join(map(repr, settings.CACHES))}.",
            id="convstate.E004",
        )
    ]
