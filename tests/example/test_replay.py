"""Replaying recorded dialogues: what is written is what is read, and what is not is said."""

import json
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_convstate import ConversationStore, conversations
from django_convstate.testing import store_away
from example_project import settings as example
from example_project.concierge.replay import (
    DialogueFileError,
    Replay,
    ReplayError,
    Turn,
    read_dialogues,
)
from tests.support.dialogues import recorded_turn, write_dialogues

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def site(settings: Any, empty_conversations: None) -> Any:
    settings.INSTALLED_APPS = example.INSTALLED_APPS
    return settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dialogues.json"
    write_dialogues(path)
    return path


def replay_of(path: Path, store: ConversationStore, **options: Any) -> Replay:
    return Replay(
        store, read_dialogues(path), **{"workers": 4, "progress": lambda: None, **options}
    )


class TestFile:
    def test_a_file_of_dialogues_is_read(self, file):
        first, *others = read_dialogues(file)
        assert len(others) == 39
        assert first.name == "dialogues.json, dialogue 1_00000"
        assert [turn.role for turn in first.turns] == ["user", "assistant"] * 2
        assert first.turns[1] == Turn("assistant", "Für wie viele Nächte? 🛏", {})
        assert first.final_state == {
            "Hotels_1": {
                "active_intent": "Book",
                "slot_values": {"city": ["Paris"], "nights": ["3"]},
            },
            "Flights_1": {"slot_values": {}},
        }

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("{}", "is not a list of dialogues"),
            ("[1]", "[0] is not an object"),
            ('[{"turns": []}]', "[0].dialogue_id is missing"),
            ('[{"dialogue_id": "1", "turns": {}}]', "[0].turns is missing or not a list"),
            ('[{"dialogue_id": "1", "turns": [{}]}]', "[0].turns[0].speaker is missing"),
            (
                '[{"dialogue_id": "1", "turns": [{"speaker": "X", "frames": []}]}]',
                "[0].turns[0].speaker is 'X', not USER or SYSTEM",
            ),
            (
                '[{"dialogue_id": "1", "turns": [{"speaker": "USER", "frames": [{}]}]}]',
                "[0].turns[0].frames[0].service is missing",
            ),
        ],
    )
    def test_a_file_of_another_shape_is_refused(self, tmp_path, content, message):
        path = tmp_path / "bad.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DialogueFileError) as caught:
            read_dialogues(path)
        assert str(caught.value).startswith(str(path))
        assert message in str(caught.value)

    @pytest.mark.parametrize("path", ["missing.json", "."])
    def test_a_missing_file_is_refused(self, tmp_path, path):
        with pytest.raises(DialogueFileError, match="cannot be read"):
            read_dialogues(tmp_path / path)


class TestReplay:
    @pytest.fixture(params=["locmem", "cache"])
    def store(self, request: pytest.FixtureRequest) -> ConversationStore:
        return ConversationStore(request.param)

    @pytest.mark.parametrize("workers", [1, 8])
    def test_replayed_dialogues_are_read_back_as_written(self, file, store, workers):
        done: list[int] = []
        replay = replay_of(file, store, workers=workers, progress=lambda: done.append(1))
        replay.write()
        assert len(done) == 160
        replay.compare()
        assert len(done) == 320
        replay.clean_up()
        with pytest.raises(ReplayError, match="is gone"):
            replay.compare()

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ((5, "turns", 1, "utterance"), "Für wen?", "turn 2, content: expected 'Für wen?', "),
            (
                (5, "turns", 3, "speaker"),
                "USER",
                "turn 4, role: expected 'user', found 'assistant'",
            ),
            (
                (5, "turns", 2, "frames", 0, "state", "slot_values", "nights"),
                ["4"],
                "state['Hotels_1']: ",
            ),
            ((5, "turns", 2, "frames", 1, "service"), "Buses_1", "keys of the state: "),
        ],
    )
    def test_a_difference_is_noticed(self, file, path, value, message):
        """What was written is compared with a file in which one thing is another."""
        store = ConversationStore("locmem")
        replay = replay_of(file, store)
        replay.write()
        changed = json.loads(file.read_text(encoding="utf-8"))
        *way, last = path
        place: Any = changed
        for step in way:
            place = place[step]
        place[last] = value
        file.write_text(json.dumps(changed), encoding="utf-8")
        other = replay_of(file, store)
        other._ids = replay._ids
        with pytest.raises(ReplayError) as caught:
            other.compare()
        assert str(caught.value).startswith("dialogues.json, dialogue 1_00005, ")
        assert message in str(caught.value)

    def test_a_lost_message_is_noticed(self, file):
        store = ConversationStore("locmem")
        replay = replay_of(file, store)
        replay.write()
        lost = store.get(next(store.list()).id)
        lost.messages.pop()
        lost.save()
        with pytest.raises(ReplayError, match="number of messages: expected 4, found 3"):
            replay.compare()

    def test_a_long_difference_is_shortened(self, file):
        store = ConversationStore("locmem")
        replay = replay_of(file, store)
        replay.write()
        spoilt = store.get(next(store.list()).id)
        spoilt["Hotels_1"] = {"active_intent": "Book", "slot_values": "x" * 1000}
        spoilt.save()
        with pytest.raises(ReplayError) as caught:
            replay.compare()
        assert "…" in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_evicted_conversations_are_explained(self, file):
        store = ConversationStore("locmem", max_conversations=10)
        replay = replay_of(file, store, workers=1)
        with pytest.raises(ReplayError, match=r"dialogue 1_\d{5}.* is gone.*MAX_CONVERSATIONS"):
            replay.write()
            replay.compare()

    def test_an_interrupted_replay_stops(self, tmp_path):
        """In the midst of dialogues that would go on for half a second more."""
        path = tmp_path / "long.json"
        turns = [recorded_turn("USER", "And another thing.")] * 500
        path.write_text(json.dumps([{"dialogue_id": id, "turns": turns} for id in "12"]))
        store, done = ConversationStore("locmem"), []

        def interrupt() -> None:
            done.append(1)
            if len(done) == 20:
                raise KeyboardInterrupt
            time.sleep(0.001)

        replay = replay_of(path, store, workers=2, progress=interrupt)
        with pytest.raises(KeyboardInterrupt):
            replay.write()
        assert len(done) < 500
        replay.clean_up()
        assert not list(store.list())

    def test_a_dialogue_without_turns_is_not_stored(self, tmp_path):
        path = tmp_path / "empty.json"
        path.write_text('[{"dialogue_id": "1", "turns": []}]', encoding="utf-8")
        replay = replay_of(path, ConversationStore("locmem"))
        replay.write()
        replay.compare()


class TestCommand:
    def test_the_command_sums_up_and_leaves_nothing(self, file):
        out = StringIO()
        call_command("replay_dialogues", str(file), str(file), "--workers", "3", stdout=out)
        first, second = out.getvalue().splitlines()
        assert first.startswith("80 dialogues with 320 turns, written to locmem in ")
        assert first.endswith("turns/s, --workers 3).")
        assert second == "All read back as they were written."
        assert not list(conversations.list())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing.json"], "cannot be read"),
            (["dialogues.json", "--workers", "0"], "--workers"),
        ],
    )
    def test_bad_arguments_are_refused(self, file, monkeypatch, arguments, message):
        monkeypatch.chdir(file.parent)
        with pytest.raises(CommandError, match=message):
            call_command("replay_dialogues", *arguments)

    def test_an_outage_is_reported(self, file):
        with store_away(), pytest.raises(CommandError, match="is away"):
            call_command("replay_dialogues", str(file))

    def test_a_difference_fails_the_command_and_leaves_nothing(self, file, site):
        site.CONVERSATION_STATE = {"MAX_CONVERSATIONS": 10}
        with pytest.raises(CommandError, match=r"dialogues\.json, dialogue .* is gone"):
            call_command("replay_dialogues", str(file))
        assert not list(conversations.list())

    @pytest.mark.parametrize(("name", "code"), [("dialogues.json", 0), ("missing.json", 1)])
    def test_the_command_runs_from_manage_py(self, file, name, code):
        done = subprocess.run(
            [
                *(sys.executable, "-W", "error", "manage.py", "replay_dialogues"),
                *("--settings", "example_project.settings", str(file.with_name(name))),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code
        assert ("All read back" in done.stdout) is (code == 0)
        assert ("CommandError" in done.stderr) is (code == 1)
