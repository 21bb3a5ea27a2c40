"""What is an owner's and in no index, or in quarantine: for an erasure, which has to reach it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from .batches import BATCH_SIZE, batches
from .client.clients import Clients


def quarantined_keys(prefix: str) -> str:
    """Return the pattern of the keys that are in quarantine."""
    return f"{prefix}:{{*}}:*:corrupt*"


def keys_of(clients: Clients, owner: str, keys: Iterable[bytes]) -> Iterator[bytes]:
    """Yield those of the meta hashes under these keys that have this owner. Raises what redis-py
    raises."""
    for batch in batches(iter(keys), BATCH_SIZE):
        with clients.sync() as client, client.pooled().pipeline(transaction=False) as pipe:
            for key in batch:
                pipe.hget(key, "o")
            owners = pipe.execute(raise_on_error=False)  # what is no hash has none
        yield from (
            key for key, found in zip(batch, owners, strict=True) if found == owner.encode()
        )


def erase_quarantined(clients: Clients, owner: str, keys: Iterable[bytes], dry_run: bool) -> int:
    """Delete what is in quarantine under the ids that were an owner's, and return how many
    conversations that were. With one of these goes all that is in quarantine under its id: which
    of its parts belong together is not known. Raises what redis-py raises."""
    by_id: dict[bytes, set[bytes]] = defaultdict(set)
    for key in keys:
        by_id[_stem(key)].add(key)
    metas = {key for group in by_id.values() for key in group if b"}:meta:corrupt" in key}
    owned = set(keys_of(clients, owner, metas))
    with clients.sync() as client:
        redis = client.pooled()
        for stem in {_stem(key) for key in owned}:
            for key in () if dry_run else by_id[stem]:
                redis.unlink(key)
    return len(owned)


def _stem(key: bytes) -> bytes:
    return key.rpartition(b"}:")[0]
