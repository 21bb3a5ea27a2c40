"""What a server tells about itself, if it does: managed ones often keep INFO and CONFIG to
themselves."""

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

OLDEST: Final = (6, 2)
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Server:
    """Each field is None where the server does not tell."""

    version: tuple[int, int] | None = None
    role: str | None = None
    policy: str | None = None
    maxmemory: int | None = None
    keys: int | None = None


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
    return _line(look_at(client))


async def adescribe(client: Any) -> str:
    return _line(await alook_at(client))


def _server(info: dict[str, Any]) -> Server:
    return Server(
        version=_version(info.get("valkey_version") or info.get("redis_version")),
        role=info.get("role"),
        policy=info.get("maxmemory_policy"),
        maxmemory=info.get("maxmemory"),
        keys=sum(db["keys"] for db in info.values() if isinstance(db, dict) and "keys" in db),
    )


def _line(server: Server) -> str:
    version = ".".join(map(str, server.version)) if server.version else UNKNOWN
    # A conversation has two or three keys, and there may be others in the database.
    about = UNKNOWN if server.keys is None else f"at most {server.keys // 2}"
    return (
        f"version {version}, role {server.role or UNKNOWN}, "
        f"memory policy {server.policy or UNKNOWN}, conversations {about}"
    )


def _version(text: Any) -> tuple[int, int] | None:
    try:
        major, minor, *_ = str(text).split(".")
        return int(major), int(minor)
    except ValueError:
        return None
