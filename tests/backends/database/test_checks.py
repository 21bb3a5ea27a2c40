"""What is said when the backend cannot work, or will not do what is expected of it."""

import math
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connections

from django_convstate import get_backend
from django_convstate.backends.database.checks import check_databases, check_server
from django_convstate.checks import check_deployment
from django_convstate.exceptions import BackendUnavailable, InvalidBackend
from django_convstate.ids import new_id

APP = "django_convstate.backends.database"


@pytest.fixture
def settings(settings: Any) -> Any:
    settings.CONVERSATION_STATE_BACKEND = "database"
    settings.CONVERSATION_STATE = {"TTL": math.inf}
    return settings


def ids() -> list[str | None]:
    said = [each.id for each in run_checks(databases=[])]
    return [id for id in said if (id or "").startswith("convstate.")]


def test_all_is_well(settings: Any) -> None:
    assert ids() == []


def test_the_app_is_not_installed(settings: Any) -> None:
    apps = [app for app in settings.INSTALLED_APPS if app not in (APP, "tests.support.host")]
    settings.INSTALLED_APPS = apps
    (message,) = [each for each in run_checks(databases=[]) if each.id == "convstate.E024"]
    assert f"Add {APP!r} to INSTALLED_APPS" in str(message.hint)
    with pytest.raises(InvalidBackend, match="INSTALLED_APPS"):
        get_backend("database")


def test_the_alias_is_unknown(settings: Any) -> None:
    settings.CONVERSATION_STATE = {"TTL": math.inf, "DATABASE_ALIAS": "nowhere"}
    assert ids() == ["convstate.E025"]


def test_ttl_is_left_at_an_hour(settings: Any) -> None:
    settings.CONVERSATION_STATE = {}
    assert ids() == ["convstate.W015"]
    settings.CONVERSATION_STATE = {"TTL": 3600}
    assert ids() == [], "somebody has thought about it"


def test_migrations_are_not_applied(settings: Any, sqlite: str, tmp_path: Any) -> None:
    entry = connections.settings[sqlite] | {"NAME": tmp_path / "empty.sqlite3"}
    connections.settings["empty"] = entry
    try:
        settings.CONVERSATION_STATE = {"TTL": math.inf, "DATABASE_ALIAS": "empty"}
        (message,) = check_server("empty")
        assert message.id == "convstate.W016"
        assert message.hint == "Run `manage.py migrate convstate_database --database empty`."
        assert check_databases(databases=["empty"]) == [message]
        assert check_databases(databases=[sqlite]) == check_databases() == []
        with pytest.raises(BackendUnavailable, match=r"manage\.py migrate convstate_database"):
            get_backend("database", database_alias="empty").load(new_id(), 1)
    finally:
        connections["empty"].close()
        del connections["empty"], connections.settings["empty"]


def test_migrations_are_applied(settings: Any, database: str) -> None:
    assert list(check_server(database)) == []


def test_a_save_may_wait_for_ever(settings: Any, postgres: str) -> None:
    settings.CONVERSATION_STATE = {"TTL": math.inf, "DATABASE_ALIAS": postgres}
    (message,) = check_deployment()
    assert message.id == "convstate.W017"
    with connections[postgres].cursor() as cursor:
        cursor.execute("SET lock_timeout = '5s'")
    assert check_deployment() == []
    connections[postgres].close()
