"""What a server tells about itself, if it does: managed ones often keep INFO and CONFIG to
themselves."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

OLDEST: Final = (6, 2)
UNKNOWN: Final = "unknown"
SAFE_POLICY: Final = "noeviction"
KEYS_TRIED: Final = 1000  # for one on each node: some have few slots, or none


@dataclass(frozen=True, slots=True)
class Server:
    """Each field is None where the server does not tell; `node` names one of a cluster."""

    node: str = ""
    version: tuple[int, int] | None = None
    role: str | None = None
    policy: str | None = None
    maxmemory: int | None = None
    is_cluster: bool | None = None


def look_at(client: Any) -> list[Server]:
    """Ask the server, or each primary of a cluster. Raises `RedisError` only if one cannot be
    reached."""
    try:
        return [server_of(client.info(**at), at) for at in _primaries(client)]
    except ResponseError:
        return [Server()]


async def alook_at(client: Any) -> list[Server]:
    try:
        return [server_of(await client.info(**at), at) for at in _primaries(client)]
    except ResponseError:
        return [Server()]


def describe(client: Any) -> str:
    """Return one line for people."""
    servers = look_at(client)
    try:
        return _line(servers, client.dbsize(**_of_all(client)))
    except RedisError:
        return _line(servers, None)


async def adescribe(client: Any) -> str:
    servers = await alook_at(client)
    try:
        return _line(servers, await client.dbsize(**_of_all(client)))
    except RedisError:
        return _line(servers, None)


def key_on_each_primary(client: Any, stem: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each primary that has slots, with a key that begins with `stem` and is
    there; for a server by itself "" and the stem."""
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
            yield name, key


def _primaries(client: Any) -> list[dict[str, Any]]:
    if not hasattr(client, "get_primaries"):
        return [{}]
    return [{"target_nodes": node} for node in client.get_primaries()]


def _of_all(client: Any) -> dict[str, str]:
    """Return what makes a cluster's client add up those of all primaries, not ask one of them."""
    primaries = getattr(client, "PRIMARIES", None)
    return {} if primaries is None else {"target_nodes": primaries}


def server_of(info: dict[str, Any], at: dict[str, Any]) -> Server:
    return Server(
        node=at["target_nodes"].name if at else "",
        version=_version(info.get("valkey_version") or info.get("redis_version")),
        role=info.get("role"),
        policy=info.get("maxmemory_policy"),
        maxmemory=info.get("maxmemory"),
        is_cluster=None if "cluster_enabled" not in info else bool(info["cluster_enabled"]),
    )


def _line(servers: list[Server], keys: int | None) -> str:
    server = _worst(servers)
    version = ".".join(map(str, server.version)) if server.version else UNKNOWN
    # How many conversations those are nobody can tell without looking at each.
    stored = f"keys {UNKNOWN}" if keys is None else f"{keys} keys in the database"
    several = f"{len(servers)} primaries, " if len(servers) > 1 else ""
    return (
        f"{several}version {version}, role {server.role or UNKNOWN}, "
        f"memory policy {server.policy or UNKNOWN}, {stored}"
    )


def _worst(servers: list[Server]) -> Server:
    """Return what is to be said of all of them in one line."""
    first = servers[0]
    for server in servers[1:]:
        first = replace(
            first,
            version=min(first.version or OLDEST, server.version or OLDEST),
            role=first.role if first.role != "master" else server.role,
            policy=first.policy if first.policy != SAFE_POLICY else server.policy,
        )
    return first


def _version(text: Any) -> tuple[int, int] | None:
    try:
        major, minor, *_ = str(text).split(".")
        return int(major), int(minor)
    except ValueError:
        return None
