"""What a backend promises to the tests of projects that use it."""

from asgiref.sync import sync_to_async

from .. import clock
from ..backends.records import Change, Create
from ..exceptions import InvalidBackend
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins


class IsolationContract(Scenarios):
    """`isolated`, `erase` and `age`. A backend that raises `InvalidBackend` from the first of them
    is let off, and cannot be used in such tests."""

    @both_twins
    async def test_isolated_backends_share_no_conversation(self, backend: Twin) -> None:
        id, owner = await self.stored(backend, set={"a": b"1"}), new_id()
        if (one := _isolated(backend, "one")) is None or (two := _isolated(backend, "two")) is None:
            return
        assert await one.load(id, 1) is None
        change = Change(create=Create.MUST_BE_NEW, ttl=60.0, owner=owner, set={"b": b"2"})
        await one.commit(id, change)
        assert (await one.acquire(id, "lease", 60.0, 1)).position == 0
        assert await two.exists(id) is False
        assert (await two.acquire(id, "another lease", 60.0, 1)).position == 0
        await self.check(one, id, owner=owner, state={"b": b"2"})
        await self.check(backend, id, owner=None, state={"a": b"1"})
        for each in (one, two):
            await _do(each, "erase")
        again = _isolated(backend, "one")
        assert again is not None
        assert await again.exists(id) is False
        assert (await again.acquire(id, "a third lease", 60.0, 1)).position == 0
        await _do(again, "erase")
        await self.check(backend, id, owner=None, state={"a": b"1"})

    @both_twins
    async def test_an_isolated_backend_goes_by_the_clock(self, backend: Twin) -> None:
        if (isolated := _isolated(backend, "aging")) is None:
            return
        short, long = await self.stored(isolated, ttl=60.0), await self.stored(isolated, ttl=600.0)
        await isolated.acquire(long, "lease", 60.0, 1)
        before = clock.ahead
        clock.set_ahead(before + 90)
        try:
            await _do(isolated, "age", 90.0)
            assert await isolated.exists(short) is False
            assert await isolated.exists(long) is True
            assert await isolated.renew(long, "lease", 60.0) is False
            late = await self.stored(isolated, ttl=60.0)
        finally:
            clock.set_ahead(before)
            await _do(isolated, "age", -90.0)
        assert await isolated.exists(late) is True
        await _do(isolated, "erase")


def _isolated(backend: Twin, name: str) -> Twin | None:
    try:
        return Twin(backend.wrapped.isolated(name), backend.uses_twins)
    except InvalidBackend:
        return None


async def _do(backend: Twin, name: str, *args: float) -> None:
    """Call a method that has no twin."""
    method = getattr(backend.wrapped, name)
    if backend.uses_twins:
        await sync_to_async(method)(*args)
    else:
        method(*args)
