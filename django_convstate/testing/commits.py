"""What a backend promises about commits: complete or not at all, and once."""

import time
from itertools import chain

from ..backends.records import Change, Create
from ..backends.refusals import COUNTER_MAX
from ..exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    InvalidConversationType,
    InvalidConversationValue,
)
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, in_threads, message, refused


class CommitContract(Scenarios):
    """What is committed, and what a load returns of it."""

    @both_twins
    async def test_absent_conversation(self, backend: Twin) -> None:
        id = new_id()
        assert await backend.load(id, 50) is None
        assert await backend.exists(id) is False
        assert await backend.touch(id) is False
        assert await backend.delete(id) is False
        assert await backend.read_messages(id, 0, 10) == []
        assert await backend.exists(id) is False

    @both_twins
    async def test_create_and_load(self, backend: Twin) -> None:
        id, before = new_id(), time.time()
        change = Change(
            create=Create.MUST_BE_NEW,
            owner="u1",
            ttl=60.0,
            set={"city": b'"Jaipur"', "trip": b'{"days":[1,2]}'},
            increment={"questions": 2},
            append=[message(0), message(1)],
        )
        committed = await backend.commit(id, change)
        assert (committed.version, committed.message_count) == (1, 2)
        await self.check(backend, id, id=id, version=1, owner="u1", ttl=60, message_count=2)
        state = {**change.set, "questions": b"2"}
        await self.check(backend, id, state=state, messages=change.append)
        record = await self.load(backend, id)
        # The backend's clock may be another machine's, a little different from ours.
        assert before - 5 <= record.created_at <= record.modified_at <= record.last_accessed
        assert record.last_accessed <= time.time() + 5
        assert abs(record.expires_at - record.last_accessed - 60) < 1
        assert abs(committed.expires_at - record.expires_at) < 5
        assert await backend.exists(id) is True

    @both_twins
    async def test_any_text_is_kept(self, backend: Twin) -> None:
        texts = ["", " ", "\x00", "\r\n", "naïve 東京 🙂", "{*}[?]", "__class__", 'q"\\', "a" * 300]
        values = {text: b'"%b"' % "東京 🙂".encode() for text in texts}
        messages = [(message(i)[0], value) for i, value in enumerate(values.values())]
        id = await self.stored(backend, set=values, append=messages)
        await self.check(backend, id, state=values, messages=messages)

    @both_twins
    async def test_similar_ids_are_different_conversations(self, backend: Twin) -> None:
        stem = new_id()
        ids = [stem, stem.swapcase() + "x", stem + "x", stem + ":x", "doc:" + stem, "+" + stem]
        for number, id in enumerate(ids):
            await backend.commit(id, Change(create=Create.MUST_BE_NEW, append=[message(number)]))
        for number, id in enumerate(ids):
            assert (await self.load(backend, id)).messages == [message(number)]

    @both_twins
    async def test_create_rules(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        with refused(ConversationConflict):
            await backend.commit(id, Change(create=Create.MUST_BE_NEW, set={"a": b"2"}))
        await backend.commit(id, Change(create=Create.MUST_EXIST, set={"b": b"2"}))
        await backend.commit(id, Change(create=Create.EITHER, set={"c": b"3"}))
        await self.check(backend, id, version=3, state={"a": b"1", "b": b"2", "c": b"3"})
        absent = new_id()
        with refused(ConversationInterrupted):
            await backend.commit(absent, Change(create=Create.MUST_EXIST, set={"a": b"1"}))
        assert await backend.exists(absent) is False
        await backend.commit(absent, Change(create=Create.EITHER, set={"a": b"1"}))
        assert (await self.load(backend, absent)).state == {"a": b"1"}

    @both_twins
    async def test_default_ttl_is_for_new_conversations_only(self, backend: Twin) -> None:
        id = await self.stored(backend, ttl=60.0, set={"a": b"1"})
        await backend.commit(id, Change(create=Create.EITHER, default_ttl=300.0, set={"b": b"1"}))
        assert (await self.load(backend, id)).ttl == 60
        new = new_id()
        await backend.commit(new, Change(create=Create.EITHER, default_ttl=300.0, set={"a": b"1"}))
        await backend.commit(new, Change(default_ttl=60.0, set={"b": b"1"}))
        record = await self.load(backend, new)
        assert record.ttl == 300
        assert abs(record.expires_at - record.last_accessed - 300) < 1
        await backend.commit(new, Change(ttl=60.0, default_ttl=300.0))
        assert (await self.load(backend, new)).ttl == 60

    @both_twins
    async def test_disjoint_changes_are_both_kept(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1", "b": b"1", "c": b"1"})
        await backend.commit(id, Change(set={"a": b"2"}, append=[message(1)]))
        await backend.commit(id, Change(set={"b": b"2"}, append=[message(2)]))
        await backend.commit(id, Change(unset=["c", "never there"]))
        await backend.commit(id, Change(set={"b": b"3"}))
        messages = [message(1), message(2)]
        await self.check(backend, id, state={"a": b"2", "b": b"3"}, messages=messages)

    @both_twins
    async def test_counters(self, backend: Twin) -> None:
        values = {"n": b"5", "text": b'"x"', "float": b"1.5", "high": b"%d" % COUNTER_MAX}
        values["beyond"] = b"%d" % (COUNTER_MAX + 1)  # JSON knows it, but it cannot be counted
        id = await self.stored(backend, set=values)
        await backend.commit(id, Change(increment={"n": 2, "new": -3}))
        await backend.commit(id, Change(set={"n": b"100"}, increment={"n": 1}))
        state = (await self.load(backend, id)).state
        assert (state["n"], state["new"]) == (b"101", b"-3")
        for key, by, why in (
            ("text", 1, InvalidConversationType),
            ("float", 1, InvalidConversationType),
            ("high", 1, InvalidConversationValue),
            ("beyond", -1, InvalidConversationValue),
            ("n", COUNTER_MAX + 1, InvalidConversationValue),
            ("never there", COUNTER_MAX + 1, InvalidConversationValue),
        ):
            change = Change(set={"m": b"0"}, increment={key: by}, append=[message(1)])
            with refused(why):
                await backend.commit(id, change)
        # A refused change changes nothing.
        state = values | {"n": b"101", "new": b"-3"}
        await self.check(backend, id, state=state, version=3, message_count=0)

    @both_twins
    async def test_version_check(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        committed = await backend.commit(id, Change(expected_version=1, set={"a": b"2"}))
        assert committed.version == 2
        for wrong in (0, 1, 3):
            with refused(ConversationConflict):
                await backend.commit(id, Change(expected_version=wrong, set={"a": b"3"}))
        assert (await self.load(backend, id)).state == {"a": b"2"}
        absent = new_id()
        with refused(ConversationConflict):
            await backend.commit(absent, Change(expected_version=1, set={"a": b"1"}))
        assert await backend.exists(absent) is False
        await backend.commit(absent, Change(expected_version=0, set={"a": b"1"}))
        assert await backend.exists(absent) is True

    @both_twins
    async def test_owner(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        assert (await self.load(backend, id)).owner is None
        await backend.commit(id, Change(owner="u1"))
        await backend.commit(id, Change(owner="u1", set={"a": b"2"}))
        with refused(ConversationConflict):
            await backend.commit(id, Change(owner="u2", set={"a": b"3"}))
        await self.check(backend, id, owner="u1", state={"a": b"2"})

    @both_twins
    async def test_messages(self, backend: Twin) -> None:
        id = await self.stored(backend, append=[message(i) for i in range(10)])
        newest = [message(i) for i in (7, 8, 9)]
        await self.check(backend, id, 3, messages=newest, message_count=10)
        assert await backend.read_messages(id, 2, 5) == [message(i) for i in (2, 3, 4)]
        assert await backend.read_messages(id, 8, 99) == [message(8), message(9)]
        assert await backend.read_messages(id, 99, 100) == []
        assert await backend.read_messages(id, 5, 5) == []
        committed = await backend.commit(id, Change(keep_messages=4, append=[message(77)]))
        assert committed.message_count == 5
        expected = [message(i) for i in (0, 1, 2, 3, 77)]
        assert (await self.load(backend, id)).messages == expected
        await backend.commit(id, Change(keep_messages=99))
        assert (await self.load(backend, id)).messages == expected
        await backend.commit(id, Change(keep_messages=0))
        await self.check(backend, id, messages=[], message_count=0)

    @both_twins
    async def test_a_large_commit_is_one_commit(self, backend: Twin) -> None:
        values = {f"key {i}": b"%d" % i for i in range(10_000)}
        id = await self.stored(backend, set=values, append=[message(i) for i in range(20_000)])
        newest = [message(19_998), message(19_999)]
        await self.check(backend, id, 2, state=values, message_count=20_000, messages=newest)

    @both_twins
    async def test_a_record_is_a_copy(self, backend: Twin) -> None:
        appended = [message(0)]
        id = await self.stored(backend, set={"a": b"1"}, append=appended)
        appended.append(message(1))
        record = await self.load(backend, id)
        record.state["b"] = b"2"
        again = await self.load(backend, id)
        assert (again.state, again.messages) == ({"a": b"1"}, [message(0)])

    def test_parallel_writers_lose_nothing(self) -> None:
        backend = self.make_backend()
        id, writers, turns = new_id(), 8, 10

        def write(writer: int) -> list[int]:
            versions = []
            for turn in range(turns):
                change = Change(
                    set={f"w{writer}": b"%d" % turn},
                    increment={"turns": 1},
                    append=[(f"{writer}-{turn}", b"[%d,%d]" % (writer, turn))],
                )
                versions.append(backend.commit(id, change).version)
            return versions

        versions = sorted(chain(*in_threads(writers, write)))
        record = backend.load(id, 1000)
        assert record is not None
        assert record.version == record.message_count == writers * turns
        assert versions == list(range(1, writers * turns + 1))
        state = {f"w{writer}": b"%d" % (turns - 1) for writer in range(writers)}
        assert record.state == state | {"turns": b"%d" % (writers * turns)}
        for writer in range(writers):
            mine = [m for _, m in record.messages if m.startswith(b"[%d," % writer)]
            assert mine == [b"[%d,%d]" % (writer, turn) for turn in range(turns)]
        backend.close()
