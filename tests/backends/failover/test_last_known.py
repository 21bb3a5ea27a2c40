"""What is remembered of conversations for an outage, and what is accepted in it."""

import asyncio
from typing import Any

import pytest

from django_convstate import BackendUnavailable, ConversationStore
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.failover.last_known import LastKnownCache
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Create
from django_convstate.backends.toolkit.writer import Writer
from tests.support.backends import Switched, record_of
from tests.support.failover import append, made, messages_of, numbers
from tests.support.messages import bodies

OLDER: dict[str, Any] = {
    "all": lambda messages, id: messages.all(),
    "find": lambda messages, id: messages.find(id),
    "update": lambda messages, id: messages.update(id, rating=1),
    "redact": lambda messages, id: messages.redact(id),
    "async all": lambda messages, id: asyncio.run(messages.aall()),
    "async find": lambda messages, id: asyncio.run(messages.afind(id)),
    "async update": lambda messages, id: asyncio.run(messages.aupdate(id, rating=1)),
    "async redact": lambda messages, id: asyncio.run(messages.aredact(id)),
}


class TestKnown:
    def test_a_known_conversation_goes_on_with_its_history_in_an_outage(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1", set={"k": b'"v"'}, increment={"n": 2}, owner="u1"))
        backend.commit("a", append(b"2", increment={"n": 3}))
        primary.away = True
        record = record_of(backend, "a")
        assert record.degraded
        assert (bodies(record.messages), record.owner, record.version) == ([b"1", b"2"], "u1", 2)
        assert record.state == {"k": b'"v"', "n": b"5"}
        committed = backend.commit("a", append(b"3", increment={"n": 1}, unset=["k"]))
        assert (committed.degraded, committed.version, committed.message_count) == (True, 3, 3)
        assert record_of(backend, "a").state == {"n": b"6"}
        assert backend.exists("a")
        assert bodies(backend.read_messages("a", 1, 3)) == [b"2", b"3"]

    def test_a_commit_that_was_overtaken_is_applied_in_an_outage(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        """What the primary has applied meanwhile does not make an open commit too old."""
        writer = Writer()
        backend.commit("a", append(b"1"))
        slow, fast = writer.begin("a"), writer.begin("a")
        backend.commit("a", append(b"2", commit=fast))
        primary.away = True
        assert not backend.commit("a", append(b"3", commit=slow)).repeated
        assert messages_of(backend, "a") == [b"1", b"2", b"3"]

    def test_an_unknown_conversation_is_neither_present_nor_absent_in_an_outage(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.away = True
        record = record_of(backend, "a")
        assert (record.degraded, record.version, bodies(record.messages)) == (True, 0, [])
        for ask in (lambda: backend.exists("a"), lambda: backend.read_messages("a", 0, 1)):
            with pytest.raises(BackendUnavailable):
                ask()

    def test_an_absence_is_not_remembered_for_an_outage(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        assert backend.load("a", 5) is None
        primary.away = True
        assert record_of(backend, "a").version == 0

    def test_the_number_of_known_conversations_is_bounded(self, primary: Switched) -> None:
        with made(primary, known_conversations=3) as backend:
            for number in range(5):
                backend.commit(f"c{number}", append(b"1"))
            backend.load("c2", 5)  # the latest now
            backend.commit("c5", append(b"1"))
            primary.away = True
            known = [n for n in range(6) if record_of(backend, f"c{n}").version]
            assert known == [2, 4, 5]

    def test_the_bytes_of_known_conversations_are_bounded(self, primary: Switched) -> None:
        with made(primary, known_bytes=100_000) as backend:
            for number in range(50):
                backend.commit(f"c{number}", append(b"x" * 10_000))
            primary.away = True
            known = [n for n in range(50) if record_of(backend, f"c{n}").version]
            assert known == list(range(50 - len(known), 50))
            assert 5 <= len(known) <= 10

    def test_a_window_larger_than_what_is_known_gives_what_is_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*numbers(0, 20)))
        backend.load("a", 5)
        primary.away = True
        record = backend.load("a", 50)
        assert record is not None
        assert (bodies(record.messages), record.message_count) == (numbers(15, 20), 20)
        assert bodies(backend.read_messages("a", 15, 20)) == numbers(15, 20)
        with pytest.raises(BackendUnavailable, match="older messages"):
            backend.read_messages("a", 14, 20)

    def test_messages_are_truncated_within_what_is_known_and_beyond(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*numbers(0, 20)))
        backend.load("a", 5)
        primary.away = True
        assert backend.commit("a", append(b"new", keep_messages=18)).message_count == 19
        assert messages_of(backend, "a") == [*numbers(15, 18), b"new"]
        assert backend.commit("a", append(b"newer", keep_messages=7)).message_count == 8
        assert messages_of(backend, "a") == [b"newer"]
        primary.away = False
        backend.close()
        assert messages_of(primary, "a") == [*numbers(0, 7), b"newer"]

    def test_messages_of_a_conversation_are_those_that_are_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        messages = [b'{"role":"user","content":%d}' % n for n in range(20)]
        primary.commit("a", append(*messages))
        backend.load("a", 5)
        primary.away = True
        conversation = ConversationStore(backend).get("a")
        assert [m["content"] for m in conversation.messages.window(10)] == list(range(15, 20))
        conversation.messages.append("user", "new")
        assert len(conversation.messages) == 21
        assert [m["content"] for m in conversation.messages.window(10)][-2:] == [19, "new"]
        conversation.messages.truncate(3)
        assert conversation.messages.window(10) == []
        with pytest.raises(BackendUnavailable):
            conversation.messages.all()

    def test_the_first_message_is_known_though_the_window_does_not_reach_it(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        """It may be the system prompt, without which a model is another one."""
        prompt = {"role": "system", "content": "Be kind."}
        store = ConversationStore(backend, window=5)
        conversation = store.create()
        id = conversation.id
        conversation.messages.extend([prompt])
        for number in range(130):
            conversation.messages.extend([{"role": "user", "content": str(number)}])
        conversation.save()
        store.get(id)
        backend.commit(id, append(b'{"role":"user","content":"again"}'))
        primary.away = True
        conversation = store.get(id)
        assert [m["content"] for m in conversation.messages.for_llm(2)] == ["Be kind.", "again"]
        conversation.messages.extend([{"role": "user", "content": "in it"}])
        conversation.save()
        conversation = store.get(id)
        assert [m["content"] for m in conversation.messages.for_llm(2)] == ["Be kind.", "in it"]
        conversation.messages.truncate(50)
        conversation.save()
        assert store.get(id).messages.for_llm(2) == [prompt]
        conversation.messages.clear()
        conversation.messages.extend([{"role": "user", "content": "anew"}] * 6)
        conversation.save()
        assert prompt not in store.get(id).messages.for_llm(5)

    def test_a_first_message_that_was_changed_is_known_as_it_is_now(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        store = ConversationStore(backend, window=5)
        conversation = store.create()
        (first, *_) = conversation.messages.extend([{"role": "system", "content": "Be kind."}] * 20)
        conversation.save()
        conversation = store.get(conversation.id)
        conversation.messages.update(first, content="Be brief.")
        conversation.save()
        primary.away = True
        conversation = store.get(conversation.id)
        assert conversation.messages.for_llm(2)[0]["content"] == "Be brief."

    def test_a_first_message_that_others_may_have_dropped_is_not_known(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        primary.commit("a", append(*numbers(0, 20)))
        backend.load("a", 5)
        primary.others.commit("a", append(*numbers(20, 40), keep_messages=0))
        backend.commit("a", append(b"new", window=5))
        primary.away = True
        assert record_of(backend, "a").first is None

    @pytest.mark.parametrize("older", OLDER.values(), ids=OLDER)
    def test_messages_older_than_those_are_refused(
        self, primary: Switched, backend: FailoverBackend, older: Any
    ) -> None:
        others = ConversationStore(primary.others).create()
        first, *_, last = [others.messages.append("user", number) for number in range(60)]
        others.save()
        store = ConversationStore(backend)
        store.get(others.id)  # its window is 50
        primary.away = True
        for spoken_before in (False, True):
            conversation = store.get(others.id)
            with pytest.raises(BackendUnavailable):
                older(conversation.messages, first)
            if not {"all", "aall"} & {*older.__code__.co_names}:
                older(conversation.messages, last)
            conversation["said"] = spoken_before
            conversation.save()
        primary.away = False
        backend.close()
        older(store.get(others.id).messages, first)

    def test_a_counter_that_others_replaced_is_remembered(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", Change(set={"n": b'"text"'}))
        primary.others.commit("a", Change(set={"n": b"1"}))
        backend.commit("a", append(b"1", increment={"n": 1}))
        primary.away = True
        assert record_of(backend, "a").version == 3


class TestJournal:
    def test_when_it_is_full_nothing_is_changed(self, primary: Switched) -> None:
        with made(primary, journal_bytes=50_000) as backend:
            primary.away = True
            accepted = 0
            with pytest.raises(BackendUnavailable, match="Nothing was changed") as caught:
                for _ in range(100):
                    backend.commit("a", append(b"x" * 1000))
                    accepted += 1
            assert not caught.value.transient
            assert 10 < accepted < 20
            for id in ("a", "b"):
                with pytest.raises(BackendUnavailable):
                    backend.commit(id, append(b"x" * 2000))
            assert record_of(backend, "a").message_count == accepted
            assert record_of(backend, "b").version == 0
            assert backend.health().pending_replay == accepted
            primary.away = False
            backend.close()
            assert record_of(primary, "a").message_count == accepted
            assert backend.commit("b", append(b"1")).degraded is False

    def test_a_refused_change_leaves_nothing_behind(
        self, primary: Switched, backend: FailoverBackend
    ) -> None:
        backend.commit("a", append(b"1"))
        assert record_of(backend, "a").version == 1
        primary.away = True
        with pytest.raises(Exception, match="taken"):
            backend.commit("a", append(b"2", create=Create.MUST_BE_NEW))
        assert backend.health().pending_replay == 0
        assert messages_of(backend, "a") == [b"1"]


def test_what_is_remembered_keeps_no_commit_open(backend: FailoverBackend) -> None:
    """Else the store would have to remember each of them, and so would this process."""
    writer = Writer()
    for _ in range(3):
        backend.commit("a", append(b"1", commit=writer.begin("a")))
    last = writer.begin("a")
    assert last.floor == last.number


def test_what_two_threads_have_sent_takes_nothing_of_what_was_known_before() -> None:
    primary, known = LocMemBackend(), LastKnownCache(10, 2**20, None, 600)
    primary.commit("a", append(*[b"0"] * 20))
    known.put("a", primary.load("a", 20), known.era)
    change = append(b"1", window=5, commit=Writer().begin("a"))
    for _ in range(2):
        known.apply("a", change, primary.commit("a", change), known.era)
    stored = known.get("a")
    assert stored is not None
    assert len(stored.messages.packed) == 21


@pytest.mark.parametrize("have_others_committed", [False, True])
@pytest.mark.parametrize("answers", ["first, repeated", "repeated, first", "both repeated"])
def test_what_two_threads_have_sent_is_remembered_once(
    answers: str, have_others_committed: bool
) -> None:
    """Threads that share a conversation may both send a change, and overtake each other."""
    primary, known = LocMemBackend(), LastKnownCache(10, 2**20, None, 600)
    primary.commit("a", append(b"0", set={"k": b"1"}))
    known.put("a", primary.load("a", 5), known.era)
    change = append(b"1", increment={"n": 1}, window=5, commit=Writer().begin("a"))
    era, first = known.era, primary.commit("a", change)
    if have_others_committed:
        primary.commit("a", append(b"2", increment={"n": 10}))
    repeated = primary.commit("a", change)
    assert repeated.repeated
    for name in answers.replace("both repeated", "repeated, repeated").split(", "):
        known.apply("a", change, first if name == "first" else repeated, era)
    stored = known.get("a")
    assert stored is not None
    assert (stored.state, stored.version) == ({"k": b"1", "n": b"1"}, repeated.version)
    record = record_of(primary, "a")
    assert bodies(stored.record("a", 5, None).messages) == bodies(record.messages)


@pytest.mark.parametrize("meanwhile", ["nothing", "loaded", "touched", "compacted", "overtaken"])
def test_what_was_applied_before_an_outage_is_not_applied_again_in_it(
    backend: FailoverBackend, primary: Switched, meanwhile: str
) -> None:
    """As where two threads send the change of a conversation that they share, and the answer to one
    of them is lost."""
    writer = Writer()
    backend.commit("a", append(b"1", commit=writer.begin("a")))
    backend.load("a", 5)
    change = append(b"2", increment={"n": 1}, commit=writer.begin("a"))
    if meanwhile == "overtaken":
        era = backend._known.era
        committed = primary.commit("a", change)
        backend.load("a", 5)
        backend._known.apply("a", change, committed, era)
    else:
        backend.commit("a", change)
    if meanwhile == "touched":
        backend.touch("a")
    elif meanwhile == "loaded":
        backend.load("a", 5)
    elif meanwhile == "compacted":
        for _ in range(10):
            backend.commit("a", append(commit=writer.begin("a")))
    primary.away = True
    assert backend.commit("a", change).repeated
    assert messages_of(backend, "a") == [b"1", b"2"]
    assert record_of(backend, "a").state == {"n": b"1"}


def test_what_is_begun_anew_has_no_commits_of_what_was_there_before(
    backend: FailoverBackend, primary: Switched
) -> None:
    change = append(b"1", commit=Writer().begin("a"))
    backend.commit("a", change)
    backend.load("a", 5)
    primary.others.delete("a")
    primary.others.commit("a", append(b"anew"))
    backend.load("a", 5)
    primary.away = True
    assert not backend.commit("a", change).repeated
    assert messages_of(backend, "a") == [b"anew", b"1"]
