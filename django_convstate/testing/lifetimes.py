"""What a backend promises about time and lists: expiry, deletion, purge, scan, health."""

import time

from ..backends.records import Change, Create
from ..backends.reports import Health, Selection, moment
from ..exceptions import ConversationConflict, ConversationInterrupted, InvalidBackend
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, message, refused, wait


class LifetimeContract(Scenarios):
    """How long a conversation is kept, and how it is found and deleted."""

    @both_twins
    async def test_expiry_slides_on_load_and_commit(self, backend: Twin) -> None:
        ids = [await self.stored(backend, ttl=2.0, set={"a": b"1"}) for _ in range(3)]
        loaded, committed, left_alone = ids
        wait(1.3)
        await self.load(backend, loaded)
        await backend.commit(committed, Change(set={"a": b"2"}))
        # To ask after it, or to read on in it, is no visit.
        assert await backend.exists(left_alone) is True
        assert await backend.read_messages(left_alone, 0, 1) == []
        wait(1.3)
        assert (await self.load(backend, loaded)).ttl == 2
        assert await backend.exists(committed) is True
        wait(self.expiry_slack)
        assert await backend.load(left_alone, 50) is None
        assert await backend.exists(left_alone) is False
        assert await backend.touch(left_alone) is False
        with refused(ConversationInterrupted):
            await backend.commit(left_alone, Change(create=Create.MUST_EXIST, set={"a": b"2"}))
        again = await backend.commit(left_alone, Change(ttl=60.0, set={"b": b"1"}))
        assert again.version == 1
        assert (await self.load(backend, left_alone)).state == {"b": b"1"}

    @both_twins
    async def test_touch(self, backend: Twin) -> None:
        id = await self.stored(backend, ttl=2.0, append=[message(0)])
        assert await backend.touch(id) is True
        assert (await self.load(backend, id)).ttl == 2
        assert await backend.touch(id, 60.0) is True
        await self.check(backend, id, ttl=60, version=1)
        wait(2.1 + self.expiry_slack)
        assert await backend.exists(id) is True
        await backend.commit(id, Change(ttl=1.0))
        wait(1.1 + self.expiry_slack)
        assert await backend.exists(id) is False

    def test_max_age_limits_the_time_to_live(self) -> None:
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

    @both_twins
    async def test_delete(self, backend: Twin) -> None:
        id = await self.stored(backend, owner="u1", set={"a": b"1"}, append=[message(0)])
        with refused(ConversationConflict):
            await backend.delete(id, 7)
        assert await backend.exists(id) is True
        assert await backend.delete(id, 1) is True
        assert await backend.delete(id) is False
        assert await backend.load(id, 50) is None
        with refused(ConversationInterrupted):
            await backend.commit(id, Change(create=Create.MUST_EXIST, set={"a": b"1"}))
        await backend.commit(id, Change(set={"b": b"1"}))
        await self.check(backend, id, version=1, owner=None, messages=[], state={"b": b"1"})

    @both_twins
    async def test_scan(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            with refused(InvalidBackend):
                await backend.scan()
            return
        owner, before = new_id(), time.time()
        older = await self.stored(backend, owner=owner, set={"a": b'"xyz"'}, append=[message(0)])
        newer = await self.stored(backend, owner=owner)
        other = await self.stored(backend, owner=new_id())
        wait(0.01)
        await backend.commit(older, Change(append=[message(1)]))
        found = await backend.scan(owner)
        assert [summary.id for summary in found] == [older, newer], "newest activity first"
        summary = found[0]
        assert (summary.owner, summary.version, summary.message_count) == (owner, 2, 2)
        assert summary.size >= len(message(0)) * 2 + len("a") + len('"xyz"')
        assert moment(before - 5) <= summary.created_at < summary.last_accessed < summary.expires_at
        assert {older, newer, other} <= {summary.id for summary in await backend.scan()}

    @both_twins
    async def test_purge(self, backend: Twin) -> None:
        if not backend.wrapped.can_scan:
            for selection in ({"idle_for": 1.0}, {"owner": "u1"}, {"everything": True}):
                with refused(InvalidBackend):
                    await backend.purge(Selection(**selection))
            assert (await backend.purge(Selection())).deleted == 0
            return
        owner = new_id()
        mine = [await self.stored(backend, owner=owner) for _ in range(5)]
        other = await self.stored(backend, owner=new_id())
        told: list[tuple[int, int | None]] = []
        report = await backend.purge(
            Selection(owner=owner), dry_run=True, batch_size=2, progress=lambda *p: told.append(p)
        )
        assert (report.deleted, report.dry_run) == (5, True)
        assert told
        assert (await backend.purge(Selection(owner=owner, idle_for=30.0))).deleted == 0
        assert await backend.exists(mine[0]) is True
        report = await backend.purge(Selection(owner=owner), batch_size=2)
        assert (report.deleted, report.dry_run) == (5, False)
        assert [await backend.exists(id) for id in mine] == [False] * 5
        assert await backend.exists(other) is True
        wait(1.6)
        fresh = await self.stored(backend)
        await backend.purge(Selection(idle_for=1.5))
        assert (await backend.exists(other), await backend.exists(fresh)) == (False, True)
        await backend.purge(Selection(everything=True))
        assert await backend.exists(fresh) is False

    @both_twins
    async def test_purge_of_expired_conversations(self, backend: Twin) -> None:
        kept = await self.stored(backend)
        await self.stored(backend, ttl=1.0)
        wait(1.1 + self.expiry_slack)
        await backend.purge(Selection())
        assert await backend.exists(kept) is True

    @both_twins
    async def test_health_and_close(self, backend: Twin) -> None:
        id = await self.stored(backend, set={"a": b"1"})
        health = await backend.health()
        assert isinstance(health, Health)
        assert (health.backend, health.connected) == (backend.wrapped.name, True)
        assert health.latency_ms is not None
        assert health.latency_ms >= 0
        await backend.close()
        if backend.wrapped.is_shared:
            assert await backend.exists(id) is True, "after close, the next use connects anew"
