"""`manage.py replay_dialogues` on real tables: of SQLite, and of PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connections

from django_convstate.backends.database.models import Conversation
from tests.support.dialogues import write_dialogues

ROOT = Path(__file__).parents[2]
TABLE = "convstate_database_message"
SAID = "A hotel in Paris, 1_00007."
# What a database may do to a row that it was given.
ALTERED = (
    f"""UPDATE {TABLE} SET data = CAST('{{"role":"user","content":"In Tokyo."}}' AS %s) """
    f"WHERE text = '{SAID}'"
)
LOST = f"DELETE FROM {TABLE} WHERE text = '{SAID}'"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dialogues.json"
    write_dialogues(path)
    return path


def replay(alias: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the command on a database."""
    settings = connections[alias].settings_dict
    names = ("ENGINE", "NAME", "OPTIONS", "USER", "PASSWORD", "HOST", "PORT")
    entry = json.dumps({name: settings[name] for name in names}, default=str)
    command = ("manage.py", "replay_dialogues", "--settings", "tests.support.example_database")
    return subprocess.run(
        [sys.executable, "-W", "error", *command, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"EXAMPLE_DATABASE": entry},
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def after_each_insert(alias: str, statement: str) -> Iterator[None]:
    """Have the database do something when a message is inserted. %s is the type of its bytes."""
    with connections[alias].cursor() as cursor:
        if alias == "sqlite":
            body = f"BEGIN {statement.replace('%s', 'blob')}; END"
        else:
            cursor.execute(
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN {statement.replace('%s', 'bytea')}; RETURN NULL; END $$"
            )
            body = "FOR EACH ROW EXECUTE FUNCTION spoil()"
        cursor.execute(f"CREATE TRIGGER spoil AFTER INSERT ON {TABLE} {body}")
        try:
            yield
        finally:
            if alias == "sqlite":
                cursor.execute("DROP TRIGGER spoil")
            else:
                cursor.execute("DROP FUNCTION spoil() CASCADE")


def test_replayed_dialogues_are_read_back_as_written(file: Path, database: str) -> None:
    done = replay(database, file, "--workers", "8")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("40 dialogues with 160 turns, written to database in ")
    assert second == "All read back as they were written."
    assert not Conversation.objects.using(database).exists()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        pytest.param(ALTERED, ", content: expected 'A hotel in Paris, ", id="altered"),
        pytest.param(LOST, ": Messages of the conversation are missing.", id="lost"),
    ],
)
def test_a_row_that_is_wrong_fails_the_command(
    file: Path, database: str, statement: str, place: str
) -> None:
    with after_each_insert(database, statement):
        done = replay(database, file)
    assert (done.returncode, done.stdout) == (1, "")
    told = done.stderr.splitlines()[-1]
    assert told.startswith("CommandError: dialogues.json, dialogue 1_00007, turn ")
    assert place in told
    assert not Conversation.objects.using(database).exists()
