"""System checks for the redis backend: what CACHES says, without asking the server, and what the
server says, with `check --deploy`."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from ...exceptions import InvalidBackend
from ..alias import check_alias
from .connections import Clients, Place
from .errors import in_words
from .inspection import OLDEST, look_at

SCHEMES = {"redis", "rediss", "unix"}


def check_place(alias: str) -> list[CheckMessage]:
    """Check the entry of CACHES. No I/O."""
    if missing := check_alias(alias):
        return missing
    config: Any = settings.CACHES[alias]
    if not str(config.get("BACKEND", "")).startswith("django_redis."):
        return [
            Error(
                f"CACHES[{alias!r}] is not django-redis, through which the redis backend connects.",
                hint="Set its BACKEND to 'django_redis.cache.RedisCache', or use "
                "CONVERSATION_STATE_BACKEND = 'cache'.",
                id="convstate.E009",
            )
        ]
    try:
        place = Place.of(alias)
    except (ImportError, InvalidBackend, TypeError, ValueError) as error:
        return [Error(f"CACHES[{alias!r}] cannot be read: {error}", id="convstate.E010")]
    return [*_check_url(alias, place), *_check_timeout(alias, config.get("OPTIONS") or {})]


def _check_url(alias: str, place: Place) -> Iterator[CheckMessage]:
    name = f"CACHES[{alias!r}]['LOCATION']"
    url = urlsplit(place.url)
    if url.scheme not in SCHEMES:
        yield Error(
            f"{name} has no scheme that Redis knows.",
            hint="Write redis://host:6379/0, rediss:// for TLS, or unix:///path/to/socket.",
            id="convstate.E010",
        )
        return
    if not _has_good_port(url):
        yield Error(f"{name} has a port that is none.", id="convstate.E010")
        return
    if place.sentinels and not url.hostname:
        yield Error(
            f"{name} names no service for Sentinel to look up.",
            hint="Write redis://SERVICE_NAME/0, as in the sentinels' configuration.",
            id="convstate.E011",
        )
    if place.is_cluster and url.path.strip("/") not in ("", "0"):
        yield Error(
            f"{name} names database {url.path.strip('/')}, but a cluster has only database 0.",
            id="convstate.E012",
        )
    if place.is_cluster and place.sentinels:
        yield Error(
            f"CACHES[{alias!r}] is a cluster and has SENTINELS; it is either the one or the other.",
            id="convstate.E013",
        )


def _has_good_port(url: SplitResult) -> bool:
    try:
        return url.port is None or url.port > 0
    except ValueError:
        return False


def _check_timeout(alias: str, options: dict[str, Any]) -> Iterator[CheckMessage]:
    pool = options.get("CONNECTION_POOL_KWARGS") or {}
    if not (options.get("SOCKET_TIMEOUT") or pool.get("socket_timeout")):
        yield Warning(
            f"CACHES[{alias!r}] has no SOCKET_TIMEOUT. The conversations do, of 250 ms; the cache "
            "of the same entry waits as long as its client's defaults say.",
            hint="Set OPTIONS['SOCKET_TIMEOUT'] and OPTIONS['SOCKET_CONNECT_TIMEOUT'], in seconds.",
            id="convstate.W003",
        )


def check_server(alias: str) -> Iterator[CheckMessage]:
    """Ask the server whether it is fit to keep conversations."""
    clients = Clients(alias)
    try:
        server = look_at(clients.turn().redis)
    except Exception as error:
        yield Warning(f"Redis, CACHES[{alias!r}], {in_words(error)}.", id="convstate.W004")
        return
    finally:
        clients.close()
    if server.version and server.version < OLDEST:
        yield Error(
            f"Redis {'.'.join(map(str, server.version))} is too old.",
            hint="Use Redis 6.2 or later, or Valkey.",
            id="convstate.E014",
        )
    if server.role in ("slave", "replica"):
        yield Error(f"CACHES[{alias!r}] is a replica, which takes no writes.", id="convstate.E015")
    if server.policy and server.policy != "noeviction":
        yield Warning(
            f"The memory policy is {server.policy}: when memory is short, conversations that are "
            "still in use go.",
            hint="Set maxmemory-policy to noeviction, on a server that is not a cache as well.",
            id="convstate.W005",
        )
    if server.maxmemory == 0:
        yield Warning(
            "The server has no maxmemory: short of memory, the system ends it.",
            hint="Set maxmemory to what the machine can spare.",
            id="convstate.W006",
        )
