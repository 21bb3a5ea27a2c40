"""What is in quarantine, found by its owner: for an erasure, which has to reach it, too."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from redis.exceptions import ResponseError

from .client.clients import Clients
from .errors import CLIENT_ERRORS, translated


def quarantined_keys(prefix: str) -> str:
    """Return the pattern of the keys that are in quarantine."""
    return f"{prefix}:{{*}}:*:corrupt*"


def erase_quarantined(clients: Clients, owner: str, keys: Iterable[bytes], dry_run: bool) -> int:
    """Delete what is in quarantine under the ids that were an owner's, and return how many
    conversations that were. With one of these goes all that is in quarantine under its id: which
    of its parts belong together is not known."""
    by_id: dict[bytes, set[bytes]] = defaultdict(set)
    for key in keys:
        by_id[key.rpartition(b"}:")[0]].add(key)
    erased = 0
    try:
        with clients.sync() as client:
            for group in by_id.values():
                owned = sum(
                    _owner_in(client.redis, key) == owner.encode()
                    for key in group
                    if key.rpartition(b"}:")[2].startswith(b"meta:")
                )
                erased += owned
                for key in group if owned and not dry_run else ():
                    client.redis.unlink(key)
    except CLIENT_ERRORS as error:
        raise translated(error, clients.alias) from error
    return erased


def _owner_in(client: Any, key: bytes) -> bytes | None:
    try:
        found: bytes | None = client.hget(key, "o")
    except ResponseError:  # it is no hash, so that there is no owner
        return None
    return found
