"""Values in an entry of CACHES, checked so that what is wrong is said both by the system checks and
at run time, and without any part of a URL, which may hold a password."""

import math
import re
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import redis
from redis import asyncio, connection

from ....exceptions import InvalidBackend
from ..errors import CLIENT_ERRORS

MAX_TIMEOUT: Final = 3600.0  # seconds to wait for an answer
# For each scheme of a URL, redis-py's classes for sync and for async code.
CONNECTION_CLASSES: Final[dict[str, tuple[Any, Any]]] = {
    "redis": (connection.Connection, asyncio.Connection),
    "rediss": (connection.SSLConnection, asyncio.SSLConnection),
    "unix": (connection.UnixDomainSocketConnection, asyncio.UnixDomainSocketConnection),
}

# What is about retries and the pool, which we decide, and about what the cache reads and writes,
# where we have bytes.
_NOT_FOR_US: Final = {
    *("auto_close_connection_pool", "max_connections", "queue_class", "retry", "retry_on_error"),
    *("retry_on_timeout", "single_connection_client", "timeout"),
    *("decode_responses", "encoder_class", "encoding", "encoding_errors", "parser_class"),
}
_EXAMPLES: Final = "redis://host:6379/0, rediss:// for TLS, or unix:///path/to/socket"


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


def urls(location: Any) -> list[str]:
    """Return the URLs of a LOCATION."""
    found = location.split(",") if isinstance(location, str) else location
    if not (
        isinstance(found, (list, tuple)) and found and all(isinstance(url, str) for url in found)
    ):
        raise ConfigError(
            "LOCATION is neither a URL nor a list of URLs.",
            f"Write {_EXAMPLES}; or a list of such.",
        )
    return [url.strip() for url in found]


def read_url(url: str) -> tuple[str, dict[str, Any]]:
    """Return the scheme of a URL, and the options for a connection that are in it."""
    parts = _split(url)
    try:
        found: dict[str, Any] = connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ConfigError(
            "LOCATION has a value after its ? that cannot be read.",
            "Write numbers, as in ?db=1 or ?socket_timeout=0.25.",
        ) from None
    # The scheme says the one; the other is django-redis's, and we use the primary in any case.
    for name in ("connection_class", "is_master"):
        found.pop(name, None)
    named = "" if parts.scheme == "unix" else unquote(parts.path).strip("/")
    # redis-py would take /production for database 0, and /1/2 for 12.
    if (named and not (named.isascii() and named.isdigit())) or found.get("db", 0) < 0:
        raise ConfigError(
            "LOCATION names a database that is no number.",
            "Write redis://host:6379/0. CONVERSATION_STATE['KEY_PREFIX'] separates projects.",
        )
    return parts.scheme, found


def for_clients(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are given and for our clients."""
    found = {n: value for n, value in options.items() if n not in _NOT_FOR_US and value is not None}
    if options.get("ssl_cert_reqs", "") is None:
        found["ssl_cert_reqs"] = "none"  # as redis-py has it: the certificate is not verified
    return found


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
    options: dict[str, Any], in_url: dict[str, Any], scheme: str, is_cluster: bool
) -> None:
    """Refuse options that the clients for sync or for async code do not take.

    Args:
        in_url: those that were in a URL; behind its ? may be the rest of a password.
    """
    # What redis-py does not look at before it needs it.
    for name, least in (("health_check_interval", 0), ("socket_read_size", 1)):
        check_whole(options.get(name, least), name, least)
    if options.get("protocol") not in (None, 2, 3):
        raise ConfigError("protocol must be 2 or 3.", "Leave it out, or write one of these.")
    if scheme != "rediss" and any(str(name).startswith("ssl") for name in options):
        raise ConfigError("OPTIONS are for TLS, and LOCATION is not.", "Write rediss://.")
    kinds = (asyncio.RedisCluster,) if is_cluster else CONNECTION_CLASSES[scheme]
    for kind in kinds:
        _check_arguments(kind, options, "LOCATION or OPTIONS", in_url)


def check_cluster(scheme: str, number: Any) -> None:
    """Refuse what a cluster does not have: a socket, or a database other than 0."""
    if scheme == "unix":
        raise ConfigError(
            "LOCATION is a socket, and a cluster is reached over the network alone.",
            "Write redis://host:6379, or leave out the CONNECTION_FACTORY for a cluster.",
        )
    if number:
        raise ConfigError(
            f"LOCATION or OPTIONS names database {number}, but a cluster has only database 0.",
            "Leave the number out. CONVERSATION_STATE['KEY_PREFIX'] separates projects.",
            "convstate.E012",
        )


def sentinel_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options for the client of a sentinel, or refuse those that it does not take."""
    check_seconds(given, *sorted({"socket_timeout", "socket_connect_timeout"} & given.keys()))
    options = for_clients(given)
    _check_arguments(redis.Redis, options, "SENTINEL_KWARGS", {})
    return options


def _split(url: str) -> SplitResult:
    if url.partition("://")[0] not in CONNECTION_CLASSES:
        raise ConfigError("LOCATION has no scheme that Redis knows.", f"Write {_EXAMPLES}.")
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("port")
    except ValueError:
        raise ConfigError(
            "LOCATION has an invalid host or port.",
            "Write a number from 1 to 65535, as in redis://host:6379/0. In a password, write "
            "/ as %2F, : as %3A, @ as %40 and % as %25.",
        ) from None
    if parts.scheme == "unix" and not parts.path:
        raise ConfigError("LOCATION has no path to a socket.", "Write unix:///path/to/socket.")
    return parts


def _check_arguments(
    kind: Any, options: dict[str, Any], where: str, in_url: dict[str, Any]
) -> None:
    """Make a client or a connection of redis-py, which is no I/O."""
    try:
        kind(**options)
    except (TypeError, ValueError, *CLIENT_ERRORS) as error:
        # Of the error nothing is quoted but a name from OPTIONS: the rest may be of a password.
        named = re.search(r"unexpected keyword argument '([^']+)'", str(error))
        name = repr(named[1]) if named and named[1] not in in_url else "something"
        raise ConfigError(
            f"{where} has {name} that no connection to Redis takes ({type(error).__name__}).",
            "Leave it out, or correct its spelling. In a password, write ? as %3F.",
        ) from None
