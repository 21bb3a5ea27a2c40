"""Real databases for the database backend: a file of SQLite, and a PostgreSQL of the tests' own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.management import call_command
from django.db import connections

from django_convstate.backends.database.models import Conversation
from tests import settings
from tests.support.host.models import Ticket
from tests.support.postgres import running_postgres

ALIASES = ("sqlite", "postgres")
# It is there for minutes, and nobody cuts the power.
QUICK = """
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 200
"""


@contextmanager
def sqlite_file() -> Iterator[None]:
    """Make a file, in the mode in which readers do not wait for writers, ready for use. How a
    transaction begins is left at Django's default."""
    options = {"timeout": 60, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"}
    entry = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": settings.FILES / "conversations.sqlite3",
        "OPTIONS": options,
    }
    with database_at("sqlite", entry):
        yield


@contextmanager
def postgres_server() -> Iterator[None]:
    """Start a server, or use that of CONVSTATE_TEST_DATABASE_URL, and make it ready for use."""
    if url := os.environ.get("CONVSTATE_TEST_DATABASE_URL"):
        with database_at("postgres", _entry_of(url)):
            yield
        return
    with (
        running_postgres(QUICK) as host,
        database_at("postgres", postgres_entry(HOST=host, USER="postgres")),
    ):
        yield


def empty(alias: str) -> None:
    """Delete all conversations, and what points at them."""
    for model in (Ticket, Conversation):
        model._base_manager.using(alias).all().delete()


@contextmanager
def statements(alias: str) -> Iterator[list[str]]:
    """Note each statement that this thread sends; BEGIN and COMMIT are none."""
    sent: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT")):
            sent.append(sql)
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        yield sent


def postgres_entry(**entry: Any) -> dict[str, Any]:
    """Return an entry for DATABASES."""
    return {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", **entry}


@contextmanager
def database_at(alias: str, entry: dict[str, Any]) -> Iterator[None]:
    """Add an entry to DATABASES, with all tables."""
    connections.settings[alias] = entry
    connections.configure_settings(connections.settings)
    try:
        call_command("migrate", database=alias, verbosity=0)
        yield
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


def _entry_of(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return postgres_entry(
        NAME=unquote(parts.path.lstrip("/")),
        USER=unquote(parts.username or ""),
        PASSWORD=unquote(parts.password or ""),
        HOST=parts.hostname or dict(parse_qsl(parts.query)).get("host", ""),
        PORT=str(parts.port or ""),
    )
