"""What Redis and its client complain of, in words for people, without address or password."""

from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from ...exceptions import BackendUnavailable, ConversationCorrupt

_MOVING: Final = "is moving the conversation to another node (TRYAGAIN)"
_BY_KIND: Final[dict[type[Exception], str]] = {
    NoPermissionError: "does not let this user run our commands or touch our keys (NOPERM)",
    AuthenticationError: "does not accept the user name or the password",
    OutOfMemoryError: "is out of memory and refuses to write (OOM): raise maxmemory",
    ReadOnlyError: "is a replica and refuses to write (READONLY)",
    BusyLoadingError: "is still loading its data set (LOADING)",
    ClusterDownError: "is a cluster of which a part is down (CLUSTERDOWN)",
    MasterDownError: "is a replica that has lost its primary (MASTERDOWN)",
    TimeoutError: "did not answer in time",
}
# For those of which the client makes no kind of their own: how the reply begins.
_BY_REPLY: Final = {
    "NOAUTH": "wants a password, and CACHES has none",
    "MISCONF": "cannot save its snapshots and refuses to write (MISCONF): see its log",
    "NOREPLICAS": "has too few replicas in step and refuses to write (NOREPLICAS)",
    "BUSY": "is busy with somebody's script (BUSY)",
    "max number of clients": "has reached its maxclients",
}
_UNTRUSTED: Final = (
    "shows a certificate that is not trusted, or is for another name: see ssl_ca_certs in "
    "CONNECTION_POOL_KWARGS"
)
_UNREACHABLE: Final = "cannot be reached"


def in_words(error: Exception) -> str:
    """Return what is wrong with the server, to be read after its name."""
    if is_moving(error):
        return _MOVING
    for kind, meaning in _BY_KIND.items():
        if isinstance(error, kind):
            return meaning
    for beginning, meaning in _BY_REPLY.items():
        if str(error).startswith(beginning):
            return meaning
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _UNTRUSTED
    # Of the last kind is what the client of a cluster raises when it finds no node that answers.
    if isinstance(error, (ConnectionError, OSError, RedisClusterException)):
        return _UNREACHABLE
    return f"answered with an error that is not expected ({type(error).__name__})"


def may_be_tried_again(error: Exception) -> bool:
    """Tell whether the same command on a new connection may fare better: the connection broke.

    Not after a timeout, for then the time is up; and not where the server has said no.
    """
    return in_words(error) == _UNREACHABLE


def is_certain(error: Exception) -> bool:
    """Tell whether the next command would fare no better, so that nobody need wait for it."""
    busy = isinstance(error, ResponseError) and str(error).startswith("BUSY ")
    return not (busy or isinstance(error, TimeoutError) or is_moving(error))


def is_moving(error: Exception) -> bool:
    """Tell whether a part of the conversation is on one node and a part on another: the client of
    a cluster gives up, after so many tries, with an error of no kind of its own."""
    return isinstance(error, TryAgainError) or type(error) is ClusterError


def is_wrong_type(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


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
                f"Redis, CACHES[{self._alias!r}], {in_words(error)}.", certain=is_certain(error)
            ) from error
