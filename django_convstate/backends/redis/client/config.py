"""What an entry of CACHES says about the server, read so that whatever is wrong with it is said in
words, at the check and at run time, and without any part of a URL, which may hold a password."""

import inspect
import math
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import redis.asyncio.connection as asynchronous
import redis.connection as synchronous
from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster

from ....exceptions import InvalidBackend

LONGEST: Final = 3600.0  # seconds to wait for an answer

# These are about retries and the pool, which are ours to decide,
_OURS: Final = {
    "auto_close_connection_pool",
    "max_connections",
    "queue_class",
    "retry",
    "retry_on_error",
    "retry_on_timeout",
    "single_connection_client",
    "timeout",
}
# and these about what the cache reads and writes, where we have bytes.
_OF_THE_CACHE: Final = {
    "decode_responses",
    "encoder_class",
    "encoding",
    "encoding_errors",
    "parser_class",
}
_NOT_FOR_US: Final = _OURS | _OF_THE_CACHE
_CONNECTIONS: Final = {
    "redis": (synchronous.Connection, asynchronous.Connection),
    "rediss": (synchronous.SSLConnection, asynchronous.SSLConnection),
    "unix": (synchronous.UnixDomainSocketConnection, asynchronous.UnixDomainSocketConnection),
}
_SCHEMES: Final = "redis://host:6379/0, rediss:// for TLS, or unix:///path/to/socket"


class Unreadable(InvalidBackend):
    """What is wrong with an entry, for people and for the system check `id`."""

    def __init__(self, problem: str, hint: str, id: str = "convstate.E010") -> None:
        super().__init__(f"{problem} {hint}")
        self.problem = problem
        self.hint = hint
        self.id = id


def dictionary(options: Any, name: str) -> dict[str, Any]:
    """Return the options that `name` holds."""
    value = options.get(name) or {}
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is no dictionary.", f"Write {name} as {{'name': value}}.")
    return value


def for_clients(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that are not for our clients."""
    return {name: value for name, value in options.items() if name not in _NOT_FOR_US}


def urls(location: Any) -> list[str]:
    """Return the URLs of a LOCATION."""
    found = location.split(",") if isinstance(location, str) else location
    if not (
        isinstance(found, (list, tuple)) and found and all(isinstance(url, str) for url in found)
    ):
        raise Unreadable(
            "LOCATION is neither a URL nor a list of URLs.", f"Write {_SCHEMES}; or a list of such."
        )
    return [url.strip() for url in found]


def read_url(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL without its query, and the options for a client that were in that."""
    parts = _split(url)
    try:
        found = synchronous.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise Unreadable(
            "LOCATION has a value behind its ? that cannot be read.",
            "Write numbers, as in ?db=1 or ?socket_timeout=0.25.",
        ) from None
    in_query = {pair.partition("=")[0] for pair in parts.query.split("&") if pair}
    options = {name: found[name] for name in in_query & found.keys()}
    options.pop("is_master", None)  # django-redis's; we are with the primary in any case
    number = options.pop("db", None) if parts.scheme != "unix" else None
    if number is not None:
        parts = parts._replace(path=f"/{number}")
    _refuse_bad_database(parts, found.get("db"))
    return f"{parts.scheme}://{parts.netloc}{parts.path}", options


def _split(url: str) -> SplitResult:
    good_port = False
    scheme = url.partition("://")[0]
    if scheme not in _CONNECTIONS:
        raise Unreadable("LOCATION has no scheme that Redis knows.", f"Write {_SCHEMES}.")
    try:
        parts = urlsplit(url)
        good_port = parts.port is None or parts.port > 0
    except ValueError:
        pass
    if not good_port:
        raise Unreadable(
            "LOCATION has a host or a port that is none.",
            "Write a number from 1 to 65535, as in redis://host:6379/0. In a password, write "
            "/ as %2F, : as %3A, @ as %40 and % as %25.",
        )
    if scheme == "unix" and not parts.path:
        raise Unreadable("LOCATION has no path to a socket.", "Write unix:///path/to/socket.")
    return parts


def _refuse_bad_database(parts: SplitResult, found: int | None) -> None:
    named = "" if parts.scheme == "unix" else unquote(parts.path).strip("/")
    # The client would take /production for database 0, and /1/2 for 12.
    if (named and not (named.isascii() and named.isdigit())) or (found or 0) < 0:
        raise Unreadable(
            "LOCATION names a database that is no number.",
            "Write redis://host:6379/0. CONVERSATION_STATE['KEY_PREFIX'] keeps projects apart.",
        )


def check_cluster(url: str, kwargs: dict[str, Any]) -> None:
    """Refuse what a cluster does not have."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        raise Unreadable(
            "LOCATION is a socket, and a cluster is reached over the network alone.",
            "Write redis://host:6379, or leave out the CONNECTION_FACTORY for a cluster.",
        )
    if number := int(parts.path.strip("/") or 0) or kwargs.get("db"):
        raise Unreadable(
            f"LOCATION or OPTIONS names database {number}, but a cluster has only database 0.",
            "Leave the number out. CONVERSATION_STATE['KEY_PREFIX'] keeps projects apart.",
            "convstate.E012",
        )


def check_names(
    kwargs: dict[str, Any], in_query: dict[str, Any], url: str, is_cluster: bool
) -> None:
    """Refuse options that not both kinds of our clients take, for sync and for async code."""
    scheme = urlsplit(url).scheme
    known = set.intersection(*map(_parameters, _CONNECTIONS[scheme]))
    if is_cluster:
        known = (known | _parameters(RedisCluster)) & _parameters(AsyncRedisCluster)
    for name in sorted(map(str, kwargs.keys() - known)):
        if name.startswith("ssl_") and scheme != "rediss":
            raise Unreadable(f"{name} is for TLS, and LOCATION is not.", "Write rediss://.")
        # Behind the ? may be the rest of a password, so that a name there is not quoted.
        where = (
            "LOCATION has something behind its ?" if name in in_query else f"OPTIONS has {name!r}"
        )
        raise Unreadable(
            f"{where}, which no connection to Redis takes.",
            "Leave it out, or mend its spelling. In a password, write ? as %3F.",
        )


def check_sentinel_kwargs(kwargs: dict[str, Any]) -> None:
    check_seconds(kwargs, *sorted({"socket_timeout", "socket_connect_timeout"} & kwargs.keys()))
    for name in sorted(kwargs.keys() - _parameters(Redis)):
        raise Unreadable(
            f"SENTINEL_KWARGS has {name!r}, which no client of a sentinel takes.",
            "Leave it out, or mend its spelling.",
        )


def check_seconds(kwargs: dict[str, Any], *names: str) -> None:
    for name in names:
        value = kwargs[name]
        if type(value) not in (int, float) or not (math.isfinite(value) and 0 < value <= LONGEST):
            raise Unreadable(
                f"{name.upper()} must be a number of seconds, more than 0 and at most "
                f"{LONGEST:g}, not {value!r}.",
                "Write 0.25, for 250 ms.",
            )


def check_numbers(kwargs: dict[str, Any]) -> None:
    for name, least in (("db", 0), ("health_check_interval", 0), ("socket_read_size", 1)):
        whole(kwargs.get(name, least), name, least)
    if kwargs.get("protocol") not in (None, 2, 3):
        raise Unreadable("protocol must be 2 or 3.", "Leave it out, or write one of these.")


def whole(value: Any, name: str, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise Unreadable(
            f"{name} must be a whole number of at least {least}, not {value!r}.",
            "Leave it out, or write such a number.",
        )
    return value


def _parameters(kind: type) -> set[str]:
    makers = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each)]
    return {name for maker in makers for name in inspect.signature(maker).parameters} - {
        "self",
        "args",
        "kwargs",
    }
