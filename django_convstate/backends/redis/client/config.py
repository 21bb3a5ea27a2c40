"""What an entry of CACHES says about the server.

It is django-redis's, and says where the server is and how to log in. What it leaves out redis-py
would take from defaults that let a request hang for a minute: here every wait is finite.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.utils.module_loading import import_string

from ..cluster import ClusterConnectionFactory
from . import options as checked
from .options import ConfigError, dictionary, for_clients

DEFAULT_TIMEOUT: Final = 0.25  # seconds for one answer, unless CACHES says otherwise
DEFAULT_MAX_CONCURRENCY: Final = 50  # operations, unless CACHES says otherwise
REPLY_SHARE: Final = 0.95  # of that time a reply is waited for; the rest is for giving up
CONNECT_REPLIES: Final = 8  # replies of the server, each in that time, until a connection is there
MIN_DISCOVERY_TIMEOUT: Final = 2.0  # seconds

_LOGIN_AND_TIMEOUTS: Final = ("USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where a server is and how to log in.

    Attributes:
        scheme: of the URL in LOCATION: "redis", "rediss" or "unix".
        kwargs: options for redis-py's connections, from the first URL and from OPTIONS.
        overridden: the names of those that OPTIONS has otherwise than the URL, which wins.
        other_nodes: pairs (host, port) from the other URLs, of which only a cluster makes use.
        sentinels: pairs (host, port); none where Sentinel is not asked.
        sentinel_kwargs: options for redis-py's clients of the sentinels.
        is_cluster: whether it is a cluster, of which the URLs name some nodes.
        max_concurrency: how many operations one process has under way at once.
        timeout: how long a reply is waited for, in seconds, so that an operation takes no longer
            than its time.
        connect_timeout: how long an operation may take in addition to its time where a connection
            is made first, in seconds. A server that is silent costs no more than one answer of it.
        discovery_timeout: how long a cluster may take to tell where its nodes are, in seconds: that
            is not a part of an operation.
        tries: how often a command is sent while its connection breaks. On a cluster, an error in
            one task or thread breaks the connections of others, and a topology may change twice.
    """

    scheme: str
    # Passwords stay out of the repr: from there they get into logs and tracebacks.
    kwargs: dict[str, Any] = field(repr=False)
    overridden: set[str]
    other_nodes: tuple[tuple[str, int], ...]
    sentinels: tuple[tuple[str, int], ...]
    sentinel_kwargs: dict[str, Any] = field(repr=False)
    is_cluster: bool
    max_concurrency: int
    timeout: float
    connect_timeout: float
    discovery_timeout: float
    tries: int

    @property
    def service(self) -> str:
        """With Sentinel, the name of the service; "" if there is none."""
        return str(self.kwargs.get("host", ""))

    @classmethod
    def from_alias(cls, alias: str) -> "ServerConfig":
        """Read CACHES[alias].

        Raises:
            ConfigError: there is no such entry, or it cannot be read.
        """
        entry: Any = settings.CACHES.get(alias)
        if entry is None:
            known = f"Known are {', '.join(map(repr, settings.CACHES))}."
            raise ConfigError(f"CACHES has no entry {alias!r}.", known)
        given = dictionary(entry, "OPTIONS")
        (scheme, in_url), *others = map(checked.read_url, checked.urls(entry.get("LOCATION")))
        is_cluster = issubclass(factory_of(given), ClusterConnectionFactory)
        options, sentinels = _options(given), _pairs(given.get("SENTINELS") or ())
        checked.check_seconds(options | in_url, "socket_timeout", "socket_connect_timeout")
        kwargs = for_clients(options | in_url)
        if is_cluster:
            checked.check_cluster(scheme, in_url.get("db") or options.get("db"))
            kwargs.pop("db", None)  # 0, which redis-py's cluster client does not take
        checked.check_options(kwargs, in_url, scheme, is_cluster)
        if is_cluster or sentinels:
            # Else what is meant for TLS, the password too, would go out in plain text.
            kwargs["ssl"] = scheme == "rediss"
        sentinel_kwargs = checked.sentinel_options(dictionary(given, "SENTINEL_KWARGS"))
        concurrency = (dictionary(given, "CONNECTION_POOL_KWARGS") | in_url).get("max_connections")
        if concurrency is None:
            concurrency = DEFAULT_MAX_CONCURRENCY
        timeout = REPLY_SHARE * kwargs["socket_timeout"]
        return cls(
            scheme=scheme,
            kwargs=kwargs,
            overridden={
                n for n, value in for_clients(options).items() if in_url.get(n, value) != value
            },
            other_nodes=tuple(
                (each.get("host", "localhost"), each.get("port", 6379)) for _, each in others
            ),
            sentinels=sentinels,
            sentinel_kwargs=sentinel_kwargs,
            is_cluster=is_cluster,
            max_concurrency=checked.check_whole(concurrency, "max_connections", 1),
            timeout=timeout,
            connect_timeout=CONNECT_REPLIES * timeout,
            discovery_timeout=max(MIN_DISCOVERY_TIMEOUT, timeout),
            tries=5 if is_cluster else 2,
        )


def factory_of(options: dict[str, Any]) -> type:
    """Return the class that makes the connections of the cache itself."""
    name: Any = options.get("CONNECTION_FACTORY") or getattr(
        settings, "DJANGO_REDIS_CONNECTION_FACTORY", "django_redis.pool.ConnectionFactory"
    )
    try:
        factory = import_string(name)
    except (AttributeError, ImportError):
        factory = None
    if not isinstance(factory, type):
        raise ConfigError(
            f"CONNECTION_FACTORY, {name!r}, is no class that can be imported.",
            "Write the dotted path of one, or leave it out.",
        )
    return factory


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return what OPTIONS says in its different places, and defaults for what it leaves out."""
    options = {
        "socket_timeout": DEFAULT_TIMEOUT,
        "socket_connect_timeout": DEFAULT_TIMEOUT,
        **{n.lower(): given[n] for n in _LOGIN_AND_TIMEOUTS if given.get(n) is not None},
        **dictionary(given, "REDIS_CLIENT_KWARGS"),
        **dictionary(given, "CONNECTION_POOL_KWARGS"),
    }
    if options.get("db") is not None:  # which the URL may hide
        checked.check_whole(options["db"], "db", 0)
    return options


def _pairs(sentinels: Any) -> tuple[tuple[str, int], ...]:
    try:
        return tuple((str(host), int(port)) for host, port in sentinels)
    except (TypeError, ValueError):
        raise ConfigError(
            "SENTINELS is no list of pairs.", "Write [('host1', 26379), ('host2', 26379)]."
        ) from None
