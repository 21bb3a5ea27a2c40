"""The backends by name, and how one is built."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .. import conf
from ..exceptions import InvalidBackend
from ..tracebacks import clears_locals
from .base import ConversationStateBackend
from .failover import FailoverBackend
from .locmem import LocMemBackend

# Two threads at the first use must not build two backends: what goes into one would be lost.
building: Final = threading.RLock()
# By class and options, so that a backend is there again when a test restores its settings.
_built: Final[dict[tuple[object, ...], ConversationStateBackend]] = {}
# For tests: the last of them is given the backend of a store, and returns what the store uses in
# its place.
stand_ins: Final[list[Callable[[ConversationStateBackend], ConversationStateBackend]]] = []

BUILT_IN: Final = {
    "locmem": "django_convstate.backends.locmem.LocMemBackend",
    "cache": "django_convstate.backends.cache.backend.CacheBackend",
    "database": "django_convstate.backends.database.backend.DatabaseBackend",
    "redis": "django_convstate.backends.redis.backend.RedisBackend",
}


def backend_class(name: object) -> type[ConversationStateBackend]:
    """Return the class for a short name or a dotted path.

    Raises:
        InvalidBackend: there is none, or it is not a backend.
    """
    if not isinstance(name, str):
        raise InvalidBackend(f"A backend is named by a string, not {type(name).__name__}.")
    try:
        found = import_string(BUILT_IN.get(name, name))
    except (ImportError, ValueError) as error:  # "." has an empty name
        if name in BUILT_IN:
            raise InvalidBackend(
                f"The backend {name!r} needs what is not installed: "
                f"pip install django-convstate[{name}]. ({error})"
            ) from error
        known = ", ".join(map(repr, BUILT_IN))
        raise InvalidBackend(
            f"There is no backend {name!r}: use {known} or the dotted path of a class. ({error})"
        ) from error
    if not (isinstance(found, type) and issubclass(found, ConversationStateBackend)):
        raise InvalidBackend(f"{name!r} is not a subclass of ConversationStateBackend.")
    if missing := getattr(found, "__abstractmethods__", None):
        lacking = ", ".join(sorted(missing))
        raise InvalidBackend(
            f"{name!r} lacks {lacking}. If it was written for version 0.1, see the chapter on "
            "moving to the second contract in docs/backends.md."
        )
    return found


def backend_options(cls: type[ConversationStateBackend]) -> dict[str, Any]:
    """Return the arguments that `cls` takes from CONVERSATION_STATE as it is set now."""
    options = conf.current()
    return {option: getattr(options, option) for option in options_of(cls)}


def options_of(cls: type[ConversationStateBackend]) -> tuple[str, ...]:
    """Return the keys of CONVERSATION_STATE that building a backend of `cls` takes."""
    if not cls.can_fall_back:
        return cls.option_names
    return (*cls.option_names, "fallback", "outage_memory")


@clears_locals
def get_backend(name: str, **options: Any) -> ConversationStateBackend:
    """Build a backend, with `options` over those in CONVERSATION_STATE.

    Args:
        name: a short name ("locmem", "cache") or a dotted path.
        options: keys of CONVERSATION_STATE in lower case, e.g. `cache_alias="chat"`.

    Raises:
        InvalidBackend: there is no such backend, or it does not take such options.
    """
    cls = backend_class(name)
    if surplus := options.keys() - set(options_of(cls)):
        raise InvalidBackend(
            f"The {cls.name} backend does not take {', '.join(sorted(surplus))}; "
            f"it takes {', '.join(options_of(cls))}."
        )
    try:
        checked = conf.with_overrides(conf.current(), options)
    except ImproperlyConfigured as error:
        raise InvalidBackend(str(error)) from error
    return _build(cls, **{option: getattr(checked, option) for option in options_of(cls)})


@cache
def default_backend() -> ConversationStateBackend:
    """Return the backend that the settings describe: the same one whenever they are the same.

    Raises:
        InvalidBackend, ImproperlyConfigured: the settings make no sense.
    """
    cls = backend_class(conf.backend_name())
    options = backend_options(cls)
    key = cls, *options.items()
    with building:
        if key not in _built:
            _built[key] = _build(cls, **options)
        return _built[key]


def _build(
    cls: type[ConversationStateBackend],
    fallback: str | None = None,
    outage_memory: float = 0,
    **options: Any,
) -> ConversationStateBackend:
    backend = cls(**options)
    if fallback is None:
        return backend
    return FailoverBackend(backend, LocMemBackend(), outage_memory=outage_memory)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in (conf.BACKEND, conf.OPTIONS):
        default_backend.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_convstate.backends")
