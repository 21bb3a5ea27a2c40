"""What an error of Redis or of redis-py means, without address or password."""

import re
from typing import Final

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.sentinel import MasterNotFoundError

from ...exceptions import BackendUnavailable, ConversationCorrupt

# All that redis-py raises: the second is what its cluster client raises for some of its own.
CLIENT_ERRORS: Final = (exceptions.RedisError, exceptions.RedisClusterException, OSError)

_NO_CLUSTER: Final = "is no cluster but a single server: leave out the CONNECTION_FACTORY"
_OF_A_CLUSTER: Final = (
    "is a node of a cluster: set CONNECTION_FACTORY to "
    "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
)
_DOWN: Final = "is a cluster with slots that no node serves (CLUSTERDOWN)"
_MOVING: Final = "is moving the conversation to another node (TRYAGAIN, or redirected too often)"
_TIMED_OUT: Final = (
    "did not answer in time (if it is only far away, raise SOCKET_TIMEOUT in its OPTIONS: "
    "`manage.py check --deploy` says to what)"
)
_FORBIDDEN: Final = "refuses our commands or our keys to this user (NOPERM)"
_BY_KIND: Final[dict[type[Exception], str]] = {
    exceptions.NoPermissionError: _FORBIDDEN,
    exceptions.AuthenticationError: "does not accept the user name or the password",
    exceptions.OutOfMemoryError: "is out of memory and refuses to write (OOM): raise maxmemory",
    exceptions.ReadOnlyError: "is a replica and refuses to write (READONLY)",
    exceptions.BusyLoadingError: "is still loading its data set (LOADING)",
    exceptions.ClusterDownError: _DOWN,
    exceptions.MovedError: _OF_A_CLUSTER,
    exceptions.MasterDownError: "is a replica that has lost its primary (MASTERDOWN)",
    exceptions.TryAgainError: _MOVING,
    exceptions.ClusterError: _MOVING,
    exceptions.TimeoutError: _TIMED_OUT,
}
# For those of which redis-py makes no class of their own: how the reply begins.
_BY_REPLY: Final = {
    "NOAUTH": "requires a password, and CACHES has none (NOAUTH)",
    "MISCONF": "cannot save its snapshots and refuses to write (MISCONF): see its log",
    "NOREPLICAS": "has too few replicas in sync and refuses to write (NOREPLICAS)",
    "BUSY": "is busy running another script (BUSY)",
    "max number of clients": "has reached its maxclients",
    "DB index is out of range": "has no database of the number that CACHES names",
    "Cluster mode is not enabled": _NO_CLUSTER,
    "This instance has cluster support disabled": _NO_CLUSTER,
    "TTL exhausted": "is a cluster that redirects in a circle: its slots are moving",
    "All slots are not covered": _DOWN,
}
_REFUSED: Final = (
    "That is no outage: correct the user's name, password or rights in CACHES, or on the server. "
    "Until then this process is not ready."
)
_NEVER_ANSWERED: Final = (
    "It has not answered once since this process began, so that LOCATION in CACHES may be wrong: "
    "until it does, this process is not ready."
)
# How a script says so of a command in it: since Redis 7.2, and before.
_FORBIDDEN_IN_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")
_DAMAGE: Final = re.compile(
    r"attempt to (?:call|compare|concatenate|get length|index|perform)|bad argument #"
    r"|data string too short|invalid expire|not an integer|not a valid float|out of range"
)
_UNTRUSTED: Final = (
    "shows a certificate that is not trusted, or is for another name: see ssl_ca_certs in "
    "CONNECTION_POOL_KWARGS"
)
_UNREACHABLE: Final = "cannot be reached"
_NO_PRIMARY: Final = (
    "is behind Sentinel, which knows no primary of the service that is up: see the name of the "
    "service in LOCATION"
)


def translated(error: Exception, alias: str) -> BackendUnavailable | ConversationCorrupt:
    """Return our exception for one of `CLIENT_ERRORS` from CACHES[alias], to be raised from it."""
    _drop_contents(error)
    if is_wrong_type(error):
        return ConversationCorrupt("A key of the conversation holds another type of value.")
    if is_damage(error):
        return ConversationCorrupt("A script cannot make sense of what is stored.")
    return BackendUnavailable(
        f"Redis, CACHES[{alias!r}], {describe_error(error)}.", transient=is_transient(error)
    )


def _drop_contents(error: BaseException | None) -> None:
    """Leave out of what the server said what it was sent, or has stored: ids and texts."""
    while isinstance(error, exceptions.RedisError):
        said, arguments, _ = str(error).partition(", with args beginning with")
        if arguments:
            error.args = (said,)
        elif isinstance(error, exceptions.InvalidResponse):
            error.args = ("The reply breaks the protocol.",)
        error = error.__cause__ or error.__context__


def describe_error(error: Exception) -> str:
    """Return what is wrong with the server, to be read after its name."""
    error = _cause_in_a_cluster(error)
    for kind, meaning in _BY_KIND.items():
        if isinstance(error, kind):
            return meaning
    if (said := _meaning_of_reply(error)) is not None:
        return said
    not_found = isinstance(error, (MasterNotFoundError, AsyncMasterNotFoundError))
    if not_found and " : " not in str(error):
        return _NO_PRIMARY  # and no sentinel failed to answer
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _UNTRUSTED
    # One is what redis-py's cluster client raises when it finds no node that answers.
    if isinstance(error, (exceptions.ConnectionError, exceptions.RedisClusterException, OSError)):
        return _UNREACHABLE
    return f"answered with an unexpected error ({type(error).__name__})"


def _meaning_of_reply(error: Exception) -> str | None:
    if _is_forbidden_in_script(error):
        return _FORBIDDEN
    text = str(error)
    return next((_BY_REPLY[start] for start in _BY_REPLY if text.startswith(start)), None)


def _cause_in_a_cluster(error: Exception) -> Exception:
    """Return what the last node said that redis-py's cluster client asked for the others."""
    while isinstance(error, exceptions.RedisClusterException):
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, (exceptions.RedisError, exceptions.RedisClusterException)):
            break
        error = cause
    return error


def is_retryable(error: Exception) -> bool:
    """Tell whether the same command on a new connection may fare better: the connection broke.

    Not after a timeout, for then the time is up; and not where the server has refused.
    """
    return describe_error(error) in (_UNREACHABLE, _NO_PRIMARY)


def is_transient(error: Exception) -> bool:
    """Tell whether the next command may fare better."""
    busy = isinstance(error, exceptions.ResponseError) and str(error).startswith("BUSY ")
    return busy or isinstance(error, exceptions.TimeoutError) or is_moving(error)


def is_moving(error: Exception) -> bool:
    """Tell whether the conversation is on two nodes, half moved. redis-py's cluster client gives
    up, after so many tries, with a plain `ClusterError`."""
    return isinstance(error, exceptions.TryAgainError) or type(error) is exceptions.ClusterError


def is_wrong_type(error: Exception) -> bool:
    """Tell whether a key holds another type of value than the command is for."""
    return isinstance(error, exceptions.ResponseError) and "WRONGTYPE" in str(error)


def is_refusal(error: Exception) -> bool:
    """Tell whether the server refuses the login, or what this user may do: no outage does that."""
    error = _cause_in_a_cluster(error)
    kinds = (exceptions.AuthenticationError, exceptions.NoPermissionError)
    is_refused = isinstance(error, kinds) or str(error).startswith("NOAUTH")
    return is_refused or _is_forbidden_in_script(error)


def _is_forbidden_in_script(error: Exception) -> bool:
    is_reply = isinstance(error, exceptions.ResponseError)
    return is_reply and any(words in str(error) for words in _FORBIDDEN_IN_SCRIPT)


def misconfiguration(error: Exception, *, has_answered: bool) -> str:
    """Return why an outage cannot have caused an error, for people; "" if it can.

    `has_answered`: the server has, at least once since this process began.
    """
    if is_refusal(error):
        return _REFUSED
    # Nothing that the server says was heard at all.
    is_silence = describe_error(error) in (_TIMED_OUT, _UNREACHABLE, _NO_PRIMARY, _UNTRUSTED)
    return _NEVER_ANSWERED if is_silence and not has_answered else ""


def is_damage(error: Exception) -> bool:
    """Tell whether a script stumbled over what is stored: an error of Lua, or of a command that was
    given a number out of what is stored."""
    is_reply = isinstance(error, exceptions.ResponseError)
    return is_reply and "user_script" in str(error) and _DAMAGE.search(str(error)) is not None


def is_unknown_command(error: BaseException | None) -> bool:
    """Tell whether the server does not have the command."""
    is_reply = isinstance(error, exceptions.ResponseError)
    return is_reply and "unknown command" in str(error).lower()
