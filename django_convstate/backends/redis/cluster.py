"""The connection factory that gives django-redis a cluster:

    CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://node1:6379",
            "OPTIONS": {
                "CONNECTION_FACTORY": (
                    "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
                ),
            },
        }
    }

One node is enough, the others are found through it. The cache and the redis backend then both use
the cluster. Where the cache reads, writes or deletes many keys at once, each slot is asked by
itself, so that others may see a part of it done.
"""

from typing import Any, ClassVar

from django_redis.pool import ConnectionFactory
from redis.cluster import RedisCluster


class CacheCluster(RedisCluster):
    """A client that does by slots what django-redis asks of all keys at once."""

    def close(self) -> None:
        """Close all connections. redis-py leaves them open in a client that was made of a URL, and
        then each raises a `ResourceWarning` when it is collected."""
        if getattr(self, "nodes_manager", None) is not None:  # discovery may have failed
            self.disconnect_connection_pools()  # type: ignore[no-untyped-call]
        super().close()

    def mget(self, keys: Any, *args: Any) -> list[Any]:
        """Return the values of `keys`, asking each slot by itself."""
        values: list[Any] = self.mget_nonatomic(keys, *args)
        return values

    def keys(self, pattern: Any = "*", **kwargs: Any) -> list[Any]:
        """Return the keys that match `pattern`, on all primaries."""
        found: list[Any] = super().keys(pattern, target_nodes=self.PRIMARIES, **kwargs)
        return found


class ClusterConnectionFactory(ConnectionFactory):  # type: ignore[misc]
    """Makes one client for each URL and options, which keeps a pool of connections to each node."""

    _clusters: ClassVar[dict[str, CacheCluster]] = {}

    def get_connection(self, params: dict[str, Any]) -> CacheCluster:
        """Return the client for a URL and options, the same one each time."""
        kwargs = {name: value for name, value in params.items() if name != "parser_class"}
        kwargs |= self.pool_cls_kwargs | self.redis_client_cls_kwargs
        key = repr(sorted(kwargs.items()))
        if (known := self._clusters.get(key)) is not None:
            return known
        # Not under a lock: it asks where the nodes are, which may take its time.
        made: Any = CacheCluster.from_url(**kwargs)
        kept: CacheCluster = self._clusters.setdefault(key, made)
        if kept is not made:
            made.close()
        return kept

    def disconnect(self, connection: CacheCluster) -> None:
        """Close a client, and forget it."""
        for key, cluster in list(self._clusters.items()):
            if cluster is connection:
                self._clusters.pop(key, None)
        connection.close()
