"""What a backend promises about conversations that are deleted, moved, and made as they were."""

import math
import time
from dataclasses import replace

from ..backends.records import Change, Create, Record
from ..backends.reports import Selection
from ..exceptions import ConversationConflict, ConversationInterrupted
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, message, refused, wait


class MoveContract(Scenarios):
    """Tombstones, `rename` and `restore`."""

    @both_twins
    async def test_what_was_deleted_is_not_begun_again_by_a_replay(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        late = Change(unless_deleted=True, set={"a": b"2"})
        await backend.commit(id, late)
        await backend.delete(id)
        for create in (Create.EITHER, Create.MUST_BE_NEW):
            with refused(ConversationInterrupted):
                change = Change(create=create, unless_deleted=True, set={"a": b"2"})
                await backend.commit(id, change)
        assert await backend.exists(id) is False
        assert await backend.load(id, 1) is None
        assert await backend.peek(id, 1) is None
        assert await backend.touch(id) is False
        assert await backend.delete(id) is False
        assert await backend.rename(id, await self.new_id(backend, id)) is False
        await backend.commit(id, Change(set={"a": b"3"}))
        await backend.commit(id, Change(unless_deleted=True, set={"b": b"4"}))
        await self.check(backend, id, state={"a": b"3", "b": b"4"}, version=2)

    @both_twins
    async def test_what_was_purged_is_not_begun_again_by_a_replay(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            return
        owner = new_id()
        id = await self.stored(backend, owner=owner)
        assert (await backend.purge(Selection(owner=owner))).deleted == 1
        with refused(ConversationInterrupted):
            await backend.commit(id, Change(unless_deleted=True, set={"a": b"1"}))
        assert [summary.id for summary in await backend.scan(owner)] == []
        assert id not in [summary.id for summary in await backend.scan()]

    @both_twins
    async def test_rename(self, backend: Twin) -> None:
        owner = new_id()
        messages = [message(0), ("given", b"1")]
        id = await self.stored(backend, owner=owner, set={"a": b"1"}, append=messages)
        before = await self.load(backend, id)
        new = await self.new_id(backend, id)
        with refused(ConversationConflict):
            await backend.rename(id, new, 7)
        assert await backend.rename(id, new, 1) is True
        assert await backend.rename(id, new) is True, "the reply may have been lost"
        assert await backend.rename(id, await self.new_id(backend, id)) is False
        assert await backend.load(id, 10) is None
        fields = ("version", "owner", "created_at", "modified_at", "ttl", "state", "messages")
        await self.check(backend, new, **{name: getattr(before, name) for name in fields})
        assert await backend.find(new, "given") == (1, b"1")
        if backend.wrapped.can_scan:
            assert [summary.id for summary in await backend.scan(owner)] == [new]
        with refused(ConversationInterrupted):
            await backend.commit(id, Change(unless_deleted=True, append=[message(5)]))
        await backend.commit(id, Change(append=[message(7)]))
        assert (await self.load(backend, id)).messages == [message(7)]
        assert (await self.load(backend, new)).messages == messages

    @both_twins
    async def test_rename_to_a_taken_id_conflicts(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        taken = await self.new_id(backend, id)
        await backend.commit(taken, Change(set={"b": b"1"}))
        with refused(ConversationConflict):
            await backend.rename(id, taken)
        await self.check(backend, id, state={"a": b"1"})
        await self.check(backend, taken, state={"b": b"1"})

    @both_twins
    async def test_restore(self, backend: Twin) -> None:
        messages = [message(3), ("given", b"\xff"), message(1), *map(message, range(4, 1500))]
        id, owner, now = new_id(), new_id(), float(int(time.time()))
        record = Record(
            id=id,
            version=17,
            owner=owner,
            created_at=now - 1000,
            modified_at=now - 30,
            last_accessed=now - 20,
            expires_at=now + 580,
            ttl=600.0,
            state={"a": b"1", "b": b"\xff"},
            messages=[],
            message_count=len(messages),
            dropped=5,
        )
        await backend.restore(id, record, iter(messages))
        peeked = await backend.peek(id, 3)
        assert peeked is not None
        for name in ("version", "owner", "created_at", "modified_at", "ttl", "state", "dropped"):
            assert getattr(peeked, name) == getattr(record, name), name
        assert (peeked.message_count, peeked.messages) == (len(messages), messages[-3:])
        assert peeked.first == messages[0]
        assert await backend.read_messages(id, 5, 8) == messages[:3]
        for position, place in ((5, 0), (6, 1), (7, 2), (1500, 1495)):
            assert await backend.find(id, messages[place][0]) == (position, messages[place][1])
        for replaces in (None, 16):
            with refused(ConversationConflict):
                await backend.restore(id, record, [], replaces=replaces)
        committed = await backend.commit(id, Change(expected_version=17, append=[message(9999)]))
        assert (committed.version, committed.message_count) == (18, len(messages) + 1)
        if backend.wrapped.can_scan:
            assert [summary.id for summary in await backend.scan(owner)] == [id]

    @both_twins
    async def test_restore_in_the_place_of_another(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"}, append=[message(0), ("given", b"0")])
        record = await self.load(backend, id)
        record = replace(record, version=9, owner=new_id(), state={"b": b"2"})
        assert (await backend.acquire(id, "lease", 60.0, 1)).position == 0
        await backend.restore(id, record, iter([message(1)]), replaces=1)
        await self.check(
            backend, id, version=9, owner=record.owner, state={"b": b"2"}, messages=[message(1)]
        )
        assert await backend.find(id, "given") is None
        assert await backend.renew(id, "lease", 60.0) is True, "a turn goes on"
        if backend.wrapped.can_scan:
            assert [summary.id for summary in await backend.scan(record.owner)] == [id]
        await backend.delete(id)
        with refused(ConversationConflict):
            await backend.restore(id, record, [], replaces=9)
        assert await backend.exists(id) is False

    @both_twins
    async def test_restore_respects_a_deletion_if_asked_to(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"}, append=[message(0)])
        record = await self.load(backend, id)
        await backend.delete(id)
        with refused(ConversationInterrupted):
            await backend.restore(id, record, record.messages, unless_deleted=True)
        assert await backend.exists(id) is False
        await backend.restore(id, record, record.messages)
        await self.check(backend, id, state={"a": b"1"}, messages=[message(0)])

    @both_twins
    async def test_for_ever(self, backend: Twin) -> None:
        id = await self.stored(backend, ttl=math.inf, set={"a": b"1"}, append=[message(0)])
        record = await self.load(backend, id)
        assert (record.ttl, record.expires_at) == (math.inf, math.inf)
        assert await backend.touch(id, 60.0) is True
        record = await self.load(backend, id)
        assert abs(record.expires_at - record.last_accessed - 60) < 1
        committed = await backend.commit(id, Change(ttl=math.inf, append=[("given", b"1")]))
        assert committed.expires_at == math.inf
        await self.check(backend, id, ttl=math.inf, expires_at=math.inf, message_count=2)
        await backend.delete(id)  # else it stays on a server that others use

    @both_twins
    async def test_peek_slides_nothing(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        before = await backend.peek(id, 10)
        wait(0.01)
        for _ in range(2):
            peeked = await backend.peek(id, 10)
            assert (peeked.state, peeked.version) == ({"a": b"1"}, 1)
            if backend.wrapped.can_scan:
                [summary] = [each for each in await backend.scan() if each.id == id]
                assert abs(summary.last_accessed.timestamp() - before.modified_at) < 0.002
        assert await backend.peek(new_id(), 10) is None

    async def new_id(self, backend: Twin, id: str) -> str:
        """Return a new id to which a conversation can be moved."""
        return backend.wrapped.id_beside(id)
