"""A store that is unavailable for a while."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from ..backends.base import ConversationStateBackend
from ..backends.failover import FailoverBackend
from ..backends.reports import Health
from ..exceptions import BackendUnavailable
from .isolation import current_stores

_OPERATIONS: Final = (
    *("load", "peek", "read_messages", "find", "exists"),
    *("commit", "touch", "delete", "rename", "restore", "acquire", "renew", "release"),
    *("scan", "purge"),
)
_DETAIL: Final = "The store is away, in this test."


@contextmanager
def store_away() -> Iterator[None]:
    """Have every store be unavailable in a with block, to sync and async code.

    Where FALLBACK is None, or the backend has no fallback, each operation raises
    `BackendUnavailable`. Else this is an outage: conversations go on in memory, and when the block
    ends, what was changed is replayed before anything else is done.

    Raises:
        RuntimeError: the test has no empty store.
    """
    stores = current_stores()
    if _cut_off in stores.on_new:
        raise RuntimeError("The store is away already.")
    stores.on_new.append(_cut_off)
    for backend in stores.backends():
        _cut_off(backend)
    try:
        yield
    finally:
        stores.on_new.remove(_cut_off)
        for backend in stores.backends():
            if isinstance(backend, FailoverBackend):
                backend.end_outage(partial(_restore, backend.primary))
            else:
                _restore(backend)


def _cut_off(backend: ConversationStateBackend) -> None:
    """Put what refuses before the methods of a backend, or of the one that it falls back from."""
    primary = backend.primary if isinstance(backend, FailoverBackend) else backend
    for name in _OPERATIONS:
        setattr(primary, name, _refusal(name))
        setattr(primary, f"a{name}", _arefusal(f"a{name}"))
    health = Health(primary.name, connected=False, detail=_DETAIL)

    async def ahealth() -> Health:
        return health

    vars(primary).update(ascan=_ascan, health=lambda: health, ahealth=ahealth)


def _restore(primary: ConversationStateBackend) -> None:
    for name in (*_OPERATIONS, "health"):
        delattr(primary, name)
        delattr(primary, f"a{name}")


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise BackendUnavailable(_DETAIL)

    refuse.__name__ = name  # which observers are told
    return refuse


def _arefusal(name: str) -> Callable[..., Any]:
    async def refuse(*args: Any, **kwargs: Any) -> Any:
        raise BackendUnavailable(_DETAIL)

    refuse.__name__ = name  # which observers are told
    return refuse


async def _ascan(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    raise BackendUnavailable(_DETAIL)
    yield  # which makes it a generator
