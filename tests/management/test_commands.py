"""The commands, as an operator calls them."""

import io
import json
import os
import re
from argparse import ArgumentTypeError
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_convstate import conversations
from django_convstate.management.durations import format_duration, parse_duration
from django_convstate.management.formats import format_bytes, format_count, format_milliseconds
from django_convstate.management.sizes import bytes_of
from tests.support.commands import make, run
from tests.support.reports import CANARY


@pytest.fixture
def shared(settings: Any) -> Any:
    """A backend that the commands can look into."""
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SharedBackend"
    conversations.purge(everything=True)
    yield
    conversations.purge(everything=True)


@pytest.mark.usefixtures("shared")
class TestPurge:
    def test_purge_deletes_expired_conversations(self) -> None:
        make()
        assert run("purge_sessions") == "Deleted 0 expired conversations; 1 looked at."

    def test_purge_idle_deletes_idle_conversations(self) -> None:
        make()
        assert run("purge_sessions", "--idle", "2h", "--no-input") == (
            "Deleted 0 conversations idle for 2h; 1 looked at."
        )

    def test_purge_owner_deletes_an_owners_conversations(self) -> None:
        make("u1")
        make("u2")
        assert run("purge_sessions", "--owner", "u1", "--dry-run") == (
            "Would delete 1 conversation of u1; 2 looked at."
        )
        assert run("purge_sessions", "--owner=u1", "--no-input") == (
            "Deleted 1 conversation of u1; 2 looked at."
        )
        assert [summary.owner for summary in conversations.list()] == ["u2"]

    def test_purge_all_asks_before_it_deletes(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make()
        make()
        monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
        with pytest.raises(CommandError, match="Nothing was deleted"):
            run("purge_sessions", "--all")
        assert "every conversation" in capsys.readouterr().err
        monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
        assert json.loads(run("purge_sessions", "--all", "--json"))["deleted"] == 2

    @pytest.mark.parametrize(
        ("selection", "which"),
        [
            (["--all"], "every conversation in"),
            (["--owner=u1"], "conversations of u1 in"),
            (["--idle=0.001s"], "conversations idle for 0s in"),
            (["--owner=u1", "--idle=0.001s"], "conversations of u1 idle for 0s in"),
        ],
    )
    def test_what_deletes_more_than_expired_ones_asks_first(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        selection: list[str],
        which: str,
    ) -> None:
        make("u1")
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        with pytest.raises(CommandError, match="Nothing was deleted"):
            run("purge_sessions", *selection)
        assert which in capsys.readouterr().err
        assert len(list(conversations.list())) == 1
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        with pytest.raises(CommandError, match="--no-input"):
            run("purge_sessions", *selection)
        assert len(list(conversations.list())) == 1
        assert run("purge_sessions", *selection, "--dry-run").startswith("Would delete 1 ")
        monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
        assert run("purge_sessions", *selection).startswith("Deleted 1 ")

    def test_expired_ones_are_purged_without_a_question(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stdin", None)
        assert run("purge_sessions").startswith("Deleted 0 expired ")
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("option", ["--no-input", "--noinput", "no_input", "interactive"])
    def test_purge_no_input_does_not_ask(self, option: str) -> None:
        make()
        assert run("purge_sessions", "--all", "--dry-run").startswith("Would delete 1 ")
        if option.startswith("--"):
            assert run("purge_sessions", "--all", option).startswith("Deleted 1 ")
        else:
            call_command("purge_sessions", "--all", **{option: option != "interactive"})
            assert list(conversations.list()) == []

    @pytest.mark.parametrize("stdin", ["closed", "silent", "absent"])
    def test_purge_with_nobody_to_ask_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, stdin: str
    ) -> None:
        """A scheduler may leave a pipe on which nothing is ever sent."""
        make()
        reading, writing = os.pipe()
        with os.fdopen(reading) as pipe, os.fdopen(writing, "w") as end:
            if stdin == "closed":
                end.close()
            monkeypatch.setattr("sys.stdin", None if stdin == "absent" else pipe)
            with pytest.raises(CommandError, match=r"nobody to ask\. Use --no-input"):
                run("purge_sessions", "--all")
        assert len(list(conversations.list())) == 1

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_purge_takes_an_answer_that_is_typed_or_piped_in(
        self, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
    ) -> None:
        make()
        reading, writing = reversed(os.openpty()) if is_terminal else os.pipe()
        with os.fdopen(reading) as stdin, os.fdopen(writing, "w") as end:
            print("yes", file=end, flush=True)
            monkeypatch.setattr("sys.stdin", stdin)
            assert run("purge_sessions", "--all").startswith("Deleted 1 ")

    @pytest.mark.parametrize("idle", ["30", "1h30", 30, 1.5])
    def test_purge_refuses_a_number_without_a_unit(self, idle: str | float) -> None:
        make()
        words = f"{idle}s, {idle}m, {idle}h, {idle}d"
        with pytest.raises(CommandError, match=words):
            call_command("purge_sessions", idle=idle, no_input=True)
        with pytest.raises(CommandError, match=words):
            run("purge_sessions", f"--idle={idle}", "--dry-run")
        assert len(list(conversations.list())) == 1

    def test_purge_json_is_machine_readable(self) -> None:
        make("u1")
        assert json.loads(
            run("purge_sessions", "--owner=u1", "--json", "--batch-size=1", "--no-input")
        ) == {
            "backend": "shared",
            "deleted": 1,
            "examined": 1,
            "dry_run": False,
            "message": "Deleted 1 conversation of u1; 1 looked at.",
        }

    @pytest.mark.parametrize(
        "args",
        [
            ["--all", "--owner=u1"],
            ["--all", "--idle=1h"],
            ["--batch-size=0"],
            ["--batch-size=x"],
            [f"--batch-size={10**20}"],
            ["--idle=soon"],
            ["--idle=0"],
            ["--owner="],
            ["--idle=-1h"],
        ],
    )
    def test_purge_refuses_contradicting_arguments(self, args: list[str]) -> None:
        make()
        with pytest.raises(CommandError):
            run("purge_sessions", *args)
        assert len(list(conversations.list())) == 1


class TestPurgeWhereItCannot:
    def test_purge_refuses_locmem(self) -> None:
        make()
        sentence = "locmem lives inside each server process: nothing to purge from here."
        assert run("purge_sessions") == sentence
        assert json.loads(run("purge_sessions", "--json"))["message"] == sentence
        for selection in ("--all", "--idle=1s", "--owner=u1"):
            with pytest.raises(CommandError, match=sentence):
                run("purge_sessions", selection, "--no-input")
        assert len(list(conversations.list())) == 1

    def test_purge_refuses_to_select_in_a_cache(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "cache"
        assert "by itself: nothing to purge" in run("purge_sessions")
        with pytest.raises(CommandError, match="cannot list"):
            run("purge_sessions", "--owner=u1")


@pytest.mark.usefixtures("shared")
class TestInspect:
    def test_inspect_lists_conversations(self) -> None:
        first, second = make("u1"), make("[red]u2")
        shown = run("inspect_sessions")
        assert re.match(r"ID Owner Messages Size Idle Expires in ", shown)
        for part in (first.id, second.id, "u1", "[red]u2", "1h"):
            assert part in shown
        assert second.id not in run("inspect_sessions", "--owner=u1")
        assert "The first 1; --limit shows more." in run("inspect_sessions", "--limit=1")

    def test_inspect_never_cuts_ids_and_escapes_control_characters(self) -> None:
        long = conversations.open("bot:fire:" + "x" * 110)
        long.messages.append("user", "\x1b[2J\x9b")
        long.claim("\x1b]0;pwned\x07" + "y" * 100)
        long.save()
        shown = run("inspect_sessions")
        assert long.id in shown
        assert "\x1b" not in shown + run("inspect_sessions", long.id, "--show-content")
        assert "\x9b" not in run("inspect_sessions", long.id, "--show-content")

    def test_inspect_says_that_there_are_none(self) -> None:
        assert run("inspect_sessions") == "No conversations."

    def test_inspect_json_is_machine_readable(self) -> None:
        conversation = make("u1")
        (row,) = json.loads(run("inspect_sessions", "--json"))
        assert (row["id"], row["owner"], row["message_count"]) == (conversation.id, "u1", 1)

    def test_inspect_of_one_hides_contents(self) -> None:
        conversation = make("u1", text="a secret")
        shown = run("inspect_sessions", conversation.id)
        assert conversation.id in shown
        assert "city" in shown
        assert "secret" not in shown
        assert "Jaipur" not in shown

    def test_inspect_show_content_shows_contents(self) -> None:
        conversation = make(text="[bold]a secret[/nonsense]")
        shown = run("inspect_sessions", conversation.id, "--show-content")
        assert "[bold]a secret[/nonsense]" in shown
        assert "Jaipur" in shown
        data = json.loads(run("inspect_sessions", conversation.id, "--show-content", "--json"))
        assert data["state"] == {"city": "Jaipur"}
        assert data["messages"][0]["content"] == "[bold]a secret[/nonsense]"

    def test_inspect_stats_sums_up(self) -> None:
        make("u1")
        make("u1")
        make()
        stats = json.loads(run("inspect_sessions", "--stats", "--json"))
        assert (stats["conversations"], stats["owners"], stats["messages"]) == (3, 1, 3)
        assert stats["bytes"] >= 3 * stats["largest_bytes"] - 3 > 0
        assert "conversations 3" in run("inspect_sessions", "--stats")

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["absent"], "no such conversation"),
            (["../x"], "id consists of"),
            (["a", "--stats"], "Choose one"),
            (["--stats", "--health"], "Choose one"),
            (["--show-content"], "ID of one conversation"),
            (["--limit=x"], "invalid int"),
            (["--limit=0"], "at least 1"),
        ],
    )
    def test_inspect_refuses_bad_arguments(self, args: list[str], words: str) -> None:
        with pytest.raises(CommandError, match=words):
            run("inspect_sessions", *args)


class TestInspectWhereItCannot:
    def test_inspect_refuses_locmem(self) -> None:
        conversation = make()
        for args in ([], ["--stats"], [conversation.id]):
            with pytest.raises(CommandError, match="locmem lives inside each server process"):
                run("inspect_sessions", *args)

    def test_inspect_cannot_list_a_cache(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "cache"
        conversation = make()
        assert conversation.id in run("inspect_sessions", conversation.id)
        for option in ("--json", "--stats"):
            with pytest.raises(CommandError, match="cannot list conversations"):
                run("inspect_sessions", option)

    def test_inspect_health_fails_if_the_store_is_unavailable(self, settings: Any) -> None:
        assert "locmem" in run("inspect_sessions", "--health")
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        with pytest.raises(CommandError, match="cannot be reached"):
            run("inspect_sessions", "--health")


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("90s", 90),
            ("1.5h", 5400),
            ("30m", 1800),
            ("2h", 7200),
            ("7d", 604_800),
            ("1h30m", 5400),
        ],
    )
    def test_parse(self, text: str, seconds: int) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize("text", ["90", "1h30", "0", "1.5", "", "h", "1 h", "-1h", "1y", "0s"])
    def test_what_is_no_duration_is_refused(self, text: str) -> None:
        with pytest.raises(ArgumentTypeError):
            parse_duration(text)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0s"), (59.6, "1m"), (3600, "1h"), (7500, "2h 5m"), (90_061, "1d 1h"), (-5, "0s")],
    )
    def test_format(self, seconds: float, text: str) -> None:
        assert format_duration(seconds) == text


class TestNumbers:
    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (12_900_000, "12.3 MiB"),
            (2**20 - 1, "1 MiB"),
            (5 * 2**30, "5 GiB"),
            (3000 * 2**40, "3,000 TiB"),
        ],
    )
    def test_bytes(self, size: int, text: str) -> None:
        assert format_bytes(size) == text

    @pytest.mark.parametrize(
        ("milliseconds", "text"),
        [
            (0.0421, "0.04 ms"),
            (1.5420000636068359, "1.5 ms"),
            (120.4, "120 ms"),
            (2100, "2.1 s"),
        ],
    )
    def test_milliseconds(self, milliseconds: float, text: str) -> None:
        assert format_milliseconds(milliseconds) == text

    def test_counts(self) -> None:
        counts = [format_count(number, "conversation") for number in (0, 1, 1204)]
        assert counts == ["0 conversations", "1 conversation", "1,204 conversations"]

    @pytest.mark.parametrize(
        ("text", "size"),
        [("512", 512), ("10K", 10_240), ("10k", 10_240), ("1.5MiB", 1_572_864), ("1 GiB", 2**30)],
    )
    def test_a_size_is_read(self, text: str, size: int) -> None:
        assert bytes_of("--larger-than", text) == size

    @pytest.mark.parametrize("text", ["", "x", "-1", "1T", "1e3", "K", "1KB", "9" * 400])
    def test_what_is_no_size_is_told(self, text: str) -> None:
        with pytest.raises(CommandError, match=r"--larger-than: .+ is not a size: write 512"):
            run("inspect_sessions", f"--larger-than={text}")


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("value", ["", "-5d", "10y", "30", "5", "1h30", "0s", "20000d", "x"])
@pytest.mark.parametrize("option", ["--idle", "--older-than"])
@pytest.mark.parametrize("command", ["purge_sessions", "inspect_sessions"])
def test_what_is_no_duration_is_told(command: str, option: str, value: str) -> None:
    conversation = make("u1")
    with pytest.raises(CommandError, match=r"duration|unit") as error:
        run(command, f"{option}={value}")
    assert error.value.returncode == 1
    assert option in str(error.value)
    assert str(error.value).count("\n") == 0
    assert [summary.id for summary in conversations.list()] == [conversation.id]


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    "args",
    [
        ["inspect_sessions"],
        ["inspect_sessions", "--json"],
        ["inspect_sessions", "{id}"],
        ["inspect_sessions", "{id}", "--json"],
        ["inspect_sessions", "--stats"],
        ["inspect_sessions", "--stats", "--json"],
        ["inspect_sessions", "--health", "--json"],
        ["check_sessions"],
        ["check_sessions", "--json"],
        ["purge_sessions", "--idle", "2h", "--dry-run"],
        ["purge_sessions", "--owner", "u1", "--dry-run"],
    ],
    ids=" ".join,
)
def test_no_command_shows_what_was_said_or_a_token(args: list[str]) -> None:
    """Ids and owners are shown to the operator, who names conversations by them."""
    conversation = make("u1", text=CANARY)
    conversation["note"] = {"text": CANARY}
    conversation.save()
    shown = run(*(each.format(id=conversation.id) for each in args))
    assert CANARY not in shown
    assert conversation.token not in shown
