"""docs/transfer.md does what it says: its Python is run, and its commands are there."""

import argparse
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from django.core.management import get_commands, load_command_class

from django_convstate import conversations
from django_convstate.conversation.turn import LEASE
from django_convstate.management import base
from django_convstate.testing import seed
from django_convstate.transfer.lines import line_of, parse_line
from tests.support.docs import ROOT, blocks

TEXT = (ROOT / "docs/transfer.md").read_text()


def block(words: str, language: str) -> str:
    (found,) = [each for each in blocks(TEXT, language) if words in each]
    return found


def test_the_line_is_a_conversation() -> None:
    line = block('"format"', "json")
    whole = parse_line(line.encode())
    assert orjson.loads(line_of(whole)) == orjson.loads(line)
    assert (whole.record.owner, whole.record.ttl) == ("42", 90 * 86400)


def test_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, django_user_model: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    seed([("user", "hi")], owner="7")
    seed([("user", "hi")], owner="8")
    names: dict[str, Any] = {"request": SimpleNamespace(user=django_user_model(pk=7))}
    exec(compile(block("export_to", "python"), "transfer.md", "exec"), names)
    assert names["exported"] == 1
    assert names["report"].skipped == 1


def test_the_subclass_names_another_server(settings: Any) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("class NewRedis", "python"), "transfer.md", "exec"), names)
    assert names["NewRedis"](cache_alias="default").cache_alias == "new"


@pytest.mark.parametrize("line", re.findall(r"^python manage\.py (.*)$", TEXT, re.MULTILINE))
def test_the_commands_take_these_options(line: str) -> None:
    name, *args = shlex.split(line.partition("|")[0])
    command = load_command_class(get_commands()[name], name)
    parser = command.create_parser("manage.py", name)
    assert isinstance(parser.parse_args(args), argparse.Namespace)


def test_each_command_is_in_the_table_and_has_its_other_name() -> None:
    named = set(re.findall(r"^\| `(\w+) ", TEXT, re.MULTILINE))
    assert named == {"export_sessions", "import_sessions", "migrate_sessions", "erase_owner"}
    for name in named - {"erase_owner"}:
        assert name.replace("sessions", "conversations") in get_commands()


def test_the_numbers_are_those_of_the_code() -> None:
    assert (base.FAILED, base.UNAVAILABLE, base.DAMAGED, base.INTERRUPTED) == (1, 3, 4, 130)
    for code in (1, 3, 4, 130):
        assert f"\n| {code} | " in TEXT
    assert LEASE == 5
    assert "the lease of a turn for five seconds" in TEXT
    assert conversations.options.outage_memory == 600
