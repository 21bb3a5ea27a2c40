"""How commands end: by exit codes and sentences that docs/operations.md lists; in processes of
their own where that matters."""

import io
import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django_rich.management import RichCommand

from django_convstate import conversations
from django_convstate.management.base import Track
from django_convstate.management.commands import purge_sessions
from tests.management.conftest import PREFIX
from tests.support.commands import in_terminal, make, run, spawn
from tests.support.databases import ALIASES
from tests.support.places import on
from tests.support.servers import Server

# With a pause of 10 ms after each, a purge of so many takes longer than to interrupt it.
COUNT = 500
COMMANDS = [
    ["inspect_sessions"],
    ["inspect_sessions", "--json"],
    ["inspect_sessions", "--stats"],
    ["inspect_sessions", "some-id"],
    ["inspect_sessions", "0123456789ab"],
    ["purge_sessions", "--idle=1h", "--no-input"],
    ["purge_sessions", "--owner=u1", "--dry-run"],
    ["purge_sessions", "--all", "--no-input", "--json"],
    ["check_sessions"],
]


@pytest.fixture(params=["redis", "redis with memory", "database"])
def down(request: pytest.FixtureRequest, settings: Any) -> Iterator[None]:
    """A store that is down."""
    if request.param == "database":
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "x",
            "HOST": "127.0.0.1",
            "PORT": "1",
        }
        connections.settings["down"] = entry
        connections.configure_settings(connections.settings)
        settings.CONVERSATION_STATE = {"DATABASE_ALIAS": "down"}
        settings.CONVERSATION_STATE_BACKEND = "database"
    else:
        fallback = "locmem" if request.param == "redis with memory" else None
        settings.CONVERSATION_STATE = {"CACHE_ALIAS": "unreachable", "FALLBACK": fallback}
        settings.CONVERSATION_STATE_BACKEND = "redis"
    yield
    conversations.close()
    if request.param == "database":
        del connections["down"], connections.settings["down"]


@pytest.fixture
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.mark.usefixtures("_unblocked", "down")
@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_store_that_is_down_is_told_in_a_sentence(args: list[str]) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError) as error:
        call_command(*args, stdout=out)
    assert error.value.returncode == 3
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert out.getvalue() == ""


@pytest.mark.usefixtures("_unblocked", "down")
def test_health_says_that_it_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError, match="cannot be reached") as error:
        call_command("inspect_sessions", "--health", "--json", stdout=out)
    assert error.value.returncode == 1
    assert json.loads(out.getvalue())["connected"] is False


UNREACHABLE = {
    "CONVERSATION_STATE_BACKEND": "redis",
    "CONVERSATION_STATE": {"FALLBACK": None},
    "CACHES": {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://127.0.0.1:1",
        }
    },
}


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["inspect_sessions"], 3, r"CommandError: Redis, CACHES\['default'\], cannot be reached\."),
        (["purge_sessions", "--idle", "30"], 1, "has no unit: write one of 30s, 30m, 30h, 30d"),
        (["purge_sessions", "--backend", "x"], 1, "There is no backend 'x'"),
        (["check_sessions", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["purge_sessions", "--older-than", "-5d"], 2, "--older-than: expected one argument"),
    ],
)
def test_a_process_ends_with_its_code_and_no_traceback(
    args: list[str], code: int, words: str
) -> None:
    ended = spawn(*args, **UNREACHABLE)
    assert ended.returncode == code, ended.stderr
    assert re.search(words, ended.stderr)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def settings_of(settings: Any, alias: str) -> dict[str, Any]:
    """Have the test work on this entry of CACHES, and return the settings of a process that does
    so, too."""
    mine = {
        "CONVERSATION_STATE_BACKEND": "redis",
        "CONVERSATION_STATE": {"CACHE_ALIAS": alias, "KEY_PREFIX": PREFIX},
    }
    for name, value in mine.items():
        setattr(settings, name, value)
    default = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    return mine | {"CACHES": {"default": default, alias: settings.CACHES[alias]}}


@pytest.fixture
def served(settings: Any, valkey: None) -> Iterator[dict[str, Any]]:
    """Settings of a process that works on the store of this test."""
    yield settings_of(settings, "django_redis")
    conversations.backend.erase()
    conversations.close()


@pytest.fixture
def stopped(settings: Any, stoppable: Server) -> Iterator[dict[str, Any]]:
    """As `served`, on a server that may be stopped."""
    on(settings, f"redis://127.0.0.1:{stoppable.port}").close()
    yield settings_of(settings, "own")
    conversations.backend.erase()
    conversations.close()


def test_ctrl_c_says_how_far_it_came_and_the_next_run_goes_on(served: dict[str, Any]) -> None:
    for number in range(COUNT):
        conversations.append(f"bot:{number}", "user", "hi", owner="u1")
    with in_terminal("purge_sessions", "--all", "--no-input", "--batch-size=1", **served) as it:
        it.read_until(lambda output: re.search(r" [1-9]\d*/\?", output))
        it.process.send_signal(signal.SIGINT)
        assert it.end() == 130
    (said,) = [line for line in it.lines if line.startswith("Interrupted.")]
    reached = re.fullmatch(
        r"Interrupted\. (\d+) conversations? looked at; run it again to go on\.", said
    )
    assert reached, said
    assert "Traceback" not in it.output
    left = len(list(conversations.list()))
    assert 0 < left <= COUNT - int(reached[1])
    ended = spawn("purge_sessions", "--all", "--no-input", "--json", **served)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["deleted"] == left
    assert list(conversations.list()) == []


def test_a_terminal_of_80_columns_is_enough(served: dict[str, Any]) -> None:
    ids = [make("someone@example.com", text="x" * 3000).id, make(text="word " * 60).id]
    for args in (
        ["inspect_sessions"],
        ["inspect_sessions", ids[0]],
        ["inspect_sessions", ids[1], "--show-content"],
        ["inspect_sessions", "--stats"],
        ["purge_sessions", "--idle=1h", "--dry-run"],
    ):
        with in_terminal(*args, **served) as it:
            assert it.end() == 0, it.output
        assert max(map(len, it.lines)) <= 80, it.output
        if args == ["inspect_sessions"]:
            assert all(any(f" {id} " in line for line in it.lines) for id in ids)
            assert " 3 KiB " in it.output


def test_watching_goes_on_through_an_outage(stopped: dict[str, Any], stoppable: Server) -> None:
    first = make("u1")
    with in_terminal("inspect_sessions", "--watch", "0.1s", **stopped) as it:
        it.read_until(lambda output: first.id in output)
        stoppable.kill()
        it.read_until(lambda output: "cannot be reached" in output)
        stoppable.start()
        second = make("u2")
        it.read_until(lambda output: second.id in output)
        it.process.send_signal(signal.SIGINT)
        assert it.end() == 130
    assert "Traceback" not in it.output
    assert "Interrupted." in it.lines


def test_progress_is_for_terminals_and_json_for_programs(served: dict[str, Any]) -> None:
    make("u1")
    for args in (["purge_sessions", "--all", "--dry-run"], ["check_sessions"]):
        ended = spawn(*args, "--json", **served)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout)
        assert ended.stdout.count("\n") == 1


@pytest.mark.parametrize("kept", ALIASES, indirect=True)
def test_ctrl_c_in_a_database_tells_the_total(
    kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        make("u1")
    calls = Track.__call__

    def interrupt(track: Track, number: int, total: int | None) -> None:
        calls(track, number, total)
        if number == 3:
            raise KeyboardInterrupt

    args = ["manage.py", "purge_sessions", "--owner=u1", "--no-input", "--batch-size=1"]
    # Which would close the connection of this test.
    monkeypatch.setattr("django.core.management.base.connections.close_all", lambda: None)
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(Track, "__call__", interrupt)
        purge_sessions.Command().run_from_argv(args)
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert said == "Interrupted. 3 of 10 conversations looked at; run it again to go on.\n"
    assert run("purge_sessions", "--owner=u1", "--no-input").startswith("Deleted 7 ")


def test_ctrl_c_where_a_command_is_called_is_the_callers(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    monkeypatch.setattr(RichCommand, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call_command("purge_sessions")
