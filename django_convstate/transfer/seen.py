"""Ids that were seen: in a temporary file, because in memory they would grow with the store."""

import sqlite3
from collections.abc import Iterator
from typing import Self


class SeenIds:
    """A set of ids, in a file that is deleted when this is closed. Not thread-safe."""

    def __init__(self) -> None:
        # Without a name SQLite makes the file when its cache of 2 MB is full, and unlinks it.
        # From any thread, because the garbage collector closes it if an error has left it open.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def add(self, id: str) -> bool:
        """Add an id. False: it is there already."""
        added = self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (id,))
        return added.rowcount == 1

    def __contains__(self, id: object) -> bool:
        found = self._connection.execute("SELECT 1 FROM seen WHERE id = ?", (id,))
        return found.fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        for (id,) in self._connection.execute("SELECT id FROM seen"):
            yield id
