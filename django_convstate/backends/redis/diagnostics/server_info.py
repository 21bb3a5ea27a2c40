"""What a server says about itself, as far as it does: managed ones often refuse INFO and CONFIG."""

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from ..client.deadline import aput_off, put_off

OLDEST_VERSION: Final = (6, 2)
UNKNOWN: Final = "unknown"
SAFE_POLICY: Final = "noeviction"
KEYS_TRIED: Final = 1000  # for one on each node: some have few slots, or none


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What INFO says; each field is None where it does not.

    Attributes:
        node: its name in a cluster; "" for a single server.
        version: major and minor version of Redis or Valkey.
        role: "master", or "slave" for a replica.
        policy: what is evicted when memory is short.
        maxmemory: in bytes; 0 is no limit.
        is_cluster: whether the server is a node of a cluster.
    """

    node: str = ""
    version: tuple[int, int] | None = None
    role: str | None = None
    policy: str | None = None
    maxmemory: int | None = None
    is_cluster: bool | None = None

    @classmethod
    def from_reply(cls, info: dict[str, Any], target: dict[str, Any]) -> "ServerInfo":
        """Read what redis-py makes of the reply to INFO, sent with `target`."""
        return cls(
            node=target["target_nodes"].name if target else "",
            version=_version(info.get("valkey_version") or info.get("redis_version")),
            role=info.get("role"),
            policy=info.get("maxmemory_policy"),
            maxmemory=info.get("maxmemory"),
            is_cluster=None if "cluster_enabled" not in info else bool(info["cluster_enabled"]),
        )


def fetch_info(client: Any) -> list[ServerInfo]:
    """Ask the server, or each primary of a cluster. Raises `RedisError` only if one cannot be
    reached."""
    found = []
    try:
        for at in primaries(client):
            found.append(ServerInfo.from_reply(client.info(**at), at))
            put_off()
    except ResponseError:
        return [ServerInfo()]
    return found


async def afetch_info(client: Any) -> list[ServerInfo]:
    """See `fetch_info`."""
    found = []
    try:
        for at in primaries(client):
            found.append(ServerInfo.from_reply(await client.info(**at), at))
            aput_off()
    except ResponseError:
        return [ServerInfo()]
    return found


def describe(client: Any) -> str:
    """Return one sentence for people."""
    servers, keys = fetch_info(client), 0
    try:
        for at in primaries(client):
            keys += client.dbsize(**at)
            put_off()
    except RedisError:
        return _sentence(servers, None)
    return _sentence(servers, keys)


async def adescribe(client: Any) -> str:
    """See `describe`."""
    servers, keys = await afetch_info(client), 0
    try:
        for at in primaries(client):
            keys += await client.dbsize(**at)
            aput_off()
    except RedisError:
        return _sentence(servers, None)
    return _sentence(servers, keys)


def key_on_each_primary(client: Any, prefix: str, timeout: float) -> Iterator[tuple[str, str]]:
    """Yield the name of each primary that has slots, with a key that begins with `prefix`, is there
    and is used by no other; for a single server "" and a key.

    Raises:
        TimeoutError: it took more than `timeout` seconds.
    """
    until = time.perf_counter() + timeout
    stem = f"{prefix}:health:{secrets.token_hex(8)}"
    if not hasattr(client, "get_primaries"):
        yield "", stem
        return
    left = {node.name for node in client.get_primaries()}
    for number in range(KEYS_TRIED):
        if not left:
            break
        key = f"{stem}:{number}"
        if (name := client.get_node_from_key(key).name) in left:
            left.remove(name)
            if time.perf_counter() > until:
                raise TimeoutError("There was no answer in time.")
            yield name, key


def primaries(client: Any) -> list[dict[str, Any]]:
    """Return how redis-py is told to ask each primary."""
    if not hasattr(client, "get_primaries"):
        return [{}]
    return [{"target_nodes": node} for node in client.get_primaries()]


def _sentence(servers: list[ServerInfo], keys: int | None) -> str:
    # Of several primaries the oldest version, and a role and a policy that are wrong, if any is.
    version = min((server.version for server in servers if server.version), default=None)
    role = next((server.role for server in servers if server.role != "master"), "master")
    policies = (server.policy for server in servers if server.policy != SAFE_POLICY)
    # To count conversations, not keys, each would have to be looked at.
    stored = f"keys {UNKNOWN}" if keys is None else f"{keys} keys in the database"
    several = f"{len(servers)} primaries, " if len(servers) > 1 else ""
    return (
        f"{several}version {'.'.join(map(str, version)) if version else UNKNOWN}, "
        f"role {role or UNKNOWN}, memory policy {next(policies, SAFE_POLICY) or UNKNOWN}, {stored}"
    )


def _version(text: Any) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", str(text))
    return (int(found[1]), int(found[2])) if found else None
