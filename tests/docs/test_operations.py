"""docs/operations.md does what it says: its commands exist, print what it shows, and end with its
codes; its Python runs."""

import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import django
import pytest
from django.core.management import (
    CommandError,
    call_command,
    get_commands,
    load_command_class,
)

from django_convstate import conversations
from django_convstate.backends.database.purging import PURGED_MESSAGES
from django_convstate.backends.records import PARTIAL_SECONDS, QUARANTINE_SECONDS
from django_convstate.management import base
from tests.support.commands import make
from tests.support.docs import ROOT, blocks
from tests.support.redis import raw

TEXT = (ROOT / "docs/operations.md").read_text()
# What it links tells more.
LINKED = [ROOT / "docs" / name for name in re.findall(r"\]\((\w+\.md)\)", TEXT)]
ALL = TEXT + "".join(page.read_text() for page in LINKED)
LINES = re.findall(r"manage\.py (.+)", "\n".join(blocks(TEXT, "console") + blocks(TEXT, "cron")))
PREFIX = "operations"
SHAPES = [json.loads(block) for block in blocks(TEXT, "json")]


@pytest.mark.parametrize("line", LINES)
def test_each_command_and_its_options_exist(line: str) -> None:
    name, *options = shlex.split(line.split(">")[0], comments=True)
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(options)


def test_each_command_is_listed_and_has_another_name() -> None:
    ours = {name for name, app in get_commands().items() if app == "django_convstate"}
    assert {name for name in ours if name.endswith("_sessions")} == {
        name.replace("_conversations", "_sessions") for name in ours if "conversations" in name
    }
    for name in ours:
        if name.endswith("_sessions"):
            assert f"| `{name}` |" in TEXT


@pytest.mark.parametrize("name", [name for name in get_commands() if name.endswith("_sessions")])
def test_each_option_of_its_own_is_explained(name: str) -> None:
    parser = load_command_class("django_convstate", name).create_parser("manage.py", name)
    known = load_command_class("django.core", "check").create_parser("manage.py", "check")
    options = set(parser._option_string_actions) - set(known._option_string_actions)
    for option in options - {"--noinput", "--skip-checks"}:
        assert f"{option}`" in ALL or f"{option} " in ALL, option


def test_the_codes_are_those_of_the_commands() -> None:
    codes = set(re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE))
    own = {base.FAILED, base.UNAVAILABLE, base.DAMAGED, base.INTERRUPTED}
    assert codes == {"0", "2", *map(str, own)}


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"ends at {PURGED_MESSAGES:,} messages" in TEXT.replace("\n", " ")
    days, hours = QUARANTINE_SECONDS // 86400, PARTIAL_SECONDS // 3600
    assert f"kept for {days} days; {hours} hour" in TEXT
    for name, default in (("purge_sessions", "500 conversations"), ("inspect_sessions", "50 if")):
        parser = load_command_class("django_convstate", name).create_parser("manage.py", name)
        number = int(default.split()[0])
        assert number in (parser.get_default("limit"), parser.get_default("batch_size"))
        assert default in TEXT


def shape_of(value: Any) -> Any:
    """Return the names and kinds of values, those of the first item for a list."""
    if isinstance(value, dict):
        return {name: shape_of(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape_of(each) for each in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


@pytest.fixture
def on_redis(settings: Any, valkey: None) -> Iterator[None]:
    settings.CONVERSATION_STATE_BACKEND = "redis"
    # A prefix of its own: check_sessions counts what every other test has left under one.
    settings.CONVERSATION_STATE = {"CACHE_ALIAS": "django_redis", "KEY_PREFIX": PREFIX}
    yield
    conversations.backend.erase()
    conversations.close()


def printed(*args: str) -> Any:
    out = io.StringIO()
    call_command(*args, "--json", stdout=out)
    return json.loads(out.getvalue())


@pytest.mark.usefixtures("on_redis")
def test_the_json_is_what_is_shown() -> None:
    id = make("42", title="A trip").id
    conversations.delete(make("42").id)
    listed, one, stats, health, purged, checked = SHAPES
    (row,) = printed("inspect_sessions")
    assert shape_of(row) == shape_of(listed)
    shown = printed("inspect_sessions", id, "--show-content")
    shown["state"].pop("city")
    assert shape_of(shown) == shape_of(one)
    assert shape_of(printed("inspect_sessions", "--stats")) == shape_of(stats)
    assert shape_of(printed("inspect_sessions", "--health")) == shape_of(health)
    assert shape_of(printed("purge_sessions", "--idle=7d", "--no-input")) == shape_of(purged)
    raw().delete(f"{PREFIX}:{{{id}}}:messages")
    out = io.StringIO()
    with pytest.raises(CommandError, match="Found 1 partial"):
        call_command("check_sessions", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert shape_of(report) == shape_of(checked)
    finding, documented = report["findings"][0], checked["findings"][0]
    assert finding["detail"] == documented["detail"]
    place = documented["where"].replace(documented["id"], id)
    assert finding["where"] == place.replace("convstate:", f"{PREFIX}:")


def block(words: str) -> str:
    (found,) = [each for each in blocks(TEXT, "python") if words in each]
    return found


def test_the_task_can_be_enqueued(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
    code = compile(block("enqueue"), "operations.md", "exec")
    if django.VERSION < (6, 0):
        with pytest.raises(ImportError, match=r"Django 6\.0"):
            exec(code, {})
    else:
        exec(code, {})


def test_the_task_of_celery_is_where_its_schedule_looks(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Celery, only the two names that the page imports stand here."""
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    celery: Any = ModuleType("celery")
    celery.shared_task = lambda **options: lambda function: function
    schedules: Any = ModuleType("celery.schedules")
    schedules.crontab = SimpleNamespace
    monkeypatch.setitem(sys.modules, "celery", celery)
    monkeypatch.setitem(sys.modules, "celery.schedules", schedules)
    tasks: dict[str, Any] = {}
    exec(compile(block("@shared_task"), "operations.md", "exec"), tasks)
    scheduled: dict[str, Any] = {}
    exec(compile(block("crontab"), "operations.md", "exec"), scheduled)
    (entry,) = scheduled["CELERY_BEAT_SCHEDULE"].values()
    tasks[entry["task"].removeprefix("shop.tasks.")]()
