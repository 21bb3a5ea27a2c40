"""export_sessions, import_sessions, migrate_sessions and erase_owner, as an operator calls them."""

import gzip
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.management import CommandError, call_command

from django_convstate import ConversationStore, conversations
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.testing import seed
from tests.support.backends import SharedBackend

SHARED = f"{__name__}.KeptBackend"
OTHER = f"{__name__}.OtherBackend"
AWAY = "tests.support.backends.AwayBackend"


class KeptBackend(SharedBackend):
    """The same for all stores of this process, as a server is."""

    instances: ClassVar[dict[type, "KeptBackend"]] = {}

    def __new__(cls, **options: Any) -> "KeptBackend":
        if cls not in cls.instances:
            cls.instances[cls] = super().__new__(cls)
            SharedBackend.__init__(cls.instances[cls], **options)
        return cls.instances[cls]

    def __init__(self, **options: Any) -> None:
        """Keep what is there."""


class OtherBackend(KeptBackend):
    """Where conversations are moved to."""


class AwayRedis(RedisBackend):
    """Redis on an address where nobody listens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"cache_alias": "unreachable"})


@pytest.fixture(autouse=True)
def _shared(settings: Any) -> Iterator[None]:
    settings.CONVERSATION_STATE_BACKEND = SHARED
    yield
    for backend in KeptBackend.instances.values():
        backend.clear()


def run(*args: str) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out)
    return " ".join(out.getvalue().split())


def failing(*args: str) -> tuple[int, str, str]:
    """Run what fails. Return its exit code, its sentence, and what it has told before."""
    err = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(*args, stdout=io.StringIO(), stderr=err)
    sentence = str(caught.value)
    assert sentence.count("\n") == 0
    return caught.value.returncode, sentence, err.getvalue()


def fill() -> None:
    for number in range(3):
        seed([("user", f"message {number}")], owner=f"u{number % 2}", id=f"id-{number}")


class TestExportAndImport:
    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
    @pytest.mark.parametrize("alias", ["sessions", "conversations"])
    def test_there_and_back(self, tmp_path: Path, name: str, alias: str) -> None:
        fill()
        path = tmp_path / name
        shown = run(f"export_{alias}", str(path))
        assert shown.startswith(f"3 conversations written to {path}, ")
        assert shown.endswith("B of JSON.")
        data = path.read_bytes()
        lines = (gzip.decompress(data) if name.endswith(".gz") else data).splitlines()
        assert {json.loads(line)["id"] for line in lines} == {"id-0", "id-1", "id-2"}
        conversations.purge(everything=True)
        assert run(f"import_{alias}", str(path)) == "3 conversations imported."
        assert {each.id: each.owner for each in conversations.list()} == {
            "id-0": "u0",
            "id-1": "u1",
            "id-2": "u0",
        }

    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
    def test_an_empty_store_is_exported_as_an_empty_file(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("of another time")
        assert run("export_sessions", str(path)).startswith("0 conversations written to ")
        data = path.read_bytes()
        assert (gzip.decompress(data) if name.endswith(".gz") else data) == b""
        assert run("import_sessions", str(path)) == (
            "Nothing was imported: there are no conversations in the file."
        )

    def test_those_of_an_owner_and_json(self, tmp_path: Path) -> None:
        fill()
        path = tmp_path / "out.jsonl"
        told = json.loads(run("export_sessions", str(path), "--owner=u0", "--json"))
        assert told == {
            "file": str(path),
            "exported": 2,
            "left_out": 0,
            "size": path.stat().st_size,
        }
        told = json.loads(run("import_sessions", str(path), "--on-conflict=skip", "--json"))
        assert told == {
            "imported": 0,
            "replaced": 0,
            "skipped": 2,
            "expired": 0,
            "refused": 0,
            "problems": [],
        }
        assert run("import_sessions", str(path), "--on-conflict=replace") == (
            "2 conversations imported; 2 of them in the place of others."
        )

    def test_by_way_of_a_pipe(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        fill()
        call_command("export_sessions", "-")
        data = capsysbinary.readouterr().out
        assert data.count(b"\n") == 3, "and nothing else"
        conversations.purge(everything=True)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert run("import_sessions", "-") == "3 conversations imported."

    def test_bad_lines_are_told_by_number(self, tmp_path: Path) -> None:
        fill()
        path = tmp_path / "out.jsonl"
        run("export_sessions", str(path))
        code, sentence, told = failing("import_sessions", str(path))
        assert (code, sentence) == (4, "3 of 3 lines cannot be imported. Nothing was imported.")
        assert told.splitlines() == [
            f"Line {number}: There is a conversation with its id already." for number in (1, 2, 3)
        ]
        path.write_bytes(path.read_bytes() + b"oh\n" * 30)
        code, _, told = failing("import_sessions", str(path), "--on-conflict=replace")
        assert code == 4
        assert told.splitlines()[0] == "Line 4: It is not JSON, or cut off."
        assert told.splitlines()[-1] == "And more."

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        fill()
        path = tmp_path / "out.jsonl.gz"
        run("export_sessions", str(path))
        conversations.purge(everything=True)
        path.write_bytes(path.read_bytes()[:-20])
        code, _, told = failing("import_sessions", str(path))
        assert code == 4
        assert "cut off" in told
        assert list(conversations.list()) == []

    def test_files_that_cannot_be_opened(self, tmp_path: Path) -> None:
        fill()
        missing = tmp_path / "missing" / "out.jsonl"
        for command, does in (("export_sessions", "written"), ("import_sessions", "read")):
            assert failing(command, str(missing)) == (
                1,
                f"{missing} cannot be {does}: No such file or directory.",
                "",
            )
        for name in ("", str(tmp_path)):
            assert "Is a directory" in failing("export_sessions", name)[1]
            assert "Is a directory" in failing("import_sessions", name)[1]

    def test_what_is_no_file_is_not_replaced_by_one(self, tmp_path: Path) -> None:
        fill()
        pipe, link = tmp_path / "pipe", tmp_path / "link"
        os.mkfifo(pipe)
        link.symlink_to(pipe)
        for path in (pipe, link):
            code, sentence, _ = failing("export_sessions", str(path))
            assert (code, sentence.split(": ")[1]) == (
                1,
                "It is no file that can be replaced. - is standard output.",
            )
            assert path.is_fifo()
        assert sorted(tmp_path.iterdir()) == [link, pipe]

    def test_what_is_damaged_is_left_out_and_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from django_convstate.exceptions import ConversationCorrupt

        fill()
        peek = SharedBackend.peek

        def damaged(self: SharedBackend, id: str, window: int) -> Any:
            if id == "id-1":
                raise ConversationCorrupt("It makes no sense.")
            return peek(self, id, window)

        monkeypatch.setattr(SharedBackend, "peek", damaged)
        path = tmp_path / "out.jsonl"
        code, sentence, _ = failing("export_sessions", str(path))
        assert code == 4
        assert sentence.startswith("1 conversation could not be read, and is not in the file")
        assert path.read_bytes().count(b"\n") == 2

    def test_what_the_backend_does_not_take_is_told(self, tmp_path: Path) -> None:
        fill()
        path = tmp_path / "out.jsonl"
        run("export_sessions", str(path))
        first, second, third = path.read_bytes().splitlines(keepends=True)
        large = json.dumps(json.loads(second) | {"state": {"a": "x" * 2**26}}).encode() + b"\n"
        path.write_bytes(first + large + third)
        code, sentence, told = failing("import_sessions", str(path), "--on-conflict=replace")
        assert (code, sentence) == (4, "The shared backend did not take 1 conversation.")
        assert told.startswith("Line 2: The conversation would take ")

    def test_a_store_that_is_away(self, tmp_path: Path, settings: Any) -> None:
        fill()
        path = tmp_path / "out.jsonl"
        run("export_sessions", str(path))
        code, sentence, _ = failing("import_sessions", str(path), f"--backend={AWAY}")
        assert code == 3
        assert "cannot be reached" in sentence
        assert sentence.endswith("Run it again with --on-conflict skip.")
        settings.CONVERSATION_STATE = {"FALLBACK": None}
        away = f"{__name__}.AwayRedis"
        before = path.read_bytes()
        assert failing("export_sessions", str(path), f"--backend={away}")[0] == 3
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["export_sessions", "x", "--backend=locmem"], "locmem lives inside each server"),
            (
                ["import_sessions", "x", "--backend=locmem"],
                "locmem lives inside each server process: what is put there from here ends",
            ),
            (["export_sessions", "x", "--backend=cache"], "cannot list"),
            (["export_sessions", "x", "--backend=nowhere"], "There is no backend 'nowhere'"),
            (["export_sessions", "x", "--owner="], "An owner has 1 to 256"),
            (["export_sessions", "x", "--owner=u9"], "Nothing is stored of the owner 'u9'."),
            (["export_sessions"], "required: FILE"),
            (["import_sessions", "x", "--on-conflict=ask"], "invalid choice"),
        ],
    )
    def test_bad_arguments(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert words in failing(*args)[1]
        assert list(tmp_path.iterdir()) == []


class TestMigrate:
    def test_all_are_copied_and_verified(self) -> None:
        fill()
        command = ["migrate_sessions", f"--from={SHARED}", f"--to={OTHER}"]
        assert run(*command) == "3 conversations copied; 3 of 3 verified."
        conversations.delete("id-0")
        assert run(*command, "--json") == json.dumps(
            {
                "passes": 1,
                "copied": 0,
                "deleted": 1,
                "source": 2,
                "target": 2,
                "verified": 2,
                "changed": 0,
                "newer": 0,
                "only_in_target": 0,
                "differing": 0,
                "refused": 0,
                "is_complete": True,
            }
        )

    def test_what_is_not_the_same_is_told(self) -> None:
        fill()
        command = ["migrate_sessions", f"--from={SHARED}", f"--to={OTHER}"]
        run(*command)
        other = ConversationStore(OTHER)
        later = other.get("id-1")
        later.messages.append("user", "later")
        later.save()
        code, sentence, _ = failing(*command)
        assert code == 4
        assert f"1 saved later in {OTHER}, and left alone" in sentence

    @pytest.mark.parametrize(
        ("source", "target", "code", "words"),
        [
            (SHARED, SHARED, 1, "the same backend"),
            ("cache", "django_convstate.backends.cache.backend.CacheBackend", 1, "the same"),
            ("cache", SHARED, 1, "cannot list"),
            ("locmem", SHARED, 1, "inside each server process: nothing to migrate from here."),
            (SHARED, "locmem", 1, "process: what is put there from here ends with this command."),
            ("nowhere", SHARED, 1, "There is no backend 'nowhere'"),
            (SHARED, AWAY, 3, "cannot be reached"),
            (f"{__name__}.AwayRedis", SHARED, 3, "unreachable"),
        ],
    )
    def test_what_cannot_be_migrated(self, source: str, target: str, code: int, words: str) -> None:
        fill()
        found, sentence, _ = failing("migrate_sessions", f"--from={source}", f"--to={target}")
        assert (found, words in sentence) == (code, True), sentence


class TestErase:
    def test_an_owner_is_erased_after_a_question(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill()
        path = tmp_path / "report.json"
        monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
        assert failing("erase_owner", "u0")[1] == "Nothing was deleted."
        assert len(list(conversations.list())) == 3
        monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
        shown = run("erase_owner", "u0", f"--report={path}")
        assert shown.startswith("Erased 2 conversations of u0. Until 20")
        report = json.loads(path.read_text())
        assert (report["owner"], report["deleted"], report["backend"]) == ("u0", 2, "shared")
        assert report["elsewhere"][0]["until"] > report["erased_at"]
        assert path.stat().st_mode & 0o077 == 0
        assert [each.owner for each in conversations.list()] == ["u1"]

    def test_an_owner_who_has_nothing(self, tmp_path: Path) -> None:
        fill()
        path = tmp_path / "report.json"
        out = io.StringIO()
        with pytest.raises(
            CommandError, match=r"^Nothing is stored of the owner 'u9'\.$"
        ) as caught:
            call_command("erase_owner", "u9", "--no-input", f"--report={path}", stdout=out)
        assert (caught.value.returncode, out.getvalue()) == (1, "")
        assert json.loads(path.read_text())["deleted"] == 0
        assert len(list(conversations.list())) == 3

    @pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="Linux has such a device")
    def test_a_report_for_which_there_is_no_room(self) -> None:
        fill()
        code, sentence, _ = failing("erase_owner", "u0", "--no-input", "--report=/dev/full")
        assert (code, sentence) == (
            1,
            "All is erased, but without a report: /dev/full cannot be written: No space left on "
            "device.",
        )
        assert [each.owner for each in conversations.list()] == ["u1"]

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["u0", "--backend=cache"], "cannot list"),
            (["u0", "--backend=locmem"], "locmem lives inside"),
            (["", "--no-input"], "An owner has 1 to"),
            (["None", "--no-input"], "not logged in"),
            (["u0", "--no-input", "--report=/nowhere/x"], "/nowhere/x cannot be written"),
            (["u0", "--no-input", "--report=/"], "/ cannot be written: Is a directory"),
            ([], "required: OWNER"),
        ],
    )
    def test_bad_arguments_erase_nothing(self, args: list[str], words: str) -> None:
        fill()
        assert words in failing("erase_owner", *args)[1]
        assert len(list(conversations.list())) == 3
