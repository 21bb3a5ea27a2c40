"""What an entry of CACHES says about the server.

It is django-redis's, and says where the server is and how to log in. What it leaves out redis-py
would take from defaults that let a request hang for a minute: here every wait is finite.
"""

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.module_loading import import_string
from django_redis.pool import ConnectionFactory

from ....exceptions import InvalidBackend
from ..cluster import ClusterConnectionFactory
from . import location
from .options import (
    check_options,
    check_seconds,
    check_sentinel_options,
    check_whole,
    dictionary,
    for_clients,
)

DEFAULT_TIMEOUT: Final = 0.25  # seconds for one answer, unless CACHES says otherwise
DEFAULT_MAX_CONCURRENCY: Final = 50  # operations, unless CACHES says otherwise
REPLY_SHARE: Final = 0.95  # of that time a reply is waited for; the rest is for giving up
MIN_DISCOVERY_TIMEOUT: Final = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where a server is and how to log in.

    Attributes:
        urls: LOCATION, without queries. Of others than the first only a cluster makes use.
        sentinels: pairs (host, port); none where Sentinel is not asked.
        sentinel_kwargs: options for redis-py's clients of the sentinels.
        is_cluster: whether it is a cluster, of which the URLs name some nodes.
        max_concurrency: how many operations one process has under way at once.
        kwargs: options for redis-py's clients.
    """

    # Passwords stay out of the repr: from there they get into logs and tracebacks.
    urls: tuple[str, ...] = field(repr=False)
    sentinels: tuple[tuple[str, int], ...]
    sentinel_kwargs: dict[str, Any] = field(repr=False)
    is_cluster: bool
    max_concurrency: int
    kwargs: dict[str, Any] = field(repr=False)

    @property
    def url(self) -> str:
        """The first URL."""
        return next(iter(self.urls), "")

    @property
    def service(self) -> str:
        """With Sentinel, the name of the service; "" if there is none."""
        return urlsplit(self.url).hostname or ""

    @property
    def timeout(self) -> float:
        """How long a reply is waited for, in seconds, so that an operation takes no longer than
        its time."""
        return REPLY_SHARE * float(self.kwargs["socket_timeout"])

    @property
    def discovery_timeout(self) -> float:
        """How long a cluster may take to tell where its nodes are, in seconds: that is not a part
        of an operation."""
        return max(MIN_DISCOVERY_TIMEOUT, self.timeout)

    @property
    def tries(self) -> int:
        """How often a command is sent while its connection breaks. On a cluster, an error in one
        task or thread breaks the connections of others, and a topology may change twice."""
        return 5 if self.is_cluster else 2

    @classmethod
    def from_alias(cls, alias: str) -> "ServerConfig":
        """Read CACHES[alias].

        Raises:
            InvalidBackend: there is no such entry, or it cannot be read.
        """
        entry: Any = settings.CACHES.get(alias)
        if entry is None:
            raise InvalidBackend(f"CACHES has no entry {alias!r}.")
        options = dictionary(entry, "OPTIONS")
        read = [location.read_url(url) for url in location.urls(entry.get("LOCATION"))]
        url, in_query = read[0]
        is_cluster = issubclass(factory_of(options), ClusterConnectionFactory)
        pool_kwargs = dictionary(options, "CONNECTION_POOL_KWARGS")
        sentinel_kwargs = for_clients(dictionary(options, "SENTINEL_KWARGS"))
        concurrency = _or((pool_kwargs | in_query).get("max_connections"), DEFAULT_MAX_CONCURRENCY)
        kwargs = {
            "socket_timeout": _or(options.get("SOCKET_TIMEOUT"), DEFAULT_TIMEOUT),
            "socket_connect_timeout": _or(options.get("SOCKET_CONNECT_TIMEOUT"), DEFAULT_TIMEOUT),
            "username": options.get("USERNAME"),
            "password": options.get("PASSWORD"),
            **dictionary(options, "REDIS_CLIENT_KWARGS"),
            **pool_kwargs,
            **in_query,
        }
        check_seconds(kwargs, "socket_timeout", "socket_connect_timeout")
        kwargs = for_clients({name: value for name, value in kwargs.items() if value is not None})
        if is_cluster:
            location.check_cluster(url, kwargs)
            kwargs.pop("db", None)  # 0, which redis-py's cluster client does not take
        check_options(kwargs, in_query, url, is_cluster)
        check_sentinel_options(sentinel_kwargs)
        return cls(
            urls=tuple(url for url, _ in read),
            sentinels=_pairs(options.get("SENTINELS") or ()),
            sentinel_kwargs=sentinel_kwargs,
            is_cluster=is_cluster,
            max_concurrency=check_whole(concurrency, "max_connections", 1),
            kwargs=kwargs,
        )


def factory_of(options: dict[str, Any]) -> type:
    """Return the class that makes the connections of the cache itself."""
    name = options.get("CONNECTION_FACTORY") or getattr(
        settings, "DJANGO_REDIS_CONNECTION_FACTORY", None
    )
    try:
        factory = ConnectionFactory if name is None else import_string(name)
    except (AttributeError, ImportError) as error:
        raise InvalidBackend(f"CONNECTION_FACTORY, {name!r}, cannot be imported.") from error
    if not isinstance(factory, type):
        raise InvalidBackend(f"CONNECTION_FACTORY is {name!r}, which is no class.")
    return factory


def _pairs(sentinels: Any) -> tuple[tuple[str, int], ...]:
    try:
        return tuple((str(host), int(port)) for host, port in sentinels)
    except (TypeError, ValueError):
        raise InvalidBackend("SENTINELS must be a list of pairs (host, port).") from None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
