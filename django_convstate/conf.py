"""The settings: one says where conversations are kept, one dictionary says how.

`current()` is what the project has set, defaults filled in and every value checked. It is computed
once and again after each `override_settings`.
"""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypedDict

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

BACKEND: Final = "CONVERSATION_STATE_BACKEND"
OPTIONS: Final = "CONVERSATION_STATE"
TEN_YEARS: Final = 10 * 366 * 24 * 3600

# A check takes a value and returns what is wrong with it, or None.
Check = Callable[[object], str | None]


def seconds(value: object) -> str | None:
    """Check a duration: an int or float above 0, at most ten years."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"must be a number of seconds, not {type(value).__name__}"
    if not 0 < value <= TEN_YEARS:  # NaN fails it too
        return f"must be above 0 and at most {TEN_YEARS} seconds (ten years)"
    return None


def lifetime(value: object) -> str | None:
    """Check a duration that may be `math.inf`, for what is kept for ever."""
    return None if value == math.inf else seconds(value)


def seconds_or_zero(value: object) -> str | None:
    """Check a duration that may be 0, for what is not to be done."""
    return None if value == 0 and not isinstance(value, bool) else seconds(value)


def _whole(minimum: int, maximum: int = 2**31 - 1) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return f"must be a whole number, not {type(value).__name__}"
        return None if minimum <= value <= maximum else f"must be from {minimum} to {maximum}"

    return check


def _text(pattern: str, meaning: str) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII):
            return None
        return f"must be {meaning}"

    return check


def _one_of(*allowed: object) -> Check:
    def check(value: object) -> str | None:
        if any(value is item or (isinstance(value, str) and value == item) for item in allowed):
            return None
        return f"must be one of {', '.join(map(repr, allowed))}"

    return check


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


_NAME = _text(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "a name of letters, digits and dashes")


def _setting(default: object, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keys of CONVERSATION_STATE in lower case, each with its default and its check.

    Durations are in seconds, sizes in bytes of JSON, but for `max_bytes`, which are of memory.
    """

    ttl: float = _setting(3600, lifetime)
    max_age: float | None = _setting(None, _optional(seconds))
    cache_alias: str = _setting("default", _text(r".+", "the name of an entry in CACHES"))
    database_alias: str = _setting("default", _text(r".+", "the name of an entry in DATABASES"))
    key_prefix: str = _setting(
        "convstate",
        _text(r"[A-Za-z0-9_.:-]{1,64}", "1 to 64 letters, digits and _ . : -"),
    )
    fallback: str | None = _setting("locmem", _one_of("locmem", None))
    window: int = _setting(50, _whole(1))
    turn_wait: float = _setting(30, seconds)
    outage_memory: float = _setting(600, seconds_or_zero)
    max_conversations: int = _setting(1000, _whole(1))
    max_bytes: int = _setting(64 * 2**20, _whole(1, 2**50))
    max_state_bytes: int = _setting(262_144, _whole(1))
    max_message_bytes: int = _setting(65_536, _whole(1))
    max_messages: int | None = _setting(None, _optional(_whole(1)))
    when_full: Literal["refuse", "drop_oldest"] = _setting(
        "refuse", _one_of("refuse", "drop_oldest")
    )
    # Whether a dotted path can be imported is left to a system check.
    owner: str | None = _setting(
        "user",
        _optional(
            _text(
                r"user|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+",
                "'user', the dotted path of a callable, or None",
            )
        ),
    )
    on_login: Literal["claim", "fresh"] = _setting("claim", _one_of("claim", "fresh"))
    cookie_name: str | None = _setting("conversation", _optional(_NAME))
    cookie_age: int | None = _setting(None, _optional(_whole(1)))
    cookie_path: str = _setting("/", _text(r"/[^;\s]*", 'a path beginning with "/"'))
    cookie_domain: str | None = _setting(
        None, _optional(_text(r"\.?[A-Za-z0-9.-]+", "a domain name or None"))
    )
    cookie_secure: bool | None = _setting(None, _one_of(True, False, None))
    cookie_httponly: bool = _setting(True, _one_of(True, False))
    cookie_samesite: str | bool = _setting("Lax", _one_of("Lax", "Strict", "None", False))
    cookie_partitioned: bool = _setting(False, _one_of(True, False))
    header_name: str | None = _setting(
        None,
        # WSGI servers drop headers with underscores, and Cookie is taken.
        _optional(
            _text(r"(?!(?i:cookie)$)[0-9A-Za-z-]+", "a header of letters, digits and dashes")
        ),
    )


_CHECKS: Final[dict[str, Check]] = {
    option.name: option.metadata["check"] for option in dataclasses.fields(Options)
}


_DEFAULTS: Final = Options()


class StoreOptions(TypedDict, total=False):
    """What `ConversationStore` takes: the keys of CONVERSATION_STATE in lower case. Durations are
    in seconds, sizes in bytes of JSON, but for `max_bytes`, which are of memory."""

    ttl: float
    max_age: float | None
    cache_alias: str
    database_alias: str
    key_prefix: str
    fallback: str | None
    window: int
    turn_wait: float
    outage_memory: float
    max_conversations: int
    max_bytes: int
    max_state_bytes: int
    max_message_bytes: int
    max_messages: int | None
    when_full: Literal["refuse", "drop_oldest"]
    owner: str | None
    on_login: Literal["claim", "fresh"]
    cookie_name: str | None
    cookie_age: int | None
    cookie_path: str
    cookie_domain: str | None
    cookie_secure: bool | None
    cookie_httponly: bool
    cookie_samesite: str | bool
    cookie_partitioned: bool
    header_name: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one setting: `name` as written, `message`, and perhaps a `hint`."""

    name: str
    message: str
    hint: str | None = None
    unknown: bool = False


def problems() -> Iterator[Problem]:
    """Yield everything that is wrong with CONVERSATION_STATE as it is set now."""
    for name in dir(django_settings):
        if name.startswith("CONVERSATION") and name not in (BACKEND, OPTIONS):
            close = difflib.get_close_matches(name, [BACKEND, OPTIONS], n=1, cutoff=0.8)
            if close:
                yield Problem(name, "is not a setting.", f"Did you mean {close[0]!r}?", True)
    configured = getattr(django_settings, OPTIONS, {})
    if not isinstance(configured, dict):
        yield Problem(OPTIONS, f"must be a dictionary, not {type(configured).__name__}.")
        return
    for name, value in configured.items():
        option = name.lower() if isinstance(name, str) and name.isupper() else None
        if option not in _CHECKS:
            yield Problem(f"{OPTIONS}[{name!r}]", "is not a setting.", _suggestion(name), True)
        elif message := _CHECKS[option](value):
            default = getattr(_DEFAULTS, str(option))
            yield Problem(f"{OPTIONS}[{name!r}]", f"{message}.", f"The default is {default!r}.")


def _suggestion(name: object) -> str:
    known = [option.upper() for option in _CHECKS]
    close = difflib.get_close_matches(str(name).upper(), known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(known)}."


@functools.cache
def current() -> Options:
    """Return the options in force.

    Raises:
        ImproperlyConfigured: one of them is unknown or has an impossible value.
    """
    for problem in problems():
        raise ImproperlyConfigured(
            " ".join(filter(None, (problem.name, problem.message, problem.hint)))
        )
    configured = getattr(django_settings, OPTIONS, {})
    return Options(**{name.lower(): value for name, value in configured.items()})


def backend_name() -> str:
    """Return CONVERSATION_STATE_BACKEND: a short name or a dotted path."""
    return getattr(django_settings, BACKEND, "locmem")


def with_overrides(options: Options, overrides: dict[str, object]) -> Options:
    """Return `options` with the keyword arguments of a store of one's own.

    Raises:
        ImproperlyConfigured: one of them is unknown or has an impossible value.
    """
    for name, value in overrides.items():
        if name not in _CHECKS:
            raise ImproperlyConfigured(f"{name!r} is not an option. {_suggestion(name).lower()}")
        if message := _CHECKS[name](value):
            raise ImproperlyConfigured(f"{name} {message}.")
    return dataclasses.replace(options, **overrides) if overrides else options  # type: ignore[arg-type]


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in (BACKEND, OPTIONS):
        current.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_convstate.conf")
