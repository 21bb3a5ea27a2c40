"""Databases that have no room left for a while: a file of SQLite that may not grow, a PostgreSQL
whose files may not, and one whose disk is full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.db import DatabaseError, connections

from django_convstate import clock
from django_convstate.backends.database.models import Conversation
from django_convstate.backends.database.times import when
from tests.support.databases import database_at, postgres_entry

FILE_SIZE = 2**24  # bytes: those of the write-ahead log have so many
_DISK_SIZE = 2**23
_PAGE = 4096


class Disk(Protocol):
    """A database, and how its disk becomes full. `error` is what it says of that."""

    alias: str
    error: str

    def full(self) -> Any:
        """Return a context manager: within it there is no room."""


class SmallFile:
    """A file of SQLite."""

    error = "database or disk is full"

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @contextmanager
    def full(self) -> Iterator[None]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("VACUUM")  # what other tests have left is no room either
            pages = cursor.execute("PRAGMA page_count").fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count = {pages + 4}")
            try:
                yield
            finally:
                cursor.execute(f"PRAGMA max_page_count = {2**32 - 2}")


class LimitedFiles:
    """A PostgreSQL that may not write larger files: that is "File too large" where a full disk is
    "No space left on device", and needs no right that a test has not."""

    error = "File too large"

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @contextmanager
    def full(self) -> Iterator[None]:
        now = when(clock.time())
        times = {"created_at": now, "modified_at": now, "last_accessed": now}
        row = Conversation.rows.using(self.alias).create(prefix="", key="full", **times)
        with connections[self.alias].cursor() as cursor:
            with pytest.raises(DatabaseError, match=self.error):
                cursor.execute(
                    "INSERT INTO convstate_database_message "
                    "(conversation_id, position, message_id, role, data) "
                    "VALUES (%s, 0, '', '', convert_to(repeat('x', %s), 'UTF8'))",
                    [row.pk, FILE_SIZE],
                )
            try:
                yield  # what there is of that message takes all the room
            finally:
                cursor.execute("VACUUM convstate_database_message")


class SmallDisk:
    """A PostgreSQL that has its tables on a small disk of their own."""

    error = "No space left on device"

    def __init__(self, alias: str, folder: Path) -> None:
        self.alias = alias
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(_PAGE))
        try:
            yield
        finally:
            self._ballast.unlink()


@contextmanager
def limited_files(host: str) -> Iterator[Disk]:
    """Make tables on a PostgreSQL server that writes no files above `FILE_SIZE`."""
    with database_at("limited", postgres_entry(HOST=host, USER="postgres")):
        with connections["limited"].cursor() as cursor:
            cursor.execute(  # not compressed
                "ALTER TABLE convstate_database_message ALTER COLUMN data SET STORAGE EXTERNAL"
            )
        yield LimitedFiles("limited")


@contextmanager
def small_disk(host: str) -> Iterator[Disk]:
    """Mount a small disk, and make tables on it; or skip the test, where that is not allowed."""
    folder = Path(host, "disk")
    folder.mkdir()
    owner = Path(host, "data").stat()
    _mount(folder, f"size={_DISK_SIZE},mode=700,uid={owner.st_uid},gid={owner.st_gid}")
    entry = postgres_entry(HOST=host, USER="postgres")
    try:
        with database_at("first", entry), connections["first"].cursor() as cursor:
            cursor.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            cursor.execute("CREATE DATABASE small")
            cursor.execute("ALTER DATABASE small SET default_tablespace = 'small'")
        with database_at("small", entry | {"NAME": "small"}):
            yield SmallDisk("small", folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path, options: str) -> None:
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no `mount` here: no disk of its own could be filled")
    except subprocess.CalledProcessError as error:
        pytest.skip(
            f"no disk of its own could be mounted and filled: {error.stderr.splitlines()[0]}"
        )
