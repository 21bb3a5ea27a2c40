"""A look at what the redis backend keeps, past it."""

from collections.abc import Callable
from typing import Any, Final

from django.core.cache import caches

from django_convstate.backends.redis.operations import Operations

OPERATIONS = Operations("convstate", None)
# What their arguments say is how much they read or drop.
RANGES: Final = ("LRANGE", "LTRIM", "LPOP", "LINDEX")


def raw(alias: str = "django_redis") -> Any:
    """Return the client that the cache has."""
    client: Any = caches[alias]
    return client.client.get_client()


def key_of(id: str, part: str, prefix: str = "convstate") -> str:
    return f"{prefix}:{{{id}}}:{part}"


def index_of(owner: str) -> str:
    """Return the key of an owner's index."""
    return OPERATIONS.index.keys(owner)[0]


def saved_index_of(owner: str) -> str:
    """Return the key of the part of it that says when a conversation was last saved."""
    return OPERATIONS.index.keys(owner)[1]


def commands_of(
    use: Callable[[], object], count: int = 0
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the commands that reach the server while `use` runs, and what scripts call: names, and
    how much is to be read.

    Where one of `count` messages is read by its index, that is told from the nearer end: the time
    that it takes depends on that.
    """
    client = raw()
    sent, called = list[str](), list[tuple[str, ...]]()
    with client.monitor() as monitor:
        use()
        client.echo("the end")
        for command in monitor.listen():
            name, *arguments = command["command"].split()
            if name == "ECHO":
                return sent, called
            if command["client_type"] == "lua":
                wanted = [argument.strip('"') for argument in arguments[1:]]
                if name == "LINDEX" and (index := int(wanted[0])) > count // 2:
                    wanted = [str(index - count)]
                called.append((name, *(wanted if name in RANGES else ())))
            elif name not in ("HELLO", "CLIENT"):
                sent.append(name)
    raise AssertionError("The monitor ended.")
