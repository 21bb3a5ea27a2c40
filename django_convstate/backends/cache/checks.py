"""What the cache backend checks about the entry of CACHES that it is to use. No I/O."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from django.conf import settings
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from ..toolkit.caches import check_timeout, client_options

_CULLING: Final = (BaseDatabaseCache, FileBasedCache, LocMemCache)
ENOUGH_ENTRIES: Final = 10_000  # fewer cannot be meant for conversations


def _check_that_it_keeps(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    if config.get("BACKEND", "").endswith(".DummyCache"):
        yield Error(
            f"CACHES[{alias!r}] is a DummyCache, which keeps nothing.",
            hint="Set CONVERSATION_STATE['CACHE_ALIAS'] to a cache that does.",
            id="convstate.E005",
        )
    ignores = getattr(settings, "DJANGO_REDIS_IGNORE_EXCEPTIONS", False)
    if (config.get("OPTIONS") or {}).get("IGNORE_EXCEPTIONS", ignores):
        yield Error(
            f"CACHES[{alias!r}] ignores exceptions: while Redis is unavailable, every "
            "conversation would look as if it did not exist.",
            hint="Give conversations a CACHES entry of their own, with IGNORE_EXCEPTIONS off.",
            id="convstate.E006",
        )


def _check_replicas(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    location = config.get("LOCATION", "")
    servers = re.split("[;,]", location) if isinstance(location, str) else list(location)
    if config.get("BACKEND", "").endswith(".RedisCache") and len(servers) > 1:
        yield Error(
            f"CACHES[{alias!r}] reads from replicas, which lag behind: what was saved a moment ago "
            "would be overwritten.",
            hint="Give conversations a CACHES entry whose LOCATION is the primary alone.",
            id="convstate.E008",
        )


def _check_repetition(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """Warn of a client that sends a write a second time: it is unknown when the first one comes,
    which may be after what others have committed."""
    if not config.get("BACKEND", "").endswith(".RedisCache"):
        return
    options = client_options(config)
    retry: Any = options.get("retry")
    repeats = (
        retry.get_retries() > 0
        if hasattr(retry, "get_retries")
        # That of a cluster does unless it is told not to.
        else str(options.get("CONNECTION_FACTORY")).endswith("ClusterConnectionFactory")
    )
    if repeats or any(_is_on(options.get(each)) for each in ("retry_on_timeout", "retry_on_error")):
        yield Warning(
            f"CACHES[{alias!r}] sends again what got no answer. If the first one comes late, it "
            "undoes what others have saved meanwhile.",
            hint="Give conversations a CACHES entry without retry_on_timeout and retry_on_error; "
            "for a cluster, with {'retry': Retry(NoBackoff(), 0)} as REDIS_CLIENT_KWARGS. Or use "
            "CONVERSATION_STATE_BACKEND = 'redis'.",
            id="convstate.W014",
        )


def _is_on(option: Any) -> bool:
    # In the URL it is a word, and redis-py reads it so.
    return bool(option) and str(option).upper() not in ("0", "F", "FALSE", "N", "NO")


def check_capacity(alias: str, config: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """Warn of a cache that drops what is in use, because it holds so many entries."""
    try:
        kind = import_string(config.get("BACKEND", ""))
    except (AttributeError, ImportError):
        return
    options = config.get("OPTIONS") or {}
    try:
        capacity = int(options.get("MAX_ENTRIES", config.get("MAX_ENTRIES", 300)))
    except (TypeError, ValueError):
        capacity = 300  # as Django does
    if isinstance(kind, type) and issubclass(kind, _CULLING) and capacity < ENOUGH_ENTRIES:
        yield Warning(
            f"CACHES[{alias!r}] holds {capacity} entries; beyond, it drops conversations that "
            "are still in use.",
            hint="Raise OPTIONS['MAX_ENTRIES'] to more than you will ever have at a time, "
            f"and to {ENOUGH_ENTRIES:,} at least: a conversation takes three at times.",
            id="convstate.W002",
        )


CHECKS: Final[tuple[Callable[[str, Mapping[str, Any]], Iterator[CheckMessage]], ...]] = (
    _check_that_it_keeps,
    _check_replicas,
    lambda alias, config: check_timeout(alias),
    _check_repetition,
    check_capacity,
)
