"""What the backends on an entry of CACHES check alike."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.core.cache.backends.base import default_key_func, get_key_func
from django.core.checks import CheckMessage, Error, Warning


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


def client_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entry for Redis tells its client, in OPTIONS or in the URL."""
    options = config.get("OPTIONS") or {}
    location = config.get("LOCATION") or ""
    url = location if isinstance(location, str) else str([*location, ""][0])
    return {
        **options,
        **(options.get("REDIS_CLIENT_KWARGS") or {}),
        **(options.get("CONNECTION_POOL_KWARGS") or {}),
        **dict(parse_qsl(url.partition("?")[2])),
    }


def check_timeout(alias: str) -> Iterator[CheckMessage]:
    """Check that an entry for Redis, Django's own or django-redis's, says how long to wait."""
    config: Any = settings.CACHES[alias]
    if config.get("BACKEND", "").endswith(".RedisCache") and not any(
        seconds
        for name, seconds in client_options(config).items()
        if name.lower() == "socket_timeout"
    ):
        yield Warning(
            f"CACHES[{alias!r}] has no socket timeout: when the server falls silent, this cache "
            "stops requests for as long as its client's defaults say.",
            hint="Set OPTIONS['SOCKET_TIMEOUT'] and OPTIONS['SOCKET_CONNECT_TIMEOUT'] (in small "
            "letters for Django's own RedisCache) to seconds, e.g. 0.25.",
            id="convstate.W003",
        )


def check_key_function(alias: str) -> Iterator[CheckMessage]:
    """Check that an entry has no KEY_FUNCTION, where the keys are made without it."""
    entry: Any = settings.CACHES[alias]
    try:
        is_default = get_key_func(entry.get("KEY_FUNCTION")) is default_key_func
    except (AttributeError, ImportError):
        is_default = False  # the cache itself cannot be used with it
    if not is_default:
        yield Error(
            f"CACHES[{alias!r}] has a KEY_FUNCTION, which this backend does not apply: what it "
            "keeps apart, tenants, say, would share conversations.",
            hint="Set CACHE_ALIAS to an entry without KEY_FUNCTION, and have `get_store` of a "
            "subclass of ConversationMiddleware return a store with a KEY_PREFIX of its own for "
            "each tenant. Or use CONVERSATION_STATE_BACKEND = 'cache', which applies it.",
            id="convstate.E023",
        )
