"""A look at what the redis backend keeps, past it."""

from typing import Any

from django.core.cache import caches

from django_convstate.backends.redis.operations import Operations

OPERATIONS = Operations("convstate", None)


def raw(alias: str = "django_redis") -> Any:
    """Return the client that the cache has."""
    client: Any = caches[alias]
    return client.client.get_client()


def key_of(id: str, part: str) -> str:
    return f"convstate:{{{id}}}:{part}"


def index_of(owner: str) -> str:
    """Return the key of an owner's index."""
    return OPERATIONS.index_key(owner)
