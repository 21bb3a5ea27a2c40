"""What a backend promises about conversations: to keep them, change them once, let them go."""

import time
from concurrent.futures import ThreadPoolExecutor

from django.db import connections

from ..backends.records import (
    COUNTER_MAX,
    REMEMBERED_COMMITS,
    Change,
    Committed,
    Create,
    Health,
    Selection,
    moment,
)
from ..exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    InvalidBackend,
    InvalidConversationType,
    InvalidConversationValue,
)
from ..ids import new_id
from .doors import Door, both_ways, message, refused, wait
from .leases import LeaseContract


class BackendContract(LeaseContract):
    """What `ConversationStateBackend` promises. Fill in `make_backend`."""

    @both_ways
    async def test_what_is_absent(self, door: Door) -> None:
        id = new_id()
        assert await door.load(id, 50) is None
        assert await door.exists(id) is False
        assert await door.touch(id) is False
        assert await door.delete(id) is False
        assert await door.read_messages(id, 0, 10) == []
        assert await door.exists(id) is False

    @both_ways
    async def test_create_and_load(self, door: Door) -> None:
        id, before = new_id(), time.time()
        committed = await door.commit(
            id,
            Change(
                create=Create.MUST_BE_NEW,
                owner="u1",
                ttl=60.0,
                set={"city": b'"Jaipur"', "trip": b'{"days":[1,2]}'},
                increment={"questions": 2},
                append=[message(0), message(1)],
            ),
        )
        assert committed.version == 1
        assert committed.message_count == 2
        record = await self.load(door, id)
        assert record.id == id
        assert record.version == 1
        assert record.owner == "u1"
        assert record.ttl == 60
        assert record.state == {
            "city": b'"Jaipur"',
            "trip": b'{"days":[1,2]}',
            "questions": b"2",
        }
        assert record.messages == [message(0), message(1)]
        assert record.message_count == 2
        # The backend's clock may be another machine's, a little apart from ours.
        assert before - 5 <= record.created_at <= record.last_accessed <= time.time() + 5
        assert abs(record.expires_at - record.last_accessed - 60) < 1
        assert abs(committed.expires_at - record.expires_at) < 5
        assert await door.exists(id) is True

    @both_ways
    async def test_any_text_survives(self, door: Door) -> None:
        texts = ["", " ", "\x00", "\r\n", "naïve 東京 🙂", "{*}[?]", "__class__", 'q"\\', "a" * 300]
        values = {text: b'"%b"' % "東京 🙂".encode() for text in texts}
        id = await self.stored(door, set=values, append=list(values.values()))
        record = await self.load(door, id)
        assert record.state == values
        assert record.messages == list(values.values())

    @both_ways
    async def test_ids_are_told_apart(self, door: Door) -> None:
        stem = new_id()
        ids = [stem, stem.swapcase() + "x", stem + "x", stem + ":x", "doc:" + stem, "+" + stem]
        for number, id in enumerate(ids):
            await door.commit(id, Change(create=Create.MUST_BE_NEW, append=[message(number)]))
        for number, id in enumerate(ids):
            assert (await self.load(door, id)).messages == [message(number)]

    @both_ways
    async def test_create_rules(self, door: Door) -> None:
        id = await self.stored(door, set={"a": b"1"})
        with refused(ConversationConflict):
            await door.commit(id, Change(create=Create.MUST_BE_NEW, set={"a": b"2"}))
        await door.commit(id, Change(create=Create.MUST_EXIST, set={"b": b"2"}))
        await door.commit(id, Change(create=Create.EITHER, set={"c": b"3"}))
        record = await self.load(door, id)
        assert record.state == {"a": b"1", "b": b"2", "c": b"3"}
        assert record.version == 3
        absent = new_id()
        with refused(ConversationInterrupted):
            await door.commit(absent, Change(create=Create.MUST_EXIST, set={"a": b"1"}))
        assert await door.exists(absent) is False
        await door.commit(absent, Change(create=Create.EITHER, set={"a": b"1"}))
        assert (await self.load(door, absent)).state == {"a": b"1"}

    @both_ways
    async def test_a_time_to_live_for_new_ones_alone(self, door: Door) -> None:
        id = await self.stored(door, ttl=60.0, set={"a": b"1"})
        await door.commit(id, Change(create=Create.EITHER, default_ttl=300.0, set={"b": b"1"}))
        assert (await self.load(door, id)).ttl == 60
        new = new_id()
        await door.commit(new, Change(create=Create.EITHER, default_ttl=300.0, set={"a": b"1"}))
        await door.commit(new, Change(default_ttl=60.0, set={"b": b"1"}))
        record = await self.load(door, new)
        assert record.ttl == 300
        assert abs(record.expires_at - record.last_accessed - 300) < 1
        await door.commit(new, Change(ttl=60.0, default_ttl=300.0))
        assert (await self.load(door, new)).ttl == 60

    @both_ways
    async def test_disjoint_changes_both_hold(self, door: Door) -> None:
        id = await self.stored(door, set={"a": b"1", "b": b"1", "c": b"1"})
        await door.commit(id, Change(set={"a": b"2"}, append=[message(1)]))
        await door.commit(id, Change(set={"b": b"2"}, append=[message(2)]))
        await door.commit(id, Change(unset=["c", "never there"]))
        await door.commit(id, Change(set={"b": b"3"}))
        record = await self.load(door, id)
        assert record.state == {"a": b"2", "b": b"3"}
        assert record.messages == [message(1), message(2)]

    @both_ways
    async def test_counters(self, door: Door) -> None:
        values = {"n": b"5", "text": b'"x"', "float": b"1.5", "high": b"%d" % COUNTER_MAX}
        # JSON knows a number that is beyond what can be counted.
        id = await self.stored(door, set=values | {"beyond": b"%d" % (COUNTER_MAX + 1)})
        await door.commit(id, Change(increment={"n": 2, "new": -3}))
        await door.commit(id, Change(set={"n": b"100"}, increment={"n": 1}))
        state = (await self.load(door, id)).state
        assert (state["n"], state["new"]) == (b"101", b"-3")
        for key, by, why in (
            ("text", 1, InvalidConversationType),
            ("float", 1, InvalidConversationType),
            ("high", 1, InvalidConversationValue),
            ("beyond", -1, InvalidConversationValue),
            ("n", COUNTER_MAX + 1, InvalidConversationValue),
            ("never there", COUNTER_MAX + 1, InvalidConversationValue),
        ):
            with refused(why):
                await door.commit(
                    id, Change(set={"m": b"0"}, increment={key: by}, append=[message(1)])
                )
        record = await self.load(door, id)
        assert record.state == values | {
            "n": b"101",
            "new": b"-3",
            "beyond": b"%d" % (COUNTER_MAX + 1),
        }, "a refused change must change nothing"
        assert (record.version, record.message_count) == (3, 0)

    @both_ways
    async def test_version_check(self, door: Door) -> None:
        id = await self.stored(door, set={"a": b"1"})
        committed = await door.commit(id, Change(expected_version=1, set={"a": b"2"}))
        assert committed.version == 2
        for wrong in (0, 1, 3):
            with refused(ConversationConflict):
                await door.commit(id, Change(expected_version=wrong, set={"a": b"3"}))
        assert (await self.load(door, id)).state == {"a": b"2"}
        absent = new_id()
        with refused(ConversationConflict):
            await door.commit(absent, Change(expected_version=1, set={"a": b"1"}))
        assert await door.exists(absent) is False
        await door.commit(absent, Change(expected_version=0, set={"a": b"1"}))
        assert await door.exists(absent) is True

    @both_ways
    async def test_owner(self, door: Door) -> None:
        id = await self.stored(door, set={"a": b"1"})
        assert (await self.load(door, id)).owner is None
        await door.commit(id, Change(owner="u1"))
        await door.commit(id, Change(owner="u1", set={"a": b"2"}))
        with refused(ConversationConflict):
            await door.commit(id, Change(owner="u2", set={"a": b"3"}))
        record = await self.load(door, id)
        assert record.owner == "u1"
        assert record.state == {"a": b"2"}

    @both_ways
    async def test_messages(self, door: Door) -> None:
        id = await self.stored(door, append=[message(i) for i in range(10)])
        assert (await self.load(door, id, 3)).messages == [message(i) for i in (7, 8, 9)]
        assert (await self.load(door, id, 3)).message_count == 10
        assert await door.read_messages(id, 2, 5) == [message(i) for i in (2, 3, 4)]
        assert await door.read_messages(id, 8, 99) == [message(8), message(9)]
        assert await door.read_messages(id, 99, 100) == []
        assert await door.read_messages(id, 5, 5) == []
        committed = await door.commit(id, Change(keep_messages=4, append=[message(77)]))
        assert committed.message_count == 5
        expected = [message(i) for i in (0, 1, 2, 3, 77)]
        assert (await self.load(door, id)).messages == expected
        await door.commit(id, Change(keep_messages=99))
        assert (await self.load(door, id)).messages == expected
        await door.commit(id, Change(keep_messages=0))
        record = await self.load(door, id)
        assert (record.messages, record.message_count) == ([], 0)

    @both_ways
    async def test_exactly_once(self, door: Door) -> None:
        id = new_id()
        first = Change(create=Create.MUST_BE_NEW, increment={"n": 1}, append=[message(0)])
        answer = await door.commit(id, first)
        assert await door.commit(id, first) == answer
        for number in range(1, REMEMBERED_COMMITS):
            await door.commit(id, Change(increment={"n": 1}, append=[message(number)]))
        assert await door.commit(id, first) == answer, "remember it across other commits"
        record = await self.load(door, id, REMEMBERED_COMMITS)
        assert record.state == {"n": b"%d" % REMEMBERED_COMMITS}
        assert record.messages == [message(i) for i in range(REMEMBERED_COMMITS)]
        assert record.version == REMEMBERED_COMMITS

    @both_ways
    async def test_a_large_commit_is_one_commit(self, door: Door) -> None:
        values = {f"key {i}": b"%d" % i for i in range(10_000)}
        id = await self.stored(door, set=values, append=[message(i) for i in range(20_000)])
        record = await self.load(door, id, 2)
        assert record.state == values
        assert record.message_count == 20_000
        assert record.messages == [message(19_998), message(19_999)]

    @both_ways
    async def test_what_is_handed_out_is_a_copy(self, door: Door) -> None:
        appended = [message(0)]
        id = await self.stored(door, set={"a": b"1"}, append=appended)
        appended.append(b"not stored")
        record = await self.load(door, id)
        record.state["b"] = b"2"
        record.messages.append(b"not stored")
        again = await self.load(door, id)
        assert (again.state, again.messages) == ({"a": b"1"}, [message(0)])

    @both_ways
    async def test_expiry_slides_on_load_and_commit(self, door: Door) -> None:
        loaded = await self.stored(door, ttl=2.0, set={"a": b"1"})
        committed = await self.stored(door, ttl=2.0, set={"a": b"1"})
        left_alone = await self.stored(door, ttl=2.0, set={"a": b"1"})
        wait(1.3)
        await self.load(door, loaded)
        await door.commit(committed, Change(set={"a": b"2"}))
        # To ask after it, or to read on in it, is no visit.
        assert await door.exists(left_alone) is True
        assert await door.read_messages(left_alone, 0, 1) == []
        wait(1.3)
        assert (await self.load(door, loaded)).ttl == 2
        assert await door.exists(committed) is True
        wait(self.expiry_slack)
        assert await door.load(left_alone, 50) is None
        assert await door.exists(left_alone) is False
        assert await door.touch(left_alone) is False
        with refused(ConversationInterrupted):
            await door.commit(left_alone, Change(create=Create.MUST_EXIST, set={"a": b"2"}))
        again = await door.commit(left_alone, Change(ttl=60.0, set={"b": b"1"}))
        assert again.version == 1
        assert (await self.load(door, left_alone)).state == {"b": b"1"}

    @both_ways
    async def test_touch(self, door: Door) -> None:
        id = await self.stored(door, ttl=2.0, append=[message(0)])
        assert await door.touch(id) is True
        assert (await self.load(door, id)).ttl == 2
        assert await door.touch(id, 60.0) is True
        record = await self.load(door, id)
        assert record.ttl == 60
        assert record.version == 1
        wait(2.1 + self.expiry_slack)
        assert await door.exists(id) is True
        await door.commit(id, Change(ttl=1.0))
        wait(1.1 + self.expiry_slack)
        assert await door.exists(id) is False

    def test_nothing_outlives_its_max_age(self) -> None:
        backend = self.make_backend(max_age=2.0)
        id = new_id()
        committed = backend.commit(id, Change(ttl=60.0, set={"a": b"1"}))
        assert committed.expires_at <= time.time() + 3
        wait(1.2)
        assert backend.load(id, 50) is not None
        backend.commit(id, Change(set={"a": b"2"}))
        wait(1.2)
        assert backend.load(id, 50) is None
        assert backend.exists(id) is False
        backend.close()

    @both_ways
    async def test_delete(self, door: Door) -> None:
        id = await self.stored(door, owner="u1", set={"a": b"1"}, append=[message(0)])
        with refused(ConversationConflict):
            await door.delete(id, 7)
        assert await door.exists(id) is True
        assert await door.delete(id, 1) is True
        assert await door.delete(id) is False
        assert await door.load(id, 50) is None
        with refused(ConversationInterrupted):
            await door.commit(id, Change(create=Create.MUST_EXIST, set={"a": b"1"}))
        await door.commit(id, Change(set={"b": b"1"}))
        record = await self.load(door, id)
        assert (record.version, record.owner, record.messages) == (1, None, [])
        assert record.state == {"b": b"1"}

    @both_ways
    async def test_scan(self, door: Door) -> None:
        if not door.backend.can_scan:
            with refused(InvalidBackend):
                await door.scan()
            return
        owner, before = new_id(), time.time()
        older = await self.stored(door, owner=owner, set={"a": b'"xyz"'}, append=[message(0)])
        newer = await self.stored(door, owner=owner)
        other = await self.stored(door, owner=new_id())
        wait(0.01)
        await door.commit(older, Change(append=[message(1)]))
        found = await door.scan(owner)
        assert [summary.id for summary in found] == [older, newer], "newest activity first"
        summary = found[0]
        assert (summary.owner, summary.version, summary.message_count) == (owner, 2, 2)
        assert summary.size >= len(message(0)) * 2 + len("a") + len('"xyz"')
        assert moment(before - 5) <= summary.created_at < summary.last_accessed < summary.expires_at
        assert {older, newer, other} <= {summary.id for summary in await door.scan()}

    @both_ways
    async def test_purge(self, door: Door) -> None:
        if not door.backend.can_scan:
            for selection in ({"idle_for": 1.0}, {"owner": "u1"}, {"everything": True}):
                with refused(InvalidBackend):
                    await door.purge(Selection(**selection))
            assert (await door.purge(Selection())).deleted == 0
            return
        owner = new_id()
        mine = [await self.stored(door, owner=owner) for _ in range(5)]
        other = await self.stored(door, owner=new_id())
        told: list[tuple[int, int | None]] = []
        report = await door.purge(
            Selection(owner=owner),
            dry_run=True,
            batch_size=2,
            progress=lambda done, total: told.append((done, total)),
        )
        assert (report.deleted, report.dry_run) == (5, True)
        assert told
        assert (await door.purge(Selection(owner=owner, idle_for=30.0))).deleted == 0
        assert await door.exists(mine[0]) is True
        report = await door.purge(Selection(owner=owner), batch_size=2)
        assert (report.deleted, report.dry_run) == (5, False)
        assert [await door.exists(id) for id in mine] == [False] * 5
        assert await door.exists(other) is True
        wait(0.2)
        fresh = await self.stored(door)
        await door.purge(Selection(idle_for=0.1))
        assert (await door.exists(other), await door.exists(fresh)) == (False, True)
        await door.purge(Selection(everything=True))
        assert await door.exists(fresh) is False

    @both_ways
    async def test_purge_of_what_has_expired(self, door: Door) -> None:
        kept = await self.stored(door)
        await self.stored(door, ttl=1.0)
        wait(1.1 + self.expiry_slack)
        await door.purge(Selection())
        assert await door.exists(kept) is True

    @both_ways
    async def test_health_and_close(self, door: Door) -> None:
        id = await self.stored(door, set={"a": b"1"})
        health = await door.health()
        assert isinstance(health, Health)
        assert (health.backend, health.connected) == (door.backend.name, True)
        assert health.latency_ms is not None
        assert health.latency_ms >= 0
        await door.close()
        if door.backend.is_shared:
            assert await door.exists(id) is True, "after close, the next use connects anew"

    def test_parallel_writers_lose_nothing(self) -> None:
        backend = self.make_backend()
        id, writers, turns = new_id(), 8, 10

        def write(writer: int) -> list[Committed]:
            answers = []
            for turn in range(turns):
                change = Change(
                    set={f"w{writer}": b"%d" % turn},
                    increment={"turns": 1},
                    append=[b"[%d,%d]" % (writer, turn)],
                )
                answers.append(backend.commit(id, change))
            connections.close_all()
            return answers

        with ThreadPoolExecutor(writers) as pool:
            answers = [answer for mine in pool.map(write, range(writers)) for answer in mine]
        record = backend.load(id, 1000)
        assert record is not None
        assert record.version == record.message_count == writers * turns
        assert sorted(answer.version for answer in answers) == list(range(1, writers * turns + 1))
        last = b"%d" % (turns - 1)
        assert record.state == {"turns": b"%d" % (writers * turns)} | {
            f"w{writer}": last for writer in range(writers)
        }
        for writer in range(writers):
            mine = [m for m in record.messages if m.startswith(b"[%d," % writer)]
            assert mine == [b"[%d,%d]" % (writer, turn) for turn in range(turns)]
        backend.close()
