"""What a backend promises about leases: one holder at a time, in order of arrival, until expiry."""

from ..backends.records import Acquired, Change, Create
from ..exceptions import ConversationConflict, ConversationInterrupted
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, in_threads, message, refused, wait


class LeaseContract(Scenarios):
    """The queue of the leases of each conversation."""

    async def enqueue(self, backend: Twin, id: str, lease: str, seconds: float = 60.0) -> int:
        """Acquire `lease` and return its position in the queue."""
        acquired = await backend.acquire(id, lease, seconds, 50)
        assert isinstance(acquired, Acquired)
        assert acquired.position == 0 or acquired.record is None, "a waiter gets no record"
        return acquired.position

    @both_twins
    async def test_waiters_are_served_in_order(self, backend: Twin) -> None:
        id = await self.stored(backend)
        for _ in range(2):  # asking again keeps the place
            assert [await self.enqueue(backend, id, lease) for lease in "abc"] == [0, 1, 2]
        await backend.release(id, "a")
        assert [await self.enqueue(backend, id, lease) for lease in "cb"] == [1, 0]
        await backend.release(id, "c")
        assert await self.enqueue(backend, id, "d") == 1
        await backend.release(id, "b")
        assert await self.enqueue(backend, id, "d") == 0
        await backend.release(id, "d")
        await backend.release(id, "d")

    @both_twins
    async def test_acquire_returns_the_latest_record(self, backend: Twin) -> None:
        id = await self.stored(backend, owner="u1", append=[message(i) for i in range(5)])
        first = (await backend.acquire(id, "a", 60.0, 2)).record
        assert first.messages == [message(3), message(4)]
        await self.enqueue(backend, id, "b")
        await backend.commit(
            id, Change(set={"a": b"1"}, append=[message(5)], lease="a", release=True)
        )
        record = (await backend.acquire(id, "b", 60.0, 2)).record
        assert record.state == {"a": b"1"}
        assert record.messages == [message(4), message(5)]
        assert (record.owner, record.version, record.message_count) == ("u1", 2, 6)

    @both_twins
    async def test_a_lease_stores_nothing(self, backend: Twin) -> None:
        id = new_id()
        assert await backend.acquire(id, "a", 60.0, 50) == Acquired(0, None)
        assert await backend.exists(id) is False
        assert await backend.load(id, 50) is None
        if backend.wrapped.can_scan:
            assert id not in [summary.id for summary in await backend.scan()]
        await backend.commit(id, Change(create=Create.MUST_BE_NEW, set={"a": b"1"}, lease="a"))
        assert (await self.load(backend, id)).state == {"a": b"1"}

    @both_twins
    async def test_each_conversation_has_its_own_queue(self, backend: Twin) -> None:
        one, other = new_id(), new_id()
        assert [await self.enqueue(backend, id, "a") for id in (one, other)] == [0, 0]
        await backend.release(one, "a")
        assert await self.enqueue(backend, other, "b") == 1

    @both_twins
    async def test_a_commit_keeps_or_gives_up_the_lease(self, backend: Twin) -> None:
        id = await self.stored(backend)
        await self.enqueue(backend, id, "a")
        await self.enqueue(backend, id, "b")
        await backend.commit(id, Change(append=[message(0)], lease="a"))
        assert await backend.renew(id, "a", 60.0) is True
        last = Change(append=[message(1)], lease="a", release=True)
        answer = await backend.commit(id, last)
        assert await backend.renew(id, "a", 60.0) is False
        assert await self.enqueue(backend, id, "b") == 0
        again = await backend.commit(id, last)
        assert (again.repeated, again.version) == (True, answer.version)
        assert await backend.renew(id, "b", 60.0) is True, "and ends no other lease"
        assert (await self.load(backend, id)).messages == [message(0), message(1)]

    @both_twins
    async def test_only_the_holder_commits_with_the_lease(self, backend: Twin) -> None:
        id = await self.stored(backend)
        await self.enqueue(backend, id, "a")
        await self.enqueue(backend, id, "b")
        for other in ("b", "unknown"):
            for release in (False, True):
                with refused(ConversationConflict):
                    await backend.commit(id, Change(set={"a": b"1"}, lease=other, release=release))
        assert (await self.load(backend, id)).version == 1
        absent = new_id()
        with refused(ConversationConflict):
            await backend.commit(absent, Change(set={"a": b"1"}, lease="a"))
        assert await backend.exists(absent) is False

    @both_twins
    async def test_a_refused_commit_keeps_the_lease(self, backend: Twin) -> None:
        id = await self.stored(backend)
        await self.enqueue(backend, id, "a")
        with refused(ConversationConflict):
            await backend.commit(id, Change(expected_version=7, lease="a", release=True))
        assert await backend.renew(id, "a", 60.0) is True
        await backend.delete(id)
        with refused(ConversationInterrupted):
            await backend.commit(id, Change(create=Create.MUST_EXIST, lease="a", release=True))
        assert await backend.renew(id, "a", 60.0) is True

    @both_twins
    async def test_commits_without_a_lease_are_not_blocked(self, backend: Twin) -> None:
        id = await self.stored(backend)
        await self.enqueue(backend, id, "a")
        await backend.commit(id, Change(append=[message(0)]))
        await backend.commit(id, Change(append=[message(1)], lease="a"))
        assert (await self.load(backend, id)).messages == [message(0), message(1)]

    @both_twins
    async def test_only_the_holder_renews(self, backend: Twin) -> None:
        id = new_id()
        assert await backend.renew(id, "a", 60.0) is False
        await self.enqueue(backend, id, "a")
        await self.enqueue(backend, id, "b")
        assert await backend.renew(id, "b", 60.0) is False
        assert await backend.renew(id, "a", 60.0) is True

    @both_twins
    async def test_an_expired_holder_loses_its_place(self, backend: Twin) -> None:
        id = await self.stored(backend)
        await self.enqueue(backend, id, "gone", seconds=1.0)
        assert await self.enqueue(backend, id, "next") == 1
        wait(1.2)
        assert await self.enqueue(backend, id, "next") == 0
        assert await backend.renew(id, "gone", 60.0) is False
        with refused(ConversationConflict):
            await backend.commit(id, Change(set={"a": b"1"}, lease="gone", release=True))
        await backend.release(id, "gone")
        await backend.commit(id, Change(set={"a": b"2"}, lease="next", release=True))
        assert (await self.load(backend, id)).state == {"a": b"2"}

    @both_twins
    async def test_an_expired_lease_is_lost_without_waiters(self, backend: Twin) -> None:
        id = await self.stored(backend)
        await self.enqueue(backend, id, "a", seconds=0.5)
        wait(0.7)
        assert await backend.renew(id, "a", 60.0) is False
        with refused(ConversationConflict):
            await backend.commit(id, Change(set={"a": b"1"}, lease="a"))
        assert (await self.load(backend, id)).version == 1

    @both_twins
    async def test_renewal_keeps_the_lease(self, backend: Twin) -> None:
        id = await self.stored(backend)
        # With more than a second to spare, on a machine that is busy.
        await self.enqueue(backend, id, "a", seconds=2.5)
        await self.enqueue(backend, id, "b")
        for _ in range(3):
            wait(1.0)
            assert await backend.renew(id, "a", 2.5) is True
        await backend.commit(id, Change(set={"a": b"1"}, lease="a", release=True))
        assert await self.enqueue(backend, id, "b") == 0

    @both_twins
    async def test_a_waiter_that_asks_again_keeps_its_place(self, backend: Twin) -> None:
        id = new_id()
        await self.enqueue(backend, id, "a")
        await self.enqueue(backend, id, "asks again", seconds=2.5)
        await self.enqueue(backend, id, "does not", seconds=2.5)
        await self.enqueue(backend, id, "last")
        wait(1.0)
        assert await self.enqueue(backend, id, "asks again", seconds=60.0) == 1
        wait(1.6)
        assert await self.enqueue(backend, id, "last") == 2
        assert await self.enqueue(backend, id, "does not") == 3, "at the end, as a new one"

    def test_one_of_many_threads_holds_the_lease(self) -> None:
        backend = self.make_backend()
        id, contenders = new_id(), 16

        def enqueue(number: int) -> int:
            return backend.acquire(id, f"lease {number}", 60.0, 50).position

        assert sorted(in_threads(contenders, enqueue)) == list(range(contenders))
        backend.close()
