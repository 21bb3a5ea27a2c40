"""What a file may have wrong, and what then becomes of the store."""

import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_convstate import ConversationConflict, ConversationStore, clock
from django_convstate.backends.database.models import Conversation as Row
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Record
from django_convstate.exceptions import InvalidExport
from django_convstate.testing import seed
from django_convstate.transfer import export_to, import_from, importing, open_to_read, open_to_write
from tests.support.archives import LISTING, TARGETS
from tests.support.host.models import Ticket

ID = "conversation-{}"


@pytest.fixture
def store() -> ConversationStore:
    return ConversationStore(LocMemBackend())


def exported(count: int = 3) -> list[bytes]:
    """The lines of conversations."""
    store, file = ConversationStore(LocMemBackend()), io.BytesIO()
    for number in range(count):
        seed([("user", f"message {number}")], {"number": number}, id=ID.format(number), store=store)
    assert export_to(file, store=store).exported == count
    return sorted(file.getvalue().splitlines(keepends=True))


def run(store: ConversationStore, data: bytes, *args: Any) -> importing.ImportReport:
    return import_from(io.BytesIO(data), *args, store=store)


def ids_in(store: ConversationStore) -> list[str]:
    return sorted(summary.id for summary in store.list())


def changed(line: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(line) | fields).encode() + b"\n"


def without(line: bytes, name: str) -> bytes:
    fields = json.loads(line)
    del fields[name]
    return json.dumps(fields).encode() + b"\n"


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


BAD = {
    "no JSON": (lambda line: b"hello\n", "not JSON"),
    "cut off": (lambda line: line[:40] + b"\n", "not JSON, or cut off"),
    "a list": (lambda line: b"[1]\n", "no conversation"),
    "another object": (lambda line: b'{"role": "user"}\n', 'no field "format"'),
    "a later format": (lambda line: changed(line, format=2), "format is not 1"),
    "a format of another type": (lambda line: changed(line, format=True), "format is not 1"),
    "nothing but a format": (lambda line: b'{"format": 1}\n', 'lacks "created_at", "id"'),
    "no id": (lambda line: without(line, "id"), 'lacks "id"'),
    "an unknown field": (lambda line: changed(line, mood="good"), 'unknown fields: "mood"'),
    "a bad id": (lambda line: changed(line, id="../x"), "A conversation id consists of"),
    "an id of another type": (lambda line: changed(line, id=7), "is a string, not int"),
    "an owner of another type": (lambda line: changed(line, owner=7), "owner must be a string"),
    "an empty owner": (lambda line: changed(line, owner=""), "An owner has 1 to"),
    "a version of 0": (lambda line: changed(line, version=0), "version must be"),
    "a version of another type": (lambda line: changed(line, version=True), "version must be"),
    "a version beyond all": (lambda line: changed(line, version=10**10), "version must be"),
    "a time as text": (lambda line: changed(line, created_at="2026"), "created_at must be"),
    "a time before all": (lambda line: changed(line, modified_at=-1), "modified_at must be"),
    "a ttl of 0": (lambda line: changed(line, ttl=0), "ttl must be above 0"),
    "a negative count": (lambda line: changed(line, dropped=-1), "dropped must be"),
    "a bad key": (lambda line: changed(line, last_key="xyz"), "last_key must be"),
    "a key above all": (lambda line: changed(line, last_key="ff" * 10), "last_key must be"),
    "a key that begins as JSON": (lambda line: changed(line, last_key="7b" * 10), "last_key must"),
    "a state nested too deeply": (
        lambda line: changed(line, state={"a": nested(300)}),
        "state has something that is nested too deeply",
    ),
    "a message nested too deeply": (
        lambda line: changed(line, messages=[["a", {"content": nested(300)}]]),
        r"messages\[0\] has something that is nested too deeply",
    ),
    "a state that is a list": (lambda line: changed(line, state=[]), "must be objects"),
    "bytes that are no base64": (
        lambda line: changed(line, state_bytes={"a": "?"}),
        "state_bytes has something that is not base64",
    ),
    "messages that are no list": (lambda line: changed(line, messages={}), "must be a list"),
    "a message that is text": (
        lambda line: changed(line, messages=[["a", {}], "hi"]),
        r"messages\[1\] must be an id and an object",
    ),
    "a message without id": (lambda line: changed(line, messages=[["", {}]]), "has 1 to 64"),
    "two messages with one id": (
        lambda line: changed(line, messages=[["a", {}], ["a", {}]]),
        r"messages\[1\] has the id of another",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_told_by_its_number_and_nothing_is_imported(
    store: ConversationStore, name: str
) -> None:
    spoil, why = BAD[name]
    first, second, third = exported()
    with pytest.raises(InvalidExport, match=r"1 of 3 lines .* Nothing was imported") as caught:
        run(store, first + spoil(second) + third)
    [(number, problem)] = caught.value.problems
    assert number == 2
    assert_matches(problem, why)
    assert "message 1" not in problem
    assert ids_in(store) == []


def assert_matches(text: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


def test_all_bad_lines_are_told(store: ConversationStore) -> None:
    first, _, third = exported()
    with pytest.raises(InvalidExport, match="2 of 4 lines") as caught:
        run(store, first + b"\n" + b"oh\n" + third + b"no\n")
    assert [number for number, _ in caught.value.problems] == [3, 5]


def test_so_many_bad_lines_are_counted(store: ConversationStore) -> None:
    with pytest.raises(InvalidExport, match="500 of 500 lines") as caught:
        run(store, b"oh\n" * 500)
    assert len(caught.value.problems) == importing.MAX_PROBLEMS


def test_an_id_that_comes_twice_is_told(store: ConversationStore) -> None:
    first, second, third = exported()
    for on_conflict in ("fail", "skip", "replace"):
        with pytest.raises(InvalidExport) as caught:
            run(store, first + second + third + second, on_conflict)
        assert caught.value.problems == [(4, "Its id is that of a line before.")]
    assert ids_in(store) == []


def test_an_id_that_is_there_fails_unless_it_is_to_be_skipped_or_replaced(
    store: ConversationStore,
) -> None:
    data = b"".join(exported())
    seed([("user", "mine")], {"number": 7}, id=ID.format(1), store=store)
    with pytest.raises(InvalidExport) as caught:
        run(store, data)
    assert caught.value.problems == [(2, "There is a conversation with its id already.")]
    assert ids_in(store) == [ID.format(1)]

    report = run(store, data, "skip")
    assert (report.imported, report.skipped, report.replaced) == (2, 1, 0)
    assert store.get(ID.format(1))["number"] == 7

    report = run(store, data, "replace")
    assert (report.imported, report.skipped, report.replaced) == (3, 0, 3)
    assert store.get(ID.format(1))["number"] == 1
    assert store.get(ID.format(1)).messages[0]["content"] == "message 1"


def test_what_is_begun_under_an_id_while_it_is_imported_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Overtaken(LocMemBackend):
        def restore(self, id: str, record: Record, *args: Any, **options: Any) -> None:
            if id == ID.format(1) and options["replaces"] is None:
                seed([("user", "mine")], id=id, store=others)
            super().restore(id, record, *args, **options)

    backend = Overtaken()
    others = ConversationStore(backend)
    with pytest.raises(ConversationConflict, match=r"Line 2: .* 1 conversations before it"):
        run(ConversationStore(backend), b"".join(exported()))
    assert ids_in(others) == [ID.format(0), ID.format(1)]
    assert others.get(ID.format(1)).messages[0]["content"] == "mine"


def test_an_answer_that_was_lost_is_no_conflict() -> None:
    class Repeats(LocMemBackend):
        def restore(self, id: str, record: Record, messages: Any, **options: Any) -> None:
            said = list(messages)
            super().restore(id, record, said, **options)
            super().restore(
                id, record, said, **options
            )  # as a client does that has lost the answer

    store = ConversationStore(Repeats())
    assert run(store, b"".join(exported())).imported == 3


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_foreign_keys_stay_when_a_conversation_is_replaced(
    make_store: Callable[[str], ConversationStore], place: str
) -> None:
    store = make_store(place)
    seed([("user", "mine")], {"number": 7}, id=ID.format(1), store=store)
    row = Row.rows.using(place).get(key=ID.format(1))
    ticket = Ticket._default_manager.using(place).create(subject="help", conversation=row)
    assert run(store, b"".join(exported()), "replace").replaced == 1
    ticket.refresh_from_db()
    assert ticket.conversation_id == row.pk
    assert store.get(ID.format(1))["number"] == 1
    row.refresh_from_db()
    assert (row.title, row.state_json) == ("", {"number": 1})
    assert [each.text for each in row.messages.all()] == ["message 1"]


@pytest.mark.parametrize("place", LISTING)
def test_what_is_replaced_has_its_place_in_a_listing(
    make_store: Callable[[str], ConversationStore], place: str
) -> None:
    store, now = make_store(place), float(int(clock.time()))
    lines = [
        changed(line, owner="u1", created_at=now - 9000, modified_at=now - 1000 * number)
        for number, line in enumerate(exported(4), 1)
    ]
    seed([("user", "mine")], owner="u1", id=ID.format(2), store=store)
    assert run(store, b"".join(lines), "replace").replaced == 1
    first = list(store.list("u1", limit=2))
    rest = store.list("u1", limit=9, after=first[-1].cursor)
    assert [each.id for each in (*first, *rest)] == [ID.format(number) for number in range(4)]


def test_what_has_expired_is_left_out(store: ConversationStore) -> None:
    first, second, third = exported()
    old = clock.time() - 10_000
    report = run(store, first + changed(second, last_accessed=old) + changed(third, ttl=None))
    assert (report.imported, report.expired) == (2, 1)
    assert ids_in(store) == [ID.format(0), ID.format(2)]


@pytest.mark.parametrize("place", TARGETS)
def test_ids_of_messages_that_are_the_highest_sort_keys(
    make_store: Callable[[str], ConversationStore], place: str
) -> None:
    """They may be an application's own. There is room for more messages after them."""
    store, line, told = make_store(place), exported(1)[0], ["7a" + 18 * "0", "7a" + 18 * "f"]
    said = [[id, {"role": "user", "content": id, "id": id}] for id in told]
    run(store, changed(line, messages=said))
    for number in range(3):
        store.append(ID.format(0), "user", f"again {number}")
    conversation = store.get(ID.format(0))
    found = [message["content"] for message in conversation.messages.all()]
    assert found == [*told, "again 0", "again 1", "again 2"]
    assert [conversation.messages.find(id)["content"] for id in told] == told
    if store.backend.can_scan and store.backend.is_shared:
        assert list(store.find_damage()) == []
    store.delete(ID.format(0))


def test_what_the_backend_does_not_take_is_told_by_its_line() -> None:
    store = ConversationStore(LocMemBackend(max_bytes=10_000))
    first, second, third = exported()
    report = run(store, first + changed(second, state={"a": "x" * 20_000}) + third)
    assert (report.imported, report.refused) == (2, 1)
    [(number, why)] = report.problems
    assert number == 2
    assert "MAX_BYTES is 10000" in why


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "conversations.jsonl.gz"
    with open_to_write(path) as file:
        file.writelines(exported(200))
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]
    return path


def test_a_file_that_is_compressed(store: ConversationStore, path: Path) -> None:
    with open_to_read(path) as file:
        assert import_from(file, store=store).imported == 200
    assert path.stat().st_size < len(gzip.decompress(path.read_bytes())) / 4


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_imports_nothing(
    store: ConversationStore, path: Path, kept: float
) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with open_to_read(path) as file, pytest.raises(InvalidExport) as caught:
        import_from(file, store=store)
    (number, why) = caught.value.problems[-1]
    assert "cut off" in why
    lines = zlib.decompressobj(31).decompress(path.read_bytes()).count(b"\n")
    assert 1 <= number <= lines + 1
    assert ids_in(store) == []


@pytest.mark.parametrize("spoil", ["not compressed", "damaged", "empty"])
def test_a_file_that_is_no_gzip_imports_nothing(
    store: ConversationStore, path: Path, spoil: str
) -> None:
    data = bytearray(path.read_bytes())
    if spoil == "damaged":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes({"not compressed": b"{}\n", "empty": b"", "damaged": bytes(data)}[spoil])
    with open_to_read(path) as file:
        if spoil == "empty":  # which gzip takes for an end
            assert import_from(file, store=store).imported == 0
        else:
            with pytest.raises(InvalidExport):
                import_from(file, store=store)
    assert ids_in(store) == []


def test_a_line_without_end_is_not_read_into_memory(
    store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MAX_LINE", 2**20)
    with pytest.raises(InvalidExport) as caught:
        run(store, b"".join(exported()) + b"x" * 2**21)
    assert caught.value.problems == [(4, "It is longer than 1 MiB.")]


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link.gz"
    link.symlink_to(target)
    with open_to_write(link) as file:
        file.write(b"new")
    assert gzip.decompress(target.read_bytes()) == b"new"
    assert sorted(tmp_path.iterdir()) == [link, target]
    assert link.is_symlink()


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"the last one")
    with pytest.raises(RuntimeError), open_to_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"the last one"
    assert list(tmp_path.iterdir()) == [path]
