"""How commands end: by exit codes and sentences that docs/operations.md lists; in processes of
their own where that matters."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.db.models import PROTECT
from django_rich.management import RichCommand

from django_convstate import conversations
from django_convstate.backends.database.models import Conversation, Message
from tests.management.conftest import PREFIX
from tests.support.commands import (
    InTerminal,
    environment,
    in_terminal,
    lines_of,
    make,
    run,
    spawn,
)
from tests.support.databases import ALIASES
from tests.support.host.models import Ticket
from tests.support.places import on
from tests.support.redis import key_of, raw
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


def purge_until(reached: str, number: signal.Signals, **settings: Any) -> InTerminal:
    """Purge everything, one by one, and end that by a signal when its bar says so."""
    with in_terminal("purge_sessions", "--all", "--no-input", "--batch-size=1", **settings) as it:
        it.read_until(lambda output: re.search(reached, output))
        it.process.send_signal(number)
        it.end()
    assert "Traceback" not in it.output
    return it


def interrupted(it: InTerminal) -> str:
    """Return what is said of an interruption."""
    assert it.process.returncode == 130
    (said,) = [line for line in it.lines if line.startswith("Interrupted.")]
    return said


def test_a_purge_goes_on_after_it_was_killed_or_interrupted(served: dict[str, Any]) -> None:
    for number in range(COUNT):
        conversations.append(f"bot:{number}", "user", "hi", owner="u1")
    assert purge_until(r" [1-9]\d*/\?", signal.SIGKILL, **served).process.returncode == -9
    left = len(list(conversations.list()))
    assert 0 < left < COUNT
    said = interrupted(purge_until(r" [1-9]\d*/\?", signal.SIGINT, **served))
    reached = re.fullmatch(
        r"Interrupted\. (\d+) conversations? looked at; run it again to go on\.", said
    )
    assert reached, said
    still = len(list(conversations.list()))
    assert 0 < still <= left - int(reached[1])
    ended = spawn("purge_sessions", "--all", "--no-input", "--json", **served)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["deleted"] == still
    assert list(conversations.list()) == []


@pytest.mark.parametrize("kept", ["postgres"], indirect=True)
def test_a_purge_of_a_database_goes_on_likewise(kept: str, settings: Any) -> None:
    """It waits for a row that this test has locked, and so is interrupted where that is known."""
    ids = [make("u1").id for _ in range(20)]
    mine = {
        "CONVERSATION_STATE_BACKEND": "database",
        "CONVERSATION_STATE": settings.CONVERSATION_STATE,
        "DATABASES": {kept: connections.settings[kept], "default": {}},
    }
    messages = Message.objects.using(kept).select_for_update(of=("self",))
    with transaction.atomic(using=kept):
        messages.get(conversation__key=ids[10])
        killed = purge_until(" 10/20 ", signal.SIGKILL, **mine)
        assert killed.process.returncode == -9
    with transaction.atomic(using=kept):  # waits until the server has noticed that it was killed
        assert len(Conversation.rows.using(kept).select_for_update()) == 20
    assert [each.id for each in conversations.list()] == ids[:9:-1]
    with transaction.atomic(using=kept):
        messages.get(conversation__key=ids[15])
        said = interrupted(purge_until(" 5/10 ", signal.SIGINT, **mine))
    assert said == "Interrupted. 5 of 10 conversations looked at; run it again to go on."
    assert [each.id for each in conversations.list()] == ids[:14:-1]
    assert run("purge_sessions", "--owner=u1", "--no-input").startswith("Deleted 5 ")


def test_an_outage_in_the_midst_says_how_far_it_came(
    stopped: dict[str, Any], stoppable: Server
) -> None:
    for number in range(100):
        conversations.append(f"bot:{number}", "user", "hi")
    args = ["purge_sessions", "--all", "--no-input", "--batch-size=1"]
    with in_terminal(*args, **stopped) as it:
        it.read_until(lambda output: re.search(r" [1-9]\d*/\?", output))
        stoppable.kill()
        assert it.end() == 3
    stoppable.start()
    said = " ".join(it.lines)
    assert re.search(r"CACHES\['own'\], .+\. \d+ conversations? looked at; run it again", said), (
        said
    )
    assert "Traceback" not in said
    assert 0 < len(list(conversations.list())) < 100


@pytest.mark.parametrize("kept", ALIASES, indirect=True)
def test_what_a_foreign_key_protects_is_told(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field: Any = Ticket._meta.get_field("conversation")
    monkeypatch.setattr(field.remote_field, "on_delete", PROTECT)
    row = Conversation.rows.using(kept).get(key=make("u1").id)
    Ticket._default_manager.using(kept).create(subject="help", conversation=row)
    with pytest.raises(CommandError, match="A foreign key of the project protects") as error:
        run("purge_sessions", "--owner=u1", "--no-input")
    assert error.value.returncode == 1
    assert len(list(conversations.list())) == 1
    Ticket._default_manager.using(kept).all().delete()


def test_who_reads_the_output_may_have_had_enough(served: dict[str, Any]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "django", "inspect_sessions", "--json"],
            env=environment(**served),
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_any_encoding_of_the_output_will_do(served: dict[str, Any]) -> None:
    id = make("ünï", text="चाय ☕").id
    ended = subprocess.run(
        [sys.executable, "-m", "django", "inspect_sessions", id, "--show-content"],
        env=environment(**served) | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert "ünï" in ended.stdout.decode("latin-1")
    assert r"\u091a\u093e\u092f \u2615" in ended.stdout.decode("latin-1")


def test_a_terminal_of_80_columns_is_enough(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [make("someone@example.com", text="x" * 3000).id, make(text="word " * 60).id]
    with in_terminal("inspect_sessions", **served) as it:
        assert it.end() == 0, it.output
    assert max(map(len, it.lines)) == 80
    assert all(any(f" {id} " in line for line in it.lines) for id in ids)
    assert " 3 KiB " in it.output
    monkeypatch.setenv("COLUMNS", "80")
    raw().delete(key_of(ids[0], "messages").replace("convstate", PREFIX))
    for args in (
        ["inspect_sessions", ids[1], "--show-content"],
        ["inspect_sessions", "--stats"],
        ["inspect_sessions", "--health"],
        ["check_sessions"],
    ):
        out = io.StringIO()
        with suppress(CommandError):
            call_command(*args, stdout=out, force_color=True)
        lines = lines_of(out.getvalue())
        assert 40 < max(map(len, lines)) <= 80, out.getvalue()


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
    ended = spawn("purge_sessions", "--all", "--no-input", "--json", **served)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1
    assert json.loads(ended.stdout)["deleted"] == 1


def test_a_backend_is_named_or_refused(settings: Any) -> None:
    settings.CONVERSATION_STATE_BACKEND = "cache"
    make("u1")
    shown = run("inspect_sessions", "--backend=tests.support.backends.SharedBackend")
    assert shown == "No conversations."
    for name in ("x", "", ".", ".x", "x."):
        with pytest.raises(CommandError, match=f"There is no backend '{name}'") as error:
            run("purge_sessions", f"--backend={name}")
        assert error.value.returncode == 1


def test_ctrl_c_where_a_command_is_called_is_the_callers(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    monkeypatch.setattr(RichCommand, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call_command("purge_sessions")
