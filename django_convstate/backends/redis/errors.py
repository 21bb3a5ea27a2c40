"""What Redis and its client complain of, in words for people, without address or password."""

from typing import Final

from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

from ...exceptions import BackendUnavailable, ConversationCorrupt

# What the clients of a cluster say for themselves, each in its own kind or in none.
_NO_CLUSTER: Final = (
    "is no cluster, but a server by itself: leave out the CONNECTION_FACTORY for a cluster"
)
_OF_A_CLUSTER: Final = (
    "is a node of a cluster: set CONNECTION_FACTORY to "
    "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
)
_NOT_FOUND: Final = (MasterNotFoundError, AsyncMasterNotFoundError)
_MOVING: Final = "is moving the conversation to another node (TRYAGAIN, or redirected too often)"
_BY_KIND: Final[dict[type[Exception], str]] = {
    NoPermissionError: "does not let this user run our commands or touch our keys (NOPERM)",
    AuthenticationError: "does not accept the user name or the password",
    OutOfMemoryError: "is out of memory and refuses to write (OOM): raise maxmemory",
    ReadOnlyError: "is a replica and refuses to write (READONLY)",
    BusyLoadingError: "is still loading its data set (LOADING)",
    ClusterDownError: "is a cluster of which a part is down (CLUSTERDOWN)",
    MovedError: _OF_A_CLUSTER,
    MasterDownError: "is a replica that has lost its primary (MASTERDOWN)",
    TryAgainError: _MOVING,
    ClusterError: _MOVING,
    TimeoutError: "did not answer in time",
}
# For those of which the client makes no kind of their own: how the reply begins.
_BY_REPLY: Final = {
    "NOAUTH": "wants a password, and CACHES has none",
    "MISCONF": "cannot save its snapshots and refuses to write (MISCONF): see its log",
    "NOREPLICAS": "has too few replicas in step and refuses to write (NOREPLICAS)",
    "BUSY": "is busy with somebody's script (BUSY)",
    "max number of clients": "has reached its maxclients",
    "DB index is out of range": "has no database of the number that CACHES names",
    "Cluster mode is not enabled": _NO_CLUSTER,
    "This instance has cluster support disabled": _NO_CLUSTER,
    "TTL exhausted": "is a cluster that sends us in circles: its slots are moving",
    "All slots are not covered": "is a cluster of which a part is down (CLUSTERDOWN)",
}
_UNTRUSTED: Final = (
    "shows a certificate that is not trusted, or is for another name: see ssl_ca_certs in "
    "CONNECTION_POOL_KWARGS"
)
_UNREACHABLE: Final = "cannot be reached"
_NO_PRIMARY: Final = (
    "is behind Sentinel, which knows no primary of the service that is up: see the name of the "
    "service in LOCATION"
)


def in_words(error: Exception) -> str:
    """Return what is wrong with the server, to be read after its name."""
    error = _cause_in_a_cluster(error)
    for kind, meaning in _BY_KIND.items():
        if isinstance(error, kind):
            return meaning
    for beginning, meaning in _BY_REPLY.items():
        if str(error).startswith(beginning):
            return meaning
    if isinstance(error, _NOT_FOUND) and " : " not in str(error):
        return _NO_PRIMARY  # and no sentinel failed to answer
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _UNTRUSTED
    # Of the last kind is what the client of a cluster raises when it finds no node that answers.
    if isinstance(error, (ConnectionError, OSError, RedisClusterException)):
        return _UNREACHABLE
    return f"answered with an error that is not expected ({type(error).__name__})"


def _cause_in_a_cluster(error: Exception) -> Exception:
    """Return what the last node said that a cluster's client asked where the others are."""
    while isinstance(error, RedisClusterException):
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, (RedisError, RedisClusterException)):
            break
        error = cause
    return error


def may_be_tried_again(error: Exception) -> bool:
    """Tell whether the same command on a new connection may fare better: the connection broke.

    Not after a timeout, for then the time is up; and not where the server has said no.
    """
    return in_words(error) in (_UNREACHABLE, _NO_PRIMARY)


def is_transient(error: Exception) -> bool:
    """Tell whether the next command may fare better."""
    busy = isinstance(error, ResponseError) and str(error).startswith("BUSY ")
    return busy or isinstance(error, TimeoutError) or is_moving(error)


def is_moving(error: Exception) -> bool:
    """Tell whether a part of the conversation is on one node and a part on another: the client of
    a cluster gives up, after so many tries, with an error of no kind of its own."""
    return isinstance(error, TryAgainError) or type(error) is ClusterError


def is_wrong_type(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def is_unknown_command(error: BaseException | None) -> bool:
    return isinstance(error, ResponseError) and "unknown command" in str(error).lower()


class Explained:
    """Raises our error for every one of the client's, in a with block around the call.

    A class and not a generator, as `Turns` in connections.py: both are passed through twice in
    each turn of a conversation, and a generator takes three times as long.
    """

    __slots__ = ("_alias",)

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, RedisError) and is_wrong_type(error):
            raise ConversationCorrupt("Under the key is something else.") from error
        if isinstance(error, (RedisError, RedisClusterException, OSError)):
            raise BackendUnavailable(
                f"Redis, CACHES[{self._alias!r}], {in_words(error)}.", transient=is_transient(error)
            ) from error
