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
the cluster. What the cache does to many keys at once, its client splits by slot.
"""

import threading
from typing import Any, ClassVar

from django_redis.pool import ConnectionFactory
from redis.cluster import RedisCluster


class ClusterConnectionFactory(ConnectionFactory):  # type: ignore[misc]
    """Makes one `RedisCluster` for each URL, which keeps a pool of connections to each node."""

    _clusters: ClassVar[dict[str, RedisCluster]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def get_connection(self, params: dict[str, Any]) -> RedisCluster:
        url = params["url"]
        with self._guard:
            if url not in self._clusters:
                kwargs = {name: value for name, value in params.items() if name != "parser_class"}
                self._clusters[url] = RedisCluster.from_url(
                    **kwargs | self.pool_cls_kwargs | self.redis_client_cls_kwargs
                )
            return self._clusters[url]

    def disconnect(self, connection: RedisCluster) -> None:
        with self._guard:
            for url, cluster in list(self._clusters.items()):
                if cluster is connection:
                    del self._clusters[url]
        connection.close()
