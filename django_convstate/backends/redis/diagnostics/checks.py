"""System checks for the redis backend: what CACHES says, without asking the server, and what the
server says, with `check --deploy`."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django_redis.pool import SentinelConnectionFactory
from redis.exceptions import TimeoutError

from ....exceptions import BackendUnavailable
from ....ids import new_id
from ...base import ConversationStateBackend
from ...records import Change
from ...toolkit.caches import check_alias, check_key_function, check_timeout
from ..client.clients import Clients
from ..client.config import ServerConfig, factory_of
from ..client.deadline import Deadline
from ..client.factory import make_client, with_sentinels
from ..client.options import ConfigError
from ..errors import describe_error, is_refusal
from .server_info import OLDEST_VERSION, SAFE_POLICY, ServerInfo, fetch_info

TRIAL_TTL: Final = 1.0  # seconds until the conversation of the check is gone
PATIENCE: Final = 3.0  # seconds for one reply of a server that may be far away
NEAR_SHARE: Final = 0.7  # of the time for a reply, which it should not take
ENOUGH: Final = 3  # times what a reply takes, for one that is slow

_UNCHECKED = (
    "Fix that and run the check again: the server's version, role and memory policy could not be "
    "checked. A process that the server has not answered once is not ready."
)
_LOGIN = (
    "Correct the user's name, password or rights in CACHES, or on the server, and run the check "
    "again. Until then no process is ready."
)
_UNWRITABLE = "Correct that on the server. Until then, conversations cannot be kept there."
_WRITE_SERVICE = "Write redis://SERVICE_NAME/0, as in the sentinels' configuration."


def check_entry(alias: str) -> list[CheckMessage]:
    """Check the entry of CACHES. No I/O."""
    if missing := check_alias(alias):
        return missing
    entry: Any = settings.CACHES[alias]
    if not str(entry.get("BACKEND", "")).startswith("django_redis."):
        return [
            Error(
                f"CACHES[{alias!r}] is not django-redis, through which the redis backend connects.",
                hint="Set its BACKEND to 'django_redis.cache.RedisCache', or use "
                "CONVERSATION_STATE_BACKEND = 'cache'.",
                id="convstate.E009",
            )
        ]
    try:
        config = ServerConfig.from_alias(alias)
    except ConfigError as error:
        return [Error(f"CACHES[{alias!r}]: {error.problem}", hint=error.hint, id=error.id)]
    options = entry.get("OPTIONS") or {}
    return [
        *_check_sentinels(alias, config, options),
        *_check_shards(alias, options),
        *_check_logins(alias, config),
        *check_timeout(alias),
        *check_key_function(alias),
    ]


def _check_sentinels(
    alias: str, config: ServerConfig, options: dict[str, Any]
) -> Iterator[CheckMessage]:
    """Check that what Sentinel needs is there, and that nothing contradicts it."""
    by_factory = issubclass(factory_of(options), SentinelConnectionFactory)
    by_client = str(options.get("CLIENT_CLASS", "")).endswith(".SentinelClient")
    sentinels, service = config.sentinels, config.service
    problem, hint = f"CACHES[{alias!r}] is inconsistent about Sentinel.", ""
    if sentinels and config.is_cluster:
        hint = "It has SENTINELS and a CONNECTION_FACTORY for a cluster: leave out one of the two."
    elif sentinels and not service:
        hint = f"LOCATION names no service. {_WRITE_SERVICE}"
    elif not sentinels and (by_factory or by_client):
        hint = (
            "It has no SENTINELS: set OPTIONS['SENTINELS'] to a list of pairs (host, port), or "
            "leave out the CLIENT_CLASS and the CONNECTION_FACTORY for Sentinel."
        )
    if hint:
        yield Error(problem, hint=hint, id="convstate.E011")
    elif sentinels:
        if service in {host.lower() for host, _ in sentinels}:
            hint = f"LOCATION names a sentinel's host. {_WRITE_SERVICE} Or silence this."
            yield Warning(problem, hint=hint, id="convstate.W008")
        if not by_factory:
            hint = (
                f"Conversations ask the SENTINELS; the cache takes {service!r} for a server. Set "
                "OPTIONS['CONNECTION_FACTORY'] to 'django_redis.pool.SentinelConnectionFactory'."
            )
            yield Warning(problem, hint=hint, id="convstate.W008")


def _check_shards(alias: str, options: dict[str, Any]) -> Iterator[CheckMessage]:
    # Replicas need no check: conversations are read where they are written, from the first URL.
    if str(options.get("CLIENT_CLASS", "")).endswith(".ShardClient"):
        yield Warning(
            f"CACHES[{alias!r}] spreads the cache over several servers; conversations are all "
            "kept on the first.",
            hint="Give conversations a CACHES entry of their own, or use a cluster.",
            id="convstate.W009",
        )


def _check_logins(alias: str, config: ServerConfig) -> Iterator[CheckMessage]:
    for name in {"username", "password"} & config.overridden:
        yield Warning(
            f"CACHES[{alias!r}] has one {name} in LOCATION and another in OPTIONS; that in "
            "LOCATION is used.",
            hint=f"Leave the {name} out of one of the two.",
            id="convstate.W010",
        )


def check_server(alias: str) -> Iterator[CheckMessage]:
    """Ask the server, or all primaries of a cluster, whether it is fit to keep conversations."""
    clients = Clients(alias)
    try:
        config = clients.config
        with clients.sync() as client, Deadline(config.timeout, connecting=config.connect_timeout):
            redis = client.pooled()
            servers = fetch_info(redis)
            began = time.perf_counter()
            fetch_info(redis)
            seconds = (time.perf_counter() - began) / max(1, len(servers))
    except Exception as error:
        far = far_away(clients) if isinstance(error, TimeoutError) else None
        if far is None:
            yield Warning(
                f"Redis, CACHES[{alias!r}], {describe_error(error)}.",
                hint=_LOGIN if is_refusal(error) else _UNCHECKED,
                id="convstate.W004",
            )
            return
        servers, seconds = far
    finally:
        clients.close()
    yield from check_distance(alias, config, seconds)
    is_cluster = config.is_cluster
    # What is wrong with several nodes is said of the first of them.
    said: dict[str | None, CheckMessage] = {}
    for server in servers:
        for message in check_one(alias, server, is_cluster):
            said.setdefault(message.id, message)
    yield from said.values()


def is_usable(messages: Sequence[CheckMessage]) -> bool:
    """Tell whether none of what `check_server` has said explains why operations fail."""
    unusable = {"convstate.E014", "convstate.E015", "convstate.E017"}
    return not unusable.union({"convstate.W004", "convstate.W012"}) & {m.id for m in messages}


def check_use(backend: ConversationStateBackend) -> list[CheckMessage]:
    """Do what processes will do: a server may tell about itself to a user who may do nothing else,
    and refuse to write. What is written expires at once."""
    problem = health.detail if not (health := backend.health()).connected else ""
    if not problem:
        change = Change(ttl=TRIAL_TTL, owner="check", append=[("check", b"{}")])
        try:
            backend.commit(id := new_id(), change)
            backend.load(id, 1)
        except BackendUnavailable as error:
            problem = str(error)
    problem = problem or backend.misconfigured  # by what comes after a commit
    hint = _LOGIN if backend.misconfigured else _UNWRITABLE
    return [Warning(problem, hint=hint, id="convstate.W004")] if problem else []


def far_away(clients: Clients) -> tuple[list[ServerInfo], float] | None:
    """Ask a server that did not answer in time once more, with patience: what it says, and how many
    seconds a reply takes. None: it does not answer then either."""
    config = clients.config
    patient = config.kwargs | {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    config = replace(config, kwargs=patient, timeout=PATIENCE, discovery_timeout=2 * PATIENCE)
    try:
        client = make_client(config)
    except Exception:
        return None
    try:
        with Deadline(2 * PATIENCE, PATIENCE):
            fetch_info(client)
            began = time.perf_counter()
            servers = fetch_info(client)
            return servers, (time.perf_counter() - began) / max(1, len(servers))
    except Exception:
        return None
    finally:
        for each in with_sentinels(client):
            each.close()


def check_distance(alias: str, config: ServerConfig, seconds: float) -> Iterator[CheckMessage]:
    """Check that a reply, which takes so long, comes well within its time."""
    allowed = config.kwargs["socket_timeout"]
    if seconds > NEAR_SHARE * allowed:
        enough = math.ceil(ENOUGH * seconds * 10) / 10
        yield Warning(
            f"Redis, CACHES[{alias!r}], answers after {seconds * 1000:.0f} ms, and SOCKET_TIMEOUT "
            f"is {allowed * 1000:.0f} ms: it counts as unavailable where it is a little slower.",
            hint=f"Set OPTIONS['SOCKET_TIMEOUT'] to {enough:.1f}, or use a server that is nearer.",
            id="convstate.W012",
        )


def check_one(alias: str, server: ServerInfo, is_cluster: bool) -> Iterator[CheckMessage]:
    """Check what a server tells about itself."""
    its_name = f" (node {server.node})" if server.node else ""
    if server.version and server.version < OLDEST_VERSION:
        yield Error(
            f"Redis {'.'.join(map(str, server.version))}{its_name} is too old.",
            hint="Use Redis 6.2 or later, or Valkey.",
            id="convstate.E014",
        )
    if server.is_cluster and not is_cluster:
        yield Error(
            f"CACHES[{alias!r}] is a node of a cluster, which redirects clients to others.",
            hint="Set OPTIONS['CONNECTION_FACTORY'] to "
            "'django_convstate.backends.redis.cluster.ClusterConnectionFactory'.",
            id="convstate.E017",
        )
    if server.role in ("slave", "replica"):
        yield Error(
            f"CACHES[{alias!r}]{its_name} is a replica, which takes no writes.",
            hint="Set its LOCATION to the primary, or let Sentinel find that.",
            id="convstate.E015",
        )
    if server.policy and server.policy != SAFE_POLICY:
        yield Warning(
            f"The memory policy{its_name} is {server.policy}: when memory is short, conversations "
            "that are still in use are evicted.",
            hint="Set maxmemory-policy to noeviction, on a server that is not a cache as well.",
            id="convstate.W005",
        )
    if server.maxmemory == 0:
        yield Warning(
            f"The server{its_name} has no maxmemory: when memory is short, the system kills it.",
            hint="Set maxmemory to what the machine can spare.",
            id="convstate.W006",
        )
