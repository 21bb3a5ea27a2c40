"""The commands on each store that other processes see, too."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError

from django_convstate import Conversation, conversations
from django_convstate.ids import hashed_id
from tests.support.commands import make, pass_by, run, run_json
from tests.support.databases import ALIASES

pytestmark = pytest.mark.usefixtures("kept")


def listed(*args: str) -> list[str]:
    return [row["id"] for row in run_json("inspect_sessions", *args)]


def stored() -> set[str]:
    return {summary.id for summary in conversations.list()}


def test_a_listing_is_selected_and_sorted() -> None:
    small = make("u1", ttl=600)
    pass_by(1)
    large = make("u2", text="x" * 5000)
    large.messages.append("assistant", "y")
    large.save()
    pass_by(60)
    new = make("u1", text="z" * 200)
    ids = [small.id, large.id, new.id]
    assert set(listed()) == set(ids)
    orders = {
        "saved": [2, 1, 0],
        "created": [2, 1, 0],
        "idle": [0, 1, 2],
        "expires": [0, 1, 2],
        "size": [1, 2, 0],
    }
    for order, positions in orders.items():
        assert listed("--sort", order) == [ids[at] for at in positions], order
    assert listed("--sort=messages", "--limit=1") == [large.id]
    assert set(listed("--owner=u1")) == {small.id, new.id}
    assert listed("--owner=u1", "--sort=size", "--limit=1") == [new.id]
    assert set(listed("--idle=30s")) == {small.id, large.id}
    assert listed("--larger-than=1K") == [large.id]
    assert listed("--larger-than=1K", "--owner=u1") == []
    assert set(listed(f"--limit={10**20}")) == set(ids)
    assert [each.id for each in conversations.list("u1", limit=10**20)] == [new.id, small.id]
    assert run("inspect_sessions", "--larger-than=1MiB") == "No such conversations."


def test_one_is_shown_by_its_id_or_by_what_logs_call_it(kept: str) -> None:
    conversation = make("u1", text="a secret")
    make()
    for name in (conversation.id, hashed_id(conversation.id)):
        shown = run_json("inspect_sessions", name)
        assert (shown["id"], shown["log_id"]) == (conversation.id, hashed_id(conversation.id))
        assert (shown["owner"], shown["keys"], shown["message_count"]) == ("u1", ["city"], 1)
        assert shown["ttl"] == 86400
        assert "a secret" not in str(shown)
    content = run_json("inspect_sessions", hashed_id(conversation.id), "--show-content")
    assert content["messages"][0]["content"] == "a secret"
    with pytest.raises(CommandError, match="none that logs call so") as error:
        run("inspect_sessions", hashed_id("another"))
    assert error.value.returncode == 1


def times(conversation: Conversation) -> Any:
    (summary,) = [each for each in conversations.list() if each.id == conversation.id]
    return summary.last_accessed, summary.modified_at, summary.version, summary.expires_at


def test_nothing_is_prolonged_by_being_looked_at() -> None:
    conversation = make("u1", text="long " * 500)
    for number in range(100):
        conversation.messages.append("user", str(number))
    conversation.save()
    pass_by(7200)
    *before, expires_at = times(conversation)
    for args in (
        ["inspect_sessions"],
        ["inspect_sessions", "--owner=u1", "--sort=size"],
        ["inspect_sessions", conversation.id, "--show-content"],
        ["inspect_sessions", hashed_id(conversation.id)],
        ["inspect_sessions", "--stats"],
        ["inspect_sessions", "--health"],
        ["purge_sessions", "--idle=1h", "--dry-run"],
        ["check_sessions"],
    ):
        run(*args)
        run(*args, "--json")
        *after, then = times(conversation)
        assert after == before, args
        # Redis tells how many milliseconds are left, from now on.
        assert abs(then - expires_at) < timedelta(seconds=60), args


def test_stats_count() -> None:
    make("u1")
    make("u1", text="x" * 3000)
    pass_by(7200)
    make()
    stats = run_json("inspect_sessions", "--stats")
    assert [stats[name] for name in ("conversations", "owners", "without_owner")] == [3, 1, 1]
    assert stats["messages"] == 3
    assert stats["messages_each"] == {"p50": 1, "p90": 1, "p99": 1, "max": 1}
    assert stats["size_bytes"]["max"] == stats["largest_bytes"] > 3000
    assert stats["size_bytes"]["p50"] < 1000 < stats["bytes"]
    assert stats["age_seconds"]["max"] >= stats["idle_seconds"]["p90"] >= 7200
    assert stats["idle_seconds"]["p50"] >= 7200
    assert [each["conversations"] for each in stats["by_idle_time"]] == [1, 0, 2, 0, 0, 0]
    assert [each["conversations"] for each in stats["by_size"]] == [2, 1, 0, 0, 0]
    assert run_json("inspect_sessions", "--stats", "--owner=u1")["conversations"] == 2
    assert run_json("inspect_sessions", "--stats", "--larger-than=1K")["conversations"] == 1
    shown = run("inspect_sessions", "--stats")
    for part in ("conversations 3", "Each median 90 % 99 % largest", "below 1d 2", "below 10 KiB"):
        assert part in shown, part


def test_stats_of_nothing() -> None:
    stats = run_json("inspect_sessions", "--stats")
    assert (stats["conversations"], stats["last_activity"]) == (0, None)
    assert stats["size_bytes"] == {"p50": None, "p90": None, "p99": None, "max": None}
    assert "conversations 0" in run("inspect_sessions", "--stats")


def test_a_dry_run_is_exact() -> None:
    old = {make(owner).id for owner in ("u1", "u1", "u2", None)}
    pass_by(7200)
    new = {make(owner).id for owner in ("u1", "u2")}
    selections = [
        (["--owner=u1", "--idle=1h"], 2),
        (["--owner=u1"], 1),
        (["--older-than=1h"], 2),
        (["--all"], 1),
    ]
    for selection, expected in selections:
        before = stored()
        report = run_json("purge_sessions", *selection, "--dry-run")
        assert (report["deleted"], report["dry_run"]) == (expected, True)
        assert stored() == before
        report = run_json("purge_sessions", *selection, "--no-input", "--batch-size=1")
        assert (report["deleted"], report["dry_run"]) == (expected, False)
        assert len(stored()) == len(before) - expected
    assert stored() == set()
    assert len(old | new) == 6


def test_an_unknown_owner_is_told_and_nothing_is_touched() -> None:
    conversation = make("u1")
    for args in (
        ["purge_sessions", "--owner=u2", "--no-input"],
        ["purge_sessions", "--owner=u2", "--dry-run", "--json"],
        ["inspect_sessions", "--owner=u2"],
        ["inspect_sessions", "--owner=u2", "--json"],
        ["inspect_sessions", "--owner=u2", "--stats"],
    ):
        with pytest.raises(CommandError) as error:
            run(*args)
        assert str(error.value) == "Nothing is stored of the owner 'u2'."
        assert error.value.returncode == 1
    report = run_json("purge_sessions", "--owner=u1", "--idle=1h", "--no-input")
    assert report["deleted"] == 0, "the owner is known, and nothing is idle"
    assert stored() == {conversation.id}


def test_all_is_well(kept: str) -> None:
    make("u1")
    make(ttl=10)
    looked_at = 0 if kept == "shared" else 2  # memory is as it was written
    assert run_json("check_sessions") == {
        "backend": conversations.backend.name,
        "examined": looked_at,
        "found": 0,
        "kinds": dict.fromkeys(
            ["damaged", "partial", "orphaned", "unlisted", "without_ttl", "quarantined"], 0
        ),
        "findings": [],
        "message": f"Nothing is wrong; {looked_at} conversations looked at.",
    }
    assert run("check_conversations") == f"Nothing is wrong; {looked_at} conversations looked at."


@pytest.mark.parametrize("name", ["inspect", "purge", "check"])
def test_an_alias_does_the_same(name: str) -> None:
    make("u1")
    args = ["--owner=u1", "--dry-run"] if name == "purge" else []
    assert run(f"{name}_conversations", *args) == run(f"{name}_sessions", *args)


@pytest.mark.parametrize("kept", ALIASES, indirect=True)
def test_a_transaction_deletes_a_bounded_number_of_messages(
    kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_convstate.backends.database.purging.PURGED_MESSAGES", 4)
    for count in (1, 2, 3, 9, 1):
        conversation = conversations.create(owner="u1")
        for number in range(count):
            conversation.messages.append("user", str(number))
        conversation.save()
    reached: list[tuple[int, int | None]] = []
    report = conversations.purge(owner="u1", progress=lambda *done: reached.append(done))
    assert reached == [(2, 5), (3, 5), (4, 5), (5, 5)]
    assert report.deleted == 5
