"""What is wrong with the settings is said by a system check, not by the first request alone."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, get_type_hints

import pytest
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import Error, Warning, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpResponse

from django_convstate import (
    ConversationStore,
    InvalidBackend,
    checks,
    conf,
    conversations,
    get_backend,
)
from django_convstate.checks import check_deployment, check_settings
from django_convstate.middleware import ConversationMiddleware
from django_convstate.typing import StoreOptions


def found(settings: Any, options: Any = None, backend: Any = "locmem") -> list[tuple[str, str]]:
    settings.CONVERSATION_STATE_BACKEND = backend
    settings.CONVERSATION_STATE = {} if options is None else options
    return [
        (str(message.id), f"{message.msg} {message.hint or ''}") for message in check_settings()
    ]


def test_the_defaults_are_fine(settings: Any) -> None:
    assert found(settings) == []
    assert [m for m in run_checks(databases=[]) if str(m.id).startswith("convstate")] == []


def test_every_documented_setting_may_be_set(settings: Any) -> None:
    everything = {
        "TTL": 60,
        "MAX_AGE": 86400,
        "CACHE_ALIAS": "default",
        "DATABASE_ALIAS": "default",
        "KEY_PREFIX": "my-app:chat",
        "FALLBACK": None,
        "WINDOW": 20,
        "TURN_WAIT": 10,
        "OUTAGE_MEMORY": 60,
        "MAX_CONVERSATIONS": 10,
        "MAX_BYTES": 2**32,
        "MAX_STATE_BYTES": 1000,
        "MAX_MESSAGE_BYTES": 1000,
        "MAX_MESSAGES": 500,
        "WHEN_FULL": "drop_oldest",
        "OWNER": None,
        "ON_LOGIN": "fresh",
        "COOKIE_NAME": "chat",
        "COOKIE_AGE": 1209600,
        "COOKIE_PATH": "/chat",
        "COOKIE_DOMAIN": ".example.com",
        "COOKIE_SECURE": True,
        "COOKIE_HTTPONLY": True,
        "COOKIE_SAMESITE": "None",
        "COOKIE_PARTITIONED": True,
        "HEADER_NAME": "X-Conversation-Token",
    }
    assert found(settings, everything) == []
    assert {name.lower() for name in everything} == set(conf.Options.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("TLL", "'TTL'"), ("ttl", "'TTL'"), ("MAX_MESAGES", "'MAX_MESSAGES'"), ("X", "Known are")],
)
def test_a_misspelt_setting_is_an_error_with_a_suggestion(
    settings: Any, name: str, suggested: str
) -> None:
    ((id, text),) = found(settings, {name: 1})
    assert id == "convstate.E001"
    assert suggested in text
    with pytest.raises(ImproperlyConfigured, match="is not a setting"):
        conversations.create()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("TTL", [0, -1, float("nan"), float("-inf"), True, "3600", 10**12, None, 10**5000]),
        ("MAX_AGE", [0, True, "1", float("inf")]),
        ("WINDOW", [0, -1, 1.5, "50", True, None, 10**5000]),
        ("OUTAGE_MEMORY", [-1, False, None, "600", float("inf"), float("nan")]),
        ("MAX_CONVERSATIONS", [0, None]),
        ("MAX_BYTES", [0, None, 1.5, 2**51]),
        ("MAX_STATE_BYTES", [0, None]),
        ("MAX_MESSAGES", [0, "1"]),
        ("WHEN_FULL", ["drop", True, None]),
        ("KEY_PREFIX", ["", "a b", "a{b}", "a*", "é", "x" * 65, None, "a\n"]),
        ("CACHE_ALIAS", ["", None, 5]),
        ("DATABASE_ALIAS", ["", None, 5]),
        ("FALLBACK", ["redis", True]),
        ("OWNER", ["", "users", "a.", ".a", "a b.c", "a.1", True, 5]),
        ("ON_LOGIN", ["claims", True, None]),
        ("COOKIE_NAME", ["", "a b", "a;b", "é", 5]),
        ("COOKIE_PATH", ["", "chat", "/a;b"]),
        ("COOKIE_SECURE", ["yes", 1]),
        ("COOKIE_SAMESITE", ["lax!", True, None]),
        ("COOKIE_PARTITIONED", [1, "yes", None]),
        ("HEADER_NAME", ["", "a b", "a:b", "X_Token", "Cookie"]),
    ],
)
def test_an_impossible_value_is_an_error(settings: Any, name: str, values: list[Any]) -> None:
    for value in values:
        ((id, text),) = found(settings, {name: value})
        assert id == "convstate.E002", value
        assert name in text
        with pytest.raises(ImproperlyConfigured, match=name):
            conversations.create()


def test_a_misspelt_name_of_the_setting_itself_is_an_error(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKND = "cache"
    ((id, text),) = found(settings)
    assert id == "convstate.E001"
    assert "'CONVERSATION_STATE_BACKEND'" in text


def test_every_error_has_a_hint(settings: Any) -> None:
    for options, backend in (({"TTL": 0}, "locmem"), ({"TLL": 0}, "locmem"), ({}, "lokmem")):
        found(settings, options, backend)
        assert all(message.hint for message in check_settings())
    assert "'locmem'" in str(check_settings()[0].hint)


def test_samesite_none_without_secure_is_warned_of(settings: Any) -> None:
    ((id, _),) = found(settings, {"COOKIE_SAMESITE": "None"})
    assert id == "convstate.W007"
    assert found(settings, {"COOKIE_SAMESITE": "None", "COOKIE_SECURE": True}) == []


def test_an_abstract_backend_is_an_error(settings: Any) -> None:
    ((id, text),) = found(
        settings, backend="django_convstate.backends.base.ConversationStateBackend"
    )
    assert id == "convstate.E003"
    assert "lacks" in text


def test_a_setting_that_is_no_dictionary_is_an_error(settings: Any) -> None:
    ((id, text),) = found(settings, ["TTL"])
    assert id == "convstate.E002"
    assert "dictionary" in text


@pytest.mark.parametrize(
    "backend",
    [
        "lokmem",
        "no.such.Backend",
        "tests.support.backends.Missing",
        "tests.support.backends.NotABackend",
        5,
        "",
    ],
)
def test_an_unknown_backend_is_an_error(settings: Any, backend: Any) -> None:
    ((id, _),) = found(settings, backend=backend)
    assert id == "convstate.E003"
    with pytest.raises(InvalidBackend):
        conversations.get("a")
    with pytest.raises(ImproperlyConfigured):
        get_backend(backend)


def test_the_cache_of_the_cache_backend_is_checked(settings: Any) -> None:
    ((id, text),) = found(settings, {"CACHE_ALIAS": "defualt"}, "cache")
    assert id == "convstate.E004"
    assert "'default'" in text
    ((id, _),) = found(settings, {"CACHE_ALIAS": "dummy"}, "cache")
    assert id == "convstate.E005"
    redis = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {"default": redis}
    ((id, _),) = found(settings, backend="cache")
    assert id == "convstate.W003"
    settings.CACHES = {
        "default": redis | {"OPTIONS": {"IGNORE_EXCEPTIONS": True, "SOCKET_TIMEOUT": 1}}
    }
    ((id, _),) = found(settings, backend="cache")
    assert id == "convstate.E006"
    settings.CACHES = {
        "default": {
            **redis,
            "LOCATION": ["redis://a", "redis://b"],
            "OPTIONS": {"SOCKET_TIMEOUT": 1},
        }
    }
    ((id, _),) = found(settings, backend="cache")
    assert id == "convstate.E008"
    for sloppy in ({}, {"BACKEND": "x.LocMemCache", "OPTIONS": None, "MAX_ENTRIES": "many"}):
        settings.CACHES = {"default": sloppy}
        assert {id for id, _ in found(settings, backend="cache")} <= {"convstate.W002"}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    ((id, text),) = found(settings, backend="cache")
    assert id == "convstate.W002"
    assert "300" in text


def test_a_cookie_name_used_twice_is_an_error(settings: Any) -> None:
    ((id, _),) = found(settings, {"COOKIE_NAME": "sessionid"})
    assert id == "convstate.E007"


SECURE = {"COOKIE_SECURE": True}


@pytest.mark.parametrize(
    ("options", "is_fine"),
    [
        ({"COOKIE_NAME": "__Secure-chat"}, False),
        ({"COOKIE_NAME": "__Secure-chat"} | SECURE, True),
        ({"COOKIE_NAME": "__Secure-chat", "COOKIE_PATH": "/chat"} | SECURE, True),
        ({"COOKIE_NAME": "__Host-chat"}, False),
        ({"COOKIE_NAME": "__Host-chat"} | SECURE, True),
        ({"COOKIE_NAME": "__Host-chat", "COOKIE_PATH": "/chat"} | SECURE, False),
        ({"COOKIE_NAME": "__Host-chat", "COOKIE_DOMAIN": "example.com"} | SECURE, False),
        ({"COOKIE_NAME": "__host-chat"}, False),
        ({"COOKIE_NAME": None}, True),
        ({"COOKIE_NAME": None, "HEADER_NAME": "X-Tab"}, True),
    ],
)
def test_a_prefix_of_the_cookies_name_is_a_promise(
    settings: Any, options: Any, is_fine: bool
) -> None:
    ids = [id for id, _ in found(settings, options)]
    assert ids == ([] if is_fine else ["convstate.E021"])


def test_a_secure_session_cookie_makes_ours_secure_too(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = True
    assert found(settings, {"COOKIE_NAME": "__Host-chat", "COOKIE_PARTITIONED": True}) == []


def test_a_partitioned_cookie_that_is_not_secure_is_an_error(settings: Any) -> None:
    ((id, text),) = found(settings, {"COOKIE_PARTITIONED": True})
    assert id == "convstate.E022"
    assert "COOKIE_SECURE" in text
    assert found(settings, {"COOKIE_PARTITIONED": True} | SECURE) == []


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ("no.such.function", "cannot be imported"),
        ("tests.settings.no_such_function", "cannot be imported"),
        ("tests.settings.SECRET_KEY", "is not callable"),
    ],
)
def test_an_owner_that_cannot_be_called_is_an_error(settings: Any, owner: str, said: str) -> None:
    ((id, text),) = found(settings, {"OWNER": owner})
    assert id == "convstate.E020"
    assert said in text


@pytest.mark.parametrize("owner", ["user", None, "tests.test_settings.found"])
def test_an_owner_that_can_be_found_is_fine(settings: Any, owner: Any) -> None:
    assert found(settings, {"OWNER": owner}) == []


class Ours(ConversationMiddleware):
    pass


class Users(AuthenticationMiddleware):
    pass


OURS = "django_convstate.middleware.ConversationMiddleware"
OF_A_PROJECT = f"{__name__}.Ours"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
USER = "django.contrib.auth.middleware.AuthenticationMiddleware"


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([SESSION, USER, OURS], []),
        ([SESSION, USER, OF_A_PROJECT], []),
        ([SESSION, OURS], ["W013"]),
        ([OURS], ["W013"]),
        ([], ["W011"]),
        ([SESSION, USER], ["W011"]),
        ([SESSION, USER, OURS, OURS], ["E018"]),
        ([SESSION, USER, OURS, OF_A_PROJECT], ["E018"]),
        ([OURS, SESSION, USER], ["E019", "E019"]),
        ([SESSION, OURS, USER], ["E019"]),
        ([SESSION, OF_A_PROJECT, USER], ["E019"]),
        ([OURS, SESSION, USER, OURS], ["E018", "E019", "E019"]),
        ([SESSION, USER, "no.such.Middleware", OURS], []),
        ([SESSION, USER, "tests.http.test_caching.touching", OURS], []),
        ([SESSION, f"{__name__}.Users", OURS], []),
    ],
)
def test_the_places_of_the_middleware_are_checked(
    settings: Any, middleware: list[str], expected: list[str]
) -> None:
    settings.MIDDLEWARE = middleware
    assert [id.removeprefix("convstate.") for id, _ in found(settings)] == expected
    for _, hint in found(settings):
        assert "ConversationMiddleware" in hint


def test_without_users_as_owners_the_middleware_needs_no_user(settings: Any) -> None:
    for settings.MIDDLEWARE in ([OURS, SESSION, USER], [OURS]):
        assert found(settings, {"OWNER": None}) == []


def test_without_the_app_of_users_nor_does_it(settings: Any) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if "auth" not in app]
    settings.MIDDLEWARE = [OURS]
    assert found(settings) == []


@pytest.mark.django_db  # Django 6.1 asks it what it can
def test_an_api_of_tokens_alone_silences_that(settings: Any) -> None:
    settings.MIDDLEWARE = [OURS]
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if "admin" not in app]
    for silenced in ([], ["convstate.W013"]):
        settings.SILENCED_SYSTEM_CHECKS = silenced
        out = io.StringIO()
        call_command("check", stdout=out, stderr=out)
        assert ("W013" in out.getvalue()) == (not silenced)


def test_the_middleware_needs_its_app(settings: Any) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if "convstate" not in app]
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        ConversationMiddleware(lambda request: HttpResponse())


def test_locmem_in_deployment_is_warned_of(settings: Any) -> None:
    (message,) = check_deployment()
    assert message.id == "convstate.W001"
    settings.CONVERSATION_STATE_BACKEND = "cache"
    assert check_deployment() == []
    settings.CONVERSATION_STATE_BACKEND = "nonsense"
    assert check_deployment() == []


@pytest.mark.django_db  # Django 6.1 asks it what it can
def test_the_check_command_reports_a_misspelt_setting(settings: Any) -> None:
    settings.CONVERSATION_STATE = {"TLL": 5}
    with pytest.raises(SystemCheckError, match="Did you mean 'TTL'"):
        call_command("check", stdout=io.StringIO())


def test_checks_have_hints_and_ids_of_their_own(settings: Any) -> None:
    ids = {
        id
        for options, backend in [
            ({"TLL": 1}, "locmem"),
            ({"TTL": 0}, "locmem"),
            ({}, "nonsense"),
            ({"CACHE_ALIAS": "nowhere"}, "cache"),
            ({"CACHE_ALIAS": "dummy"}, "cache"),
        ]
        for id, _ in found(settings, options, backend)
    }
    assert ids == {f"convstate.E00{n}" for n in range(1, 6)}
    for message in (*check_settings(), *check_deployment()):
        assert isinstance(message, (Error, Warning))


def test_options_given_in_code_are_checked() -> None:
    with pytest.raises(InvalidBackend, match="does not take cache_alias"):
        get_backend("locmem", cache_alias="default")
    with pytest.raises(InvalidBackend, match="max_conversations must be from 1"):
        get_backend("locmem", max_conversations=0)
    with pytest.raises(ImproperlyConfigured, match="tll"):
        ConversationStore("locmem", tll=5).create()  # type: ignore[call-arg]
    with pytest.raises(ImproperlyConfigured, match="ttl"):
        ConversationStore("locmem", ttl="5").create()  # type: ignore[arg-type]


def test_the_options_of_a_store_are_typed_as_the_settings_are() -> None:
    assert get_type_hints(StoreOptions) == get_type_hints(conf.Options)


def test_nothing_happens_at_import_or_attach(settings: Any) -> None:
    """With a backend that cannot even be imported, the app starts and a store can be described."""
    settings.CONVERSATION_STATE_BACKEND = "no.such.Backend"
    store = ConversationStore("no.such.Backend", ttl=5)
    with pytest.raises(InvalidBackend):
        store.exists("a")


def test_every_id_of_a_check_is_documented() -> None:
    package = Path(checks.__file__).parent
    used = {
        id
        for file in package.rglob("*.py")
        for id in re.findall(r'"convstate\.([EW]\d{3})"', file.read_text())
    }
    table = re.findall(r"^([EW]\d{3})  ", checks.__doc__ or "", re.MULTILINE)
    assert table == sorted(used)


def without(packages: tuple[str, ...], program: str) -> str:
    """Run `program` in a process in which nobody can import `packages`; return what it says."""
    absent = f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {packages!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
    """
    whole = dedent(absent) + dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, check=False
    )
    return done.stderr


def test_a_backend_whose_extra_is_missing_says_what_to_install() -> None:
    said = without(
        ("redis", "django_redis", "hiredis"),
        """
        import django
        from django.conf import settings
        from django.core.management import call_command

        settings.configure(
            SECRET_KEY="x" * 50,
            INSTALLED_APPS=["django_convstate"],
            CONVERSATION_STATE_BACKEND="redis",
        )
        django.setup()
        call_command("check")
        """,
    )
    assert "pip install django-convstate[redis]" in said
    assert "Did you mean" not in said


def test_missing_channels_says_what_to_install() -> None:
    said = without(("channels",), "import django_convstate.channels")
    assert "pip install django-convstate[channels]" in said


def test_the_package_can_be_imported_before_there_are_settings() -> None:
    environment = dict(os.environ)
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    code = "import django_convstate, django_convstate.middleware, django_convstate.decorators"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
