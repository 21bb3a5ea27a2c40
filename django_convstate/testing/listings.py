"""Lists: order, pages and their cursors, values of some keys."""

import time
from typing import Final

from ..backends.records import Change, Record
from ..backends.reports import LISTING_LAG, ConversationSummary
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, message, wait

DAY: Final = 86400.0


class ListingContract(Scenarios):
    """How `scan` lists the conversations of an owner, where a backend can."""

    @both_twins
    async def test_pages_have_each_conversation_once_newest_saved_first(
        self, backend: Twin
    ) -> None:
        if not backend.wrapped.can_scan:
            return
        owner, ago = new_id(), 2 * LISTING_LAG
        ids = [await self.saved(backend, owner, number * ago) for number in range(12)]
        await self.saved(backend, new_id(), 0)
        assert [each.id for each in await backend.scan(owner)] == ids
        for limit in (1, 5, 6, 12, 13):
            pages = await self.pages(backend, owner, limit)
            assert [each.id for page in pages for each in page] == ids, limit
            assert {len(page) for page in pages[:-1]} <= {limit}, "each but the last is full"
        for after, each in enumerate(await backend.scan(owner, limit=12)):
            found = await backend.scan(owner, limit=12, after=each.cursor)
            assert [each.id for each in found] == ids[after + 1 :], "each has a cursor"

    @both_twins
    async def test_pages_of_conversations_saved_at_the_same_time(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            return
        owner = new_id()
        ids = {await self.saved(backend, owner, 10.0) for _ in range(7)}
        for limit in (1, 2, 3):
            found = [each.id for page in await self.pages(backend, owner, limit) for each in page]
            assert len(found) == len(ids)
            assert set(found) == ids

    @both_twins
    async def test_what_is_saved_comes_to_the_front_and_is_not_repeated(
        self, backend: Twin
    ) -> None:
        if not backend.wrapped.can_scan:
            return
        owner, ago = new_id(), 2 * LISTING_LAG
        ids = [await self.saved(backend, owner, (number + 1) * ago) for number in range(8)]
        first = await backend.scan(owner, limit=3)
        new = await self.stored(backend, owner=owner)
        for id in (ids[1], ids[5]):
            await backend.commit(id, Change(append=[message(1)]))
            wait(0.002)
        await backend.delete(ids[6])
        rest = await backend.scan(owner, limit=10, after=first[-1].cursor)
        assert [each.id for each in first] == ids[:3]
        assert [each.id for each in rest] == [ids[3], ids[4], ids[7]]
        again = await backend.scan(owner, limit=4)
        assert {each.id for each in again[:3]} == {new, ids[1], ids[5]}
        assert again[3].id == ids[0]

    @both_twins
    async def test_what_is_gone_leaves_no_hole_in_a_page(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            return
        owner, ago = new_id(), 2 * LISTING_LAG
        ids = [await self.saved(backend, owner, number * ago) for number in range(9)]
        for id in ids[:4]:
            await backend.delete(id)
        moved = backend.wrapped.id_beside(ids[4])
        await backend.rename(ids[4], moved)
        found = await backend.scan(owner, limit=4)
        assert [each.id for each in found] == [moved, *ids[5:8]]

    @both_twins
    async def test_an_owner_that_is_taken_later_has_the_conversation(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            return
        owner = new_id()
        id = await self.stored(backend, set={"a": b"1"})
        assert await backend.scan(owner, limit=1) == []
        await backend.commit(id, Change(owner=owner))
        assert [each.id for each in await backend.scan(owner, limit=1)] == [id]

    @both_twins
    async def test_values_of_some_keys(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            return
        owner = new_id()
        await self.stored(backend, owner=owner, set={"title": b'"A"', "n": b"1", "other": b"2"})
        for limit in (None, 1):
            (found,) = await backend.scan(owner, limit=limit, keys=["title", "n", "absent"])
            assert found.state == {"title": b'"A"', "n": b"1"}
            (found,) = await backend.scan(owner, limit=limit)
            assert found.state == {}

    @both_twins
    async def test_a_listing_prolongs_nothing(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            return
        owner = new_id()
        await self.stored(backend, owner=owner, set={"a": b"1"})
        (before,) = await backend.scan(owner)
        wait(0.05)
        (after,) = await backend.scan(owner, limit=1, keys=["a"])
        assert (after.last_accessed, after.version) == (before.last_accessed, before.version)
        assert before.expires_at is not None
        assert abs((after.expires_at - before.expires_at).total_seconds()) < 0.04

    async def saved(self, backend: Twin, owner: str, ago: float) -> str:
        """Store a conversation that was saved so many seconds ago, and return its id."""
        record = record_saved(owner, float(int(time.time())) - ago, DAY, {"a": b"1"})
        await backend.restore(record.id, record, [])
        return record.id

    async def pages(self, backend: Twin, owner: str, limit: int) -> list[list[ConversationSummary]]:
        """Return the pages of a listing, each after the last cursor of the one before."""
        pages: list[list[ConversationSummary]] = []
        after: str | None = None
        while page := await backend.scan(owner, limit=limit, after=after):
            pages.append(page)
            after = page[-1].cursor
        return pages


def record_saved(owner: str, when: float, ttl: float, state: dict[str, bytes]) -> Record:
    """Return a conversation without messages that was begun and last saved at `when` (seconds since
    the epoch)."""
    return Record(
        id=new_id(),
        version=1,
        owner=owner,
        created_at=when,
        modified_at=when,
        last_accessed=when,
        expires_at=when + ttl,
        ttl=ttl,
        state=state,
        messages=[],
        message_count=0,
    )
