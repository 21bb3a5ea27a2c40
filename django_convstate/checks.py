"""System checks: what is wrong with the settings is said at start, not by the first request.

E001  CONVERSATION_STATE has a key that is no setting
E002  a setting, or CONVERSATION_STATE itself, has an impossible value
E003  the backend cannot be imported, or is none
E004  CACHE_ALIAS is not in CACHES
E005  the cache keeps nothing
E006  the cache hides its outages
E007  the cookie has the name of another cookie
E008  the cache reads from replicas
E009  the cache behind the redis backend is not django-redis
E010  the entry of CACHES cannot be read, or its URL is none
E011  the entry of CACHES is inconsistent about Sentinel, so that no server can be found
E012  a cluster is to use a database other than 0
E014  the server is older than 6.2 (with --deploy, as E015 and E017)
E015  the server is a replica
E017  the server is a node of a cluster, and is taken for one by itself
E018  ConversationMiddleware is in MIDDLEWARE more than once
E019  ConversationMiddleware is before the middleware of sessions or users, which OWNER needs
E020  OWNER cannot be imported, or cannot be called
E021  the cookie's name has a prefix that its other settings contradict
E022  the cookie is partitioned, but not secure
E023  the entry of CACHES has a KEY_FUNCTION, which the redis backend does not apply
E024  the app of the database backend is not installed
E025  DATABASE_ALIAS is not in DATABASES
W001  conversations live in the memory of each process (with --deploy)
W002  the cache drops conversations beyond a small number
W003  the cache's Redis has no socket timeout
W004  the server cannot be reached, or refuses what is asked of it (with --deploy, as the next two)
W005  the server drops what is in use when memory is short
W006  the server has no maxmemory
W007  the cookie is for other sites too, but not secure
W008  the entry of CACHES is inconsistent about Sentinel, but a server can be found
W009  the cache is spread over several servers
W010  LOCATION and OPTIONS log in as different users
W011  ConversationMiddleware is not in MIDDLEWARE
W012  the server is too far away for its SOCKET_TIMEOUT (with --deploy)
W013  AuthenticationMiddleware is not in MIDDLEWARE, and OWNER is "user"
W014  the client of the cache sends writes again (cache backend)
W015  TTL is not set, and the database backend loses conversations after an hour
W016  migrations of the database backend are not applied (with --deploy, or --database)
W017  the database has no lock_timeout (with --deploy)
"""

import difflib
from collections.abc import Iterator
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from . import conf
from .backends import BUILT_IN, backend_class, backend_options
from .exceptions import InvalidBackend
from .http.identity import is_cookie_secure

# By name: to import the second where its app is not installed is an error.
OURS: Final = "django_convstate.middleware.ConversationMiddleware"
NEEDED: Final = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check the settings, and let the backend check what it needs. No I/O."""
    wrong: list[CheckMessage] = [
        Error(
            f"{problem.name} {problem.message}",
            hint=problem.hint,
            id="convstate.E001" if problem.unknown else "convstate.E002",
        )
        for problem in conf.problems()
    ]
    try:
        backend = backend_class(conf.backend_name())
    except InvalidBackend as error:
        hint = _which_instead(str(conf.backend_name()))
        return [*wrong, Error(f"{conf.BACKEND}: {error}", hint=hint, id="convstate.E003")]
    # With settings that cannot be read there is nothing to check a backend with.
    return wrong or [
        *_check_owner(),
        *_check_middleware(),
        *_check_cookie(),
        *backend.check(backend_options(backend)),
    ]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Warn of what is fine on a developer's machine only. The server may be asked."""
    if any(isinstance(message, Error) for message in check_settings()):
        return []  # nothing can be asked with settings that make no sense
    backend = backend_class(conf.backend_name())
    return backend.check_deployment(backend_options(backend))


def _which_instead(name: str) -> str:
    if name in BUILT_IN:
        return "Install that, or use 'locmem' or 'cache'."
    close = difflib.get_close_matches(name, BUILT_IN, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Built in are {', '.join(BUILT_IN)}."


def _check_owner() -> Iterator[CheckMessage]:
    owner = conf.current().owner
    if owner in ("user", None):
        return
    try:
        problem = None if callable(import_string(owner)) else "is not callable"
    except ImportError as error:
        problem = f"cannot be imported: {error}"
    if problem:
        yield Error(
            f"CONVERSATION_STATE['OWNER'], {owner!r}, {problem}.",
            hint="Write the dotted path of a function that takes the request and returns the "
            "owner, or None for an anonymous visitor.",
            id="convstate.E020",
        )


def _check_middleware() -> Iterator[CheckMessage]:
    ours = _places_of(OURS)
    if not ours:
        yield Warning(
            "ConversationMiddleware is not in MIDDLEWARE: requests have no conversation.",
            hint=f"Add {OURS!r}, after AuthenticationMiddleware. Where only websockets and "
            "commands have conversations, silence this.",
            id="convstate.W011",
        )
        return
    if len(ours) > 1:
        yield Error(
            "ConversationMiddleware is in MIDDLEWARE more than once: views would use one "
            "conversation, and clients be given the token of another.",
            hint=f"Keep one of {', '.join(repr(settings.MIDDLEWARE[place]) for place in ours)}.",
            id="convstate.E018",
        )
    if conf.current().owner != "user":
        return
    for needed in NEEDED:
        if any(place > ours[0] for place in _places_of(needed)):
            yield Error(
                f"ConversationMiddleware is before {needed.rpartition('.')[2]} in MIDDLEWARE, "
                "which it needs to know whose a conversation is.",
                hint=f"Move {settings.MIDDLEWARE[ours[0]]!r} behind it.",
                id="convstate.E019",
            )
    if apps.is_installed("django.contrib.auth") and not _places_of(NEEDED[-1]):
        yield Warning(
            "AuthenticationMiddleware is not in MIDDLEWARE, so each visitor counts as not logged "
            "in, unless a view or other middleware sets request.user.",
            hint=f"Add {NEEDED[-1]!r} before ConversationMiddleware. Where an API authenticates by "
            "token alone, silence this; for websockets alone, too. If conversations have no "
            "owners, set CONVERSATION_STATE['OWNER'] to None.",
            id="convstate.W013",
        )


def _places_of(middleware: str) -> list[int]:
    """Return where in MIDDLEWARE a class or a subclass of it is."""
    places = []
    for place, path in enumerate(settings.MIDDLEWARE):
        try:
            found = import_string(path)
        except ImportError:
            continue  # Django says so itself
        bases = found.__mro__ if isinstance(found, type) else ()
        if middleware in {f"{base.__module__}.{base.__qualname__}" for base in bases}:
            places.append(place)
    return places


def _check_cookie() -> Iterator[CheckMessage]:
    taken = {
        settings.SESSION_COOKIE_NAME: "SESSION_COOKIE_NAME",
        settings.CSRF_COOKIE_NAME: "CSRF_COOKIE_NAME",
        settings.LANGUAGE_COOKIE_NAME: "LANGUAGE_COOKIE_NAME",
    }
    options = conf.current()
    if options.cookie_samesite == "None" and not is_cookie_secure(options):
        yield Warning(
            "CONVERSATION_STATE['COOKIE_SAMESITE'] is 'None', but the cookie is not secure: "
            "browsers will not keep it.",
            hint="Set COOKIE_SECURE, or SESSION_COOKIE_SECURE, to True.",
            id="convstate.W007",
        )
    if options.cookie_partitioned and not is_cookie_secure(options):
        yield Error(
            "CONVERSATION_STATE['COOKIE_PARTITIONED'] is True, but the cookie is not secure: "
            "browsers will not keep it.",
            hint="Set COOKIE_SECURE, or SESSION_COOKIE_SECURE, to True.",
            id="convstate.E022",
        )
    name = options.cookie_name
    if name is None:
        return
    if problem := _contradicts_prefix(name.lower(), options):
        yield Error(
            f"CONVERSATION_STATE['COOKIE_NAME'] is {name!r}, but {problem}: browsers will not keep "
            "the cookie.",
            hint="A cookie whose name begins with __Secure- or __Host- has to be secure; with "
            "__Host-, COOKIE_PATH has to be '/' and COOKIE_DOMAIN None as well.",
            id="convstate.E021",
        )
    if name in taken:
        yield Error(
            f"CONVERSATION_STATE['COOKIE_NAME'] is {name!r}, as is {taken[name]}.",
            hint="Two cookies cannot have the same name.",
            id="convstate.E007",
        )


def _contradicts_prefix(name: str, options: conf.Options) -> str | None:
    if name.startswith(("__secure-", "__host-")) and not is_cookie_secure(options):
        return "neither COOKIE_SECURE nor SESSION_COOKIE_SECURE is True"
    if name.startswith("__host-") and options.cookie_path != "/":
        return f"COOKIE_PATH is {options.cookie_path!r}"
    if name.startswith("__host-") and options.cookie_domain is not None:
        return f"COOKIE_DOMAIN is {options.cookie_domain!r}"
    return None
