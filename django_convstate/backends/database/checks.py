"""What the database backend checks: its app, its entry of DATABASES, its tables, and TTL."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, InterfaceError, connections

from ... import conf
from ..records import DEFAULT_TTL

LABEL: Final = "convstate_database"
MISSING_APP: Final = (
    "The database backend needs its tables: add 'django_convstate.backends.database' to "
    "INSTALLED_APPS, and run `manage.py migrate`."
)


def check_alias(alias: str) -> list[CheckMessage]:
    """Check that the app is installed, and that DATABASES has the entry. No I/O."""
    wrong: list[CheckMessage] = []
    if not apps.is_installed("django_convstate.backends.database"):
        wrong.append(
            Error(
                "CONVERSATION_STATE_BACKEND is 'database', but the app of its tables is not "
                "installed.",
                hint="Add 'django_convstate.backends.database' to INSTALLED_APPS, and run "
                "`manage.py migrate`.",
                id="convstate.E024",
            )
        )
    if alias not in settings.DATABASES:
        wrong.append(
            Error(
                f"CONVERSATION_STATE['DATABASE_ALIAS'] is {alias!r}, which is not in DATABASES.",
                hint=f"Known are {', '.join(map(repr, settings.DATABASES))}.",
                id="convstate.E025",
            )
        )
    return wrong


def check_ttl() -> Iterator[CheckMessage]:
    """Warn where TTL is left at an hour: what is in a database is expected to stay."""
    configured: Any = getattr(settings, conf.OPTIONS, {})
    if "TTL" not in configured:
        yield Warning(
            f"CONVERSATION_STATE['TTL'] is not set: a conversation that was idle for "
            f"{DEFAULT_TTL:.0f} seconds is lost, and a purge deletes its rows.",
            hint="Set TTL to the seconds for which conversations are to be kept, e.g. 30 * 24 * "
            "3600, or to math.inf.",
            id="convstate.W015",
        )


def check_server(alias: str) -> Iterator[CheckMessage]:
    """Check that the migrations are applied. Asks the database."""
    from django.db.migrations.executor import MigrationExecutor

    connection = connections[alias]
    try:
        executor = MigrationExecutor(connection)
        targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == LABEL]
        plan = executor.migration_plan(targets)
    except (DatabaseError, InterfaceError) as error:
        yield Warning(
            f"DATABASES[{alias!r}] cannot be reached: {type(error).__name__}.",
            id="convstate.W004",
        )
        return
    if plan:
        where = "" if alias == "default" else f" --database {alias}"
        yield Warning(
            f"DATABASES[{alias!r}] lacks tables, or columns, for conversations: migrations of "
            f"{LABEL} are not applied.",
            hint=f"Run `manage.py migrate {LABEL}{where}`.",
            id="convstate.W016",
        )


def check_lock_timeout(alias: str) -> Iterator[CheckMessage]:
    """Check that a commit does not wait for a row for ever. Asks the database; that it cannot be
    reached is said by `check_server`."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            (timeout,) = cursor.fetchone()
    except (DatabaseError, InterfaceError):
        return
    if timeout == "0":
        yield Warning(
            f"DATABASES[{alias!r}] has no lock_timeout: a save waits for as long as a transaction "
            "of others has the conversation.",
            hint="ALTER ROLE ... SET lock_timeout = '5s'; or set it in OPTIONS['options'], as "
            "'-c lock_timeout=5s', if no pooler is between.",
            id="convstate.W017",
        )


def check_databases(databases: Sequence[str] | None = None, **kwargs: object) -> list[CheckMessage]:
    """Check the tables, where the database may be asked: `manage.py check --database default`. A
    warning, because `migrate` runs it, too."""
    if conf.backend_name() != "database" or any(True for _ in conf.problems()):
        return []
    alias = conf.current().database_alias
    return list(check_server(alias)) if alias in (databases or ()) else []
