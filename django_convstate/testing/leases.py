"""What a backend promises about turns: one holder, first come first served, and nobody for ever."""

from concurrent.futures import ThreadPoolExecutor

from django.db import connections

from ..backends.records import Acquired, Change, Create
from ..exceptions import ConversationConflict, ConversationInterrupted
from ..ids import new_id
from .doors import Door, Scenarios, both_ways, message, refused, wait


class LeaseContract(Scenarios):
    async def place(self, door: Door, id: str, lease: str, seconds: float = 60.0) -> int:
        """Stand in line and return the position."""
        acquired = await door.acquire(id, lease, seconds, 50)
        assert isinstance(acquired, Acquired)
        if acquired.position:
            assert acquired.record is None, "who waits gets nothing to read"
        return acquired.position

    @both_ways
    async def test_first_come_first_served(self, door: Door) -> None:
        id = await self.stored(door)
        for expected, lease in enumerate("abc"):
            assert await self.place(door, id, lease) == expected
        for expected, lease in enumerate("abc"):
            assert await self.place(door, id, lease) == expected, "to ask again keeps the place"
        await door.release(id, "a")
        assert [await self.place(door, id, lease) for lease in "cb"] == [1, 0]
        await door.release(id, "c")
        assert await self.place(door, id, "d") == 1
        await door.release(id, "b")
        assert await self.place(door, id, "d") == 0
        await door.release(id, "d")
        await door.release(id, "d")

    @both_ways
    async def test_a_turn_comes_with_what_the_last_one_left(self, door: Door) -> None:
        id = await self.stored(door, owner="u1", append=[message(i) for i in range(5)])
        first = (await door.acquire(id, "a", 60.0, 2)).record
        assert first.messages == [message(3), message(4)]
        await self.place(door, id, "b")
        await door.commit(id, Change(set={"a": b"1"}, append=[message(5)], lease="a", release=True))
        record = (await door.acquire(id, "b", 60.0, 2)).record
        assert record.state == {"a": b"1"}
        assert record.messages == [message(4), message(5)]
        assert (record.owner, record.version, record.message_count) == ("u1", 2, 6)

    @both_ways
    async def test_a_lease_stores_nothing(self, door: Door) -> None:
        id = new_id()
        assert await door.acquire(id, "a", 60.0, 50) == Acquired(0, None)
        assert await door.exists(id) is False
        assert await door.load(id, 50) is None
        if door.backend.can_scan:
            assert id not in [summary.id for summary in await door.scan()]
        await door.commit(id, Change(create=Create.MUST_BE_NEW, set={"a": b"1"}, lease="a"))
        assert (await self.load(door, id)).state == {"a": b"1"}

    @both_ways
    async def test_lines_are_told_apart(self, door: Door) -> None:
        one, other = new_id(), new_id()
        assert [await self.place(door, id, "a") for id in (one, other)] == [0, 0]
        await door.release(one, "a")
        assert await self.place(door, other, "b") == 1

    @both_ways
    async def test_a_commit_keeps_or_gives_up_the_lease(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "a")
        await self.place(door, id, "b")
        await door.commit(id, Change(append=[message(0)], lease="a"))
        assert await door.renew(id, "a", 60.0) is True
        last = Change(append=[message(1)], lease="a", release=True)
        answer = await door.commit(id, last)
        assert await door.renew(id, "a", 60.0) is False
        assert await self.place(door, id, "b") == 0
        assert await door.commit(id, last) == answer, "a retry is answered as the first time"
        assert await door.renew(id, "b", 60.0) is True, "and takes nobody's turn away"
        assert (await self.load(door, id)).messages == [message(0), message(1)]

    @both_ways
    async def test_only_who_holds_the_lease_commits_with_it(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "a")
        await self.place(door, id, "b")
        for other in ("b", "never in line"):
            for release in (False, True):
                with refused(ConversationConflict):
                    await door.commit(id, Change(set={"a": b"1"}, lease=other, release=release))
        assert (await self.load(door, id)).version == 1
        absent = new_id()
        with refused(ConversationConflict):
            await door.commit(absent, Change(set={"a": b"1"}, lease="a"))
        assert await door.exists(absent) is False

    @both_ways
    async def test_a_refused_commit_keeps_the_lease(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "a")
        with refused(ConversationConflict):
            await door.commit(id, Change(expected_version=7, lease="a", release=True))
        assert await door.renew(id, "a", 60.0) is True
        await door.delete(id)
        with refused(ConversationInterrupted):
            await door.commit(id, Change(create=Create.MUST_EXIST, lease="a", release=True))
        assert await door.renew(id, "a", 60.0) is True

    @both_ways
    async def test_a_lease_is_no_hindrance_to_plain_commits(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "a")
        await door.commit(id, Change(append=[message(0)]))
        await door.commit(id, Change(append=[message(1)], lease="a"))
        assert (await self.load(door, id)).messages == [message(0), message(1)]

    @both_ways
    async def test_who_is_not_first_cannot_renew(self, door: Door) -> None:
        id = new_id()
        assert await door.renew(id, "a", 60.0) is False
        await self.place(door, id, "a")
        await self.place(door, id, "b")
        assert await door.renew(id, "b", 60.0) is False
        assert await door.renew(id, "a", 60.0) is True

    @both_ways
    async def test_a_holder_without_a_sign_of_life_is_passed_over(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "gone", seconds=1.0)
        assert await self.place(door, id, "next") == 1
        wait(1.2)
        assert await self.place(door, id, "next") == 0
        assert await door.renew(id, "gone", 60.0) is False
        with refused(ConversationConflict):
            await door.commit(id, Change(set={"a": b"1"}, lease="gone", release=True))
        await door.release(id, "gone")
        await door.commit(id, Change(set={"a": b"2"}, lease="next", release=True))
        assert (await self.load(door, id)).state == {"a": b"2"}

    @both_ways
    async def test_a_lapsed_lease_is_lost_though_nobody_waits(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "a", seconds=0.5)
        wait(0.7)
        assert await door.renew(id, "a", 60.0) is False
        with refused(ConversationConflict):
            await door.commit(id, Change(set={"a": b"1"}, lease="a"))
        assert (await self.load(door, id)).version == 1

    @both_ways
    async def test_to_renew_keeps_the_turn(self, door: Door) -> None:
        id = await self.stored(door)
        await self.place(door, id, "a", seconds=1.0)
        await self.place(door, id, "b")
        for _ in range(3):
            wait(0.5)
            assert await door.renew(id, "a", 1.0) is True
        await door.commit(id, Change(set={"a": b"1"}, lease="a", release=True))
        assert await self.place(door, id, "b") == 0

    @both_ways
    async def test_a_place_in_line_is_kept_for_who_asks_again(self, door: Door) -> None:
        id = new_id()
        await self.place(door, id, "a")
        await self.place(door, id, "asks again", seconds=1.0)
        await self.place(door, id, "does not", seconds=1.0)
        await self.place(door, id, "last")
        wait(0.6)
        assert await self.place(door, id, "asks again", seconds=60.0) == 1
        wait(0.6)
        assert await self.place(door, id, "last") == 2
        assert await self.place(door, id, "does not") == 3, "at the end, as a new one"

    def test_one_of_many_has_the_turn(self) -> None:
        backend = self.make_backend()
        id, contenders = new_id(), [f"lease {n}" for n in range(16)]

        def stand(lease: str) -> int:
            position = backend.acquire(id, lease, 60.0, 50).position
            connections.close_all()
            return position

        with ThreadPoolExecutor(len(contenders)) as pool:
            positions = list(pool.map(stand, contenders))
        assert sorted(positions) == list(range(len(contenders)))
        backend.close()
