"""What a backend promises about messages: an id beside opaque bytes, and an order that stays."""

import time

from ..backends.records import Change, Create, Diverged, Replacement
from ..exceptions import ConversationTooLarge
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, message, refused

OPAQUE = bytes(range(256))


class MessageContract(Scenarios):
    """Messages and their ids."""

    @both_twins
    async def test_values_are_opaque(self, backend: Twin) -> None:
        state = {"a": OPAQUE, "b": b"", "c": b"{", "d": b"\xff\xfe"}
        messages = [(f"id {i}", value) for i, value in enumerate(state.values())]
        id = await self.stored(backend, set=state, append=messages)
        await self.check(backend, id, state=state, messages=messages)
        assert await backend.read_messages(id, 0, 10) == messages
        assert await backend.find(id, "id 0") == (0, OPAQUE)
        new = Replacement(id="id 0", old=OPAQUE, new=OPAQUE[::-1])
        change = Change(expected={"a": OPAQUE}, set={"a": OPAQUE[::-1]}, replace=[new])
        await backend.commit(id, change)
        messages[0] = ("id 0", OPAQUE[::-1])
        await self.check(backend, id, state=state | {"a": OPAQUE[::-1]}, messages=messages)

    @both_twins
    async def test_any_id_is_kept(self, backend: Twin) -> None:
        ids = ["wamid.HBgL==", "#", "{", "é 東京", "0" * 20, "f" * 20, "A" * 64, "🙂" * 63]
        messages = [(id, b"%d" % i) for i, id in enumerate(ids)]
        stored = await self.stored(backend, append=messages)
        await self.check(backend, stored, messages=messages)
        for position, (id, data) in enumerate(messages):
            assert await backend.find(stored, id) == (position, data)
        for absent in ("wamid", "#7", "0" * 19 + "1", "f" * 19 + "0", "F" * 20):
            assert await backend.find(stored, absent) is None
        assert await backend.find(new_id(), "A" * 64) is None

    @both_twins
    async def test_order_is_that_of_arrival(self, backend: Twin) -> None:
        late = [message(5), message(9), message(2), message(7), message(10), message(1)]
        far_ahead = (f"{(int(time.time()) + 86_400) * 1000 << 32:020x}", b"ahead of its time")
        id = await self.stored(backend, append=late[:3])
        await backend.commit(id, Change(append=late[3:]))
        await backend.commit(id, Change(append=[far_ahead, message(11)]))
        messages = [*late, far_ahead, message(11)]
        await self.check(backend, id, messages=messages)
        for position, (message_id, data) in enumerate(messages):
            assert await backend.find(id, message_id) == (position, data)

    @both_twins
    async def test_a_message_that_may_be_there_is_kept_once(self, backend: Twin) -> None:
        id = new_id()
        for expected in ([], ["wamid.1"], ["wamid.1"]):
            change = Change(append=[("wamid.1", b"1")], once=["wamid.1"])
            assert list((await backend.commit(id, change)).existing) == expected
        natural = message(3)
        for expected in ([], [natural[0]]):
            change = Change(
                append=[("wamid.1", b"other"), natural, ("x", b"2")], once=["wamid.1", natural[0]]
            )
            assert list((await backend.commit(id, change)).existing) == ["wamid.1", *expected]
        contents = [data for _, data in (await self.load(backend, id)).messages]
        assert contents == [b"1", natural[1], b"2", b"2"]
        twice = Change(append=[("y", b"3"), ("y", b"4")], once=["y"])
        committed = await backend.commit(id, twice)
        assert (list(committed.existing), committed.message_count) == (["y"], 5)
        assert await backend.find(id, "y") == (4, b"3")
        # What was dropped is not there any more.
        change = Change(keep_messages=0, append=[("wamid.1", b"again")], once=["wamid.1"])
        assert list((await backend.commit(id, change)).existing) == []
        await self.check(backend, id, messages=[("wamid.1", b"again")])
        assert await backend.find(id, "y") is None

    @both_twins
    async def test_replaced_messages(self, backend: Twin) -> None:
        id = await self.stored(backend, append=[message(0), ("given", b"1"), message(2)])
        given = Replacement(id="given", old=b"1", new=b"one")
        natural = Replacement(id=message(2)[0], old=None, new=b"two")
        committed = await backend.commit(id, Change(replace=[given, natural], append=[message(3)]))
        assert committed.message_count == 4
        messages = [message(0), ("given", b"one"), (message(2)[0], b"two"), message(3)]
        await self.check(backend, id, messages=messages)
        for wrong in (given, Replacement(id="never there", old=None, new=b"")):
            with refused(Diverged) as caught:
                await backend.commit(id, Change(set={"a": b"1"}, replace=[wrong]))
            there = b"one" if wrong is given else None
            assert caught.exception.messages == {wrong.id: there}
        await self.check(backend, id, version=2, messages=messages, state={})

    @both_twins
    async def test_nested_changes_say_what_they_began_from(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"[1]", "b": b"[2]"})
        change = Change(expected={"a": b"[1]", "new": None}, set={"a": b"[1,2]", "new": b"[]"})
        await backend.commit(id, change)
        change = Change(
            expected={"a": b"[1]", "b": b"[2]", "gone": b"1", "new": None},
            set={"a": b"[1,3]", "b": b"[3]", "gone": b"2", "new": b"[4]"},
            append=[message(0)],
        )
        with refused(Diverged) as caught:
            await backend.commit(id, change)
        assert caught.exception.state == {"a": b"[1,2]", "gone": None, "new": b"[]"}
        assert caught.exception.messages == {}
        state = {"a": b"[1,2]", "b": b"[2]", "new": b"[]"}
        await self.check(backend, id, state=state, version=2, message_count=0)

    @both_twins
    async def test_limits_are_checked_where_the_commit_is_applied(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1" * 90}, append=[message(0), message(1)])
        for refused_change in (
            Change(append=[message(2)], max_messages=2),
            Change(keep_messages=1, append=[message(2), message(3)], max_messages=2),
            Change(set={"b": b"1" * 20}, max_state_bytes=100),
            Change(set={"c": b"1"}, increment={"b": 10**12}, max_state_bytes=100),
        ):
            with refused(ConversationTooLarge):
                await backend.commit(id, refused_change)
        await self.check(backend, id, version=1, message_count=2, state={"a": b"1" * 90})
        await backend.commit(id, Change(set={"b": b"1"}, max_messages=1, max_state_bytes=100))
        await backend.commit(id, Change(set={"a": b"1" * 89, "c": b"1"}, max_state_bytes=95))
        await backend.commit(id, Change(keep_messages=1, append=[message(2)], max_messages=2))
        await self.check(backend, id, messages=[message(0), message(2)])
        # More than the limit may be there already, and become less.
        await backend.commit(id, Change(set={"a": b"1" * 80}, max_state_bytes=10))
        for _ in range(30):
            await backend.commit(id, Change(set={"a": b"1" * 80}, max_state_bytes=100))

    @both_twins
    async def test_the_oldest_are_dropped(self, backend: Twin) -> None:
        id = new_id()
        for number in range(12):
            given = f"given {number}" if number % 3 == 0 else message(number)[0]
            change = Change(append=[(given, b"%d" % number)], max_messages=5, drop_oldest=True)
            committed = await backend.commit(id, change)
        assert (committed.message_count, committed.dropped) == (5, 7)
        record = await self.load(backend, id, 3)
        assert (record.message_count, record.dropped) == (5, 7)
        assert record.first == (message(7)[0], b"7")
        assert [data for _, data in record.messages] == [b"9", b"10", b"11"]
        assert await backend.read_messages(id, 0, 9) == [
            (message(7)[0], b"7"),
            (message(8)[0], b"8"),
        ]
        assert await backend.find(id, "given 9") == (9, b"9")
        assert await backend.find(id, "given 0") is None
        assert await backend.find(id, message(1)[0]) is None
        committed = await backend.commit(id, Change(keep_messages=9, append=[message(20)]))
        assert (committed.message_count, committed.dropped) == (3, 7)
        many = [message(number) for number in range(30, 40)]
        committed = await backend.commit(id, Change(append=many, max_messages=5, drop_oldest=True))
        assert (committed.message_count, committed.dropped) == (5, 15)
        await self.check(backend, id, messages=many[5:])

    @both_twins
    async def test_the_answer_has_what_others_have_appended(self, backend: Twin) -> None:
        id = await self.stored(backend, append=[message(i) for i in range(3)])
        record = await self.load(backend, id)
        seen = record.dropped + record.message_count, record.last_key
        committed = await backend.commit(id, Change(append=[message(3)], seen=seen, window=10))
        assert list(committed.others) == []
        assert committed.last_key > record.last_key
        # Of the three and this one, the caller has seen the three.
        committed = await backend.commit(id, Change(append=[message(4)], seen=seen, window=10))
        assert list(committed.others) == [message(3)]
        assert committed.others_end == 4
        committed = await backend.commit(id, Change(append=[message(5)], seen=seen, window=1))
        assert list(committed.others) == [message(4)]
        assert committed.others_end == 5
        committed = await backend.commit(id, Change(append=[message(6)], seen=seen))
        assert list(committed.others) == []
        # What the caller has seen was dropped: the answer has the newest of all.
        await backend.commit(id, Change(keep_messages=2, append=[("late", b"1")]))
        change = Change(append=[message(8)], seen=seen, window=10)
        for repeated in (False, True):
            committed = await backend.commit(id, change)
            expected = [message(0), message(1), ("late", b"1")]
            assert list(committed.others) == [*expected, *([message(8)] if repeated else [])]
            assert committed.others_end == 4 if repeated else 3
        blind = await backend.commit(id, Change(create=Create.EITHER, append=[message(9)]))
        assert list(blind.others) == []
