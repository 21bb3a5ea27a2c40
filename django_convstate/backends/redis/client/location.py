"""The URLs of LOCATION. No message quotes any part of one, which may hold a password."""

from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from redis.connection import parse_url

from .options import ConfigError

_SCHEMES: Final = ("redis", "rediss", "unix")
_EXAMPLES: Final = "redis://host:6379/0, rediss:// for TLS, or unix:///path/to/socket"


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
    """Return a URL without its query, and the options for a client that were in that."""
    parts = _split(url)
    try:
        found = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ConfigError(
            "LOCATION has a value behind its ? that cannot be read.",
            "Write numbers, as in ?db=1 or ?socket_timeout=0.25.",
        ) from None
    in_query = {pair.partition("=")[0] for pair in parts.query.split("&") if pair}
    options = {name: found[name] for name in in_query & found.keys()}
    options.pop("is_master", None)  # django-redis's; we use the primary in any case
    number = options.pop("db", None) if parts.scheme != "unix" else None
    if number is not None:
        parts = parts._replace(path=f"/{number}")
    _check_database(parts, found.get("db"))
    return f"{parts.scheme}://{parts.netloc}{parts.path}", options


def check_cluster(url: str, options: dict[str, Any]) -> None:
    """Refuse what a cluster does not have."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        raise ConfigError(
            "LOCATION is a socket, and a cluster is reached over the network alone.",
            "Write redis://host:6379, or leave out the CONNECTION_FACTORY for a cluster.",
        )
    if number := int(parts.path.strip("/") or 0) or options.get("db"):
        raise ConfigError(
            f"LOCATION or OPTIONS names database {number}, but a cluster has only database 0.",
            "Leave the number out. CONVERSATION_STATE['KEY_PREFIX'] separates projects.",
            "convstate.E012",
        )


def _split(url: str) -> SplitResult:
    if url.partition("://")[0] not in _SCHEMES:
        raise ConfigError("LOCATION has no scheme that Redis knows.", f"Write {_EXAMPLES}.")
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("port")
    except ValueError:
        raise ConfigError(
            "LOCATION has a host or a port that is none.",
            "Write a number from 1 to 65535, as in redis://host:6379/0. In a password, write "
            "/ as %2F, : as %3A, @ as %40 and % as %25.",
        ) from None
    if parts.scheme == "unix" and not parts.path:
        raise ConfigError("LOCATION has no path to a socket.", "Write unix:///path/to/socket.")
    return parts


def _check_database(parts: SplitResult, found: int | None) -> None:
    named = "" if parts.scheme == "unix" else unquote(parts.path).strip("/")
    # redis-py would take /production for database 0, and /1/2 for 12.
    if (named and not (named.isascii() and named.isdigit())) or (found or 0) < 0:
        raise ConfigError(
            "LOCATION names a database that is no number.",
            "Write redis://host:6379/0. CONVERSATION_STATE['KEY_PREFIX'] separates projects.",
        )
