"""What a server tells about itself, if it does: managed ones often keep INFO and CONFIG to
themselves."""

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

OLDEST: Final = (6, 2)
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Server:
    """Each field is None where the server does not tell."""

    version: tuple[int, int] | None = None
    role: str | None = None
    policy: str | None = None
    maxmemory: int | None = None
    is_cluster: bool | None = None


def look_at(client: Any) -> Server:
    """Ask the server. Raises `RedisError` only if it cannot be reached."""
    try:
        return _server(client.info())
    except ResponseError:
        return Server()


async def alook_at(client: Any) -> Server:
    try:
        return _server(await client.info())
    except ResponseError:
        return Server()


def describe(client: Any) -> str:
    """Return one line for people."""
    server = look_at(client)
    try:
        return _line(server, client.dbsize(**_of_all(client)))
    except RedisError:
        return _line(server, None)


async def adescribe(client: Any) -> str:
    server = await alook_at(client)
    try:
        return _line(server, await client.dbsize(**_of_all(client)))
    except RedisError:
        return _line(server, None)


def _of_all(client: Any) -> dict[str, str]:
    """Return what makes a cluster's client add up those of all primaries, not ask one of them."""
    primaries = getattr(client, "PRIMARIES", None)
    return {} if primaries is None else {"target_nodes": primaries}


def _server(info: dict[str, Any]) -> Server:
    return Server(
        version=_version(info.get("valkey_version") or info.get("redis_version")),
        role=info.get("role"),
        policy=info.get("maxmemory_policy"),
        maxmemory=info.get("maxmemory"),
        is_cluster=None if "cluster_enabled" not in info else bool(info["cluster_enabled"]),
    )


def _line(server: Server, keys: int | None) -> str:
    version = ".".join(map(str, server.version)) if server.version else UNKNOWN
    # How many conversations those are nobody can tell without looking at each.
    stored = f"keys {UNKNOWN}" if keys is None else f"{keys} keys in the database"
    return (
        f"version {version}, role {server.role or UNKNOWN}, "
        f"memory policy {server.policy or UNKNOWN}, {stored}"
    )


def _version(text: Any) -> tuple[int, int] | None:
    try:
        major, minor, *_ = str(text).split(".")
        return int(major), int(minor)
    except ValueError:
        return None
