"""Values in an entry of CACHES, checked so that what is wrong is said both by the system checks and
at run time, and without any part of a URL, which may hold a password."""

import math
import re
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis import asyncio, connection

from ....exceptions import InvalidBackend
from ..errors import CLIENT_ERRORS

MAX_TIMEOUT: Final = 3600.0  # seconds to wait for an answer

# What is about retries and the pool, which we decide, and about what the cache reads and writes,
# where we have bytes.
_NOT_FOR_US: Final = {
    *("auto_close_connection_pool", "max_connections", "queue_class", "retry", "retry_on_error"),
    *("retry_on_timeout", "single_connection_client", "timeout"),
    *("decode_responses", "encoder_class", "encoding", "encoding_errors", "parser_class"),
}
_CONNECTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "redis": (connection.Connection, asyncio.Connection),
    "rediss": (connection.SSLConnection, asyncio.SSLConnection),
    "unix": (connection.UnixDomainSocketConnection, asyncio.UnixDomainSocketConnection),
}


class ConfigError(InvalidBackend):
    """What is wrong with an entry of CACHES, and what to do about it, for the system check `id`."""

    def __init__(self, problem: str, hint: str, id: str = "convstate.E010") -> None:
        super().__init__(f"{problem} {hint}")
        self.problem = problem
        self.hint = hint
        self.id = id


def dictionary(options: Any, name: str) -> dict[str, Any]:
    """Return the options that `name` holds."""
    value = options.get(name) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is no dictionary.", f"Write {name} as {{'name': value}}.")
    return value


def for_clients(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that are not for our clients."""
    return {name: value for name, value in options.items() if name not in _NOT_FOR_US}


def check_seconds(options: dict[str, Any], *names: str) -> None:
    """Refuse what is no finite number of seconds."""
    for name in names:
        value = options[name]
        is_number = type(value) in (int, float) and math.isfinite(value)
        if not is_number or not 0 < value <= MAX_TIMEOUT:
            raise ConfigError(
                f"{name.upper()} must be a number of seconds, more than 0 and at most "
                f"{MAX_TIMEOUT:g}, not {value!r}.",
                "Write 0.25, for 250 ms.",
            )


def check_whole(value: Any, name: str, least: int) -> int:
    """Return `value`, or refuse it where it is no whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise ConfigError(
            f"{name} must be a whole number of at least {least}, not {value!r}.",
            "Leave it out, or write such a number.",
        )
    return value


def check_options(
    options: dict[str, Any], in_query: dict[str, Any], url: str, is_cluster: bool
) -> None:
    """Refuse options that the clients for sync or for async code do not take.

    Args:
        in_query: those that were behind the ? of a URL, where the rest of a password may be.
    """
    # What redis-py does not look at before it needs it.
    for name, least in (("db", 0), ("health_check_interval", 0), ("socket_read_size", 1)):
        check_whole(options.get(name, least), name, least)
    if options.get("protocol") not in (None, 2, 3):
        raise ConfigError("protocol must be 2 or 3.", "Leave it out, or write one of these.")
    scheme = urlsplit(url).scheme
    if scheme != "rediss" and any(str(name).startswith("ssl") for name in options):
        raise ConfigError("OPTIONS are for TLS, and LOCATION is not.", "Write rediss://.")
    kinds = (partial(asyncio.RedisCluster, "any host"),) if is_cluster else _CONNECTIONS[scheme]
    for kind in kinds:
        _check_arguments(kind, options, "OPTIONS", in_query)


def check_sentinel_options(options: dict[str, Any]) -> None:
    """Refuse options that the client of a sentinel does not take."""
    check_seconds(options, *sorted({"socket_timeout", "socket_connect_timeout"} & options.keys()))
    _check_arguments(redis.Redis, options, "SENTINEL_KWARGS", {})


def _check_arguments(
    kind: Any, options: dict[str, Any], where: str, in_query: dict[str, Any]
) -> None:
    """Make a client or a connection of redis-py, which is no I/O."""
    try:
        kind(**options)
    except (TypeError, ValueError, *CLIENT_ERRORS) as error:
        # Of the error nothing is quoted but a name from OPTIONS: the rest may be of a password.
        named = re.search(r"unexpected keyword argument '([^']+)'", str(error))
        name = repr(named[1]) if named and named[1] not in in_query else "something"
        raise ConfigError(
            f"{'LOCATION or ' if in_query else ''}{where} has {name} that no connection to Redis "
            f"takes ({type(error).__name__}).",
            "Leave it out, or mend its spelling. In a password, write ? as %3F.",
        ) from None
