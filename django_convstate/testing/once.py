"""What a backend promises about a commit that comes again: it is applied once, however many others
commit meanwhile; and what cannot be judged any more is refused."""

import time

from ..backends.records import Change, Create
from ..backends.toolkit.writer import WRITER_SECONDS, Commit, Writer
from ..exceptions import ConversationConflict
from ..ids import new_id
from .twins import Scenarios, Twin, both_twins, message, refused


class OnceContract(Scenarios):
    """Commits, known by writer and number."""

    @both_twins
    async def test_a_commit_is_applied_once(self, backend: Twin) -> None:
        id, writer = new_id(), Writer()
        first = Change(
            create=Create.MUST_BE_NEW,
            increment={"n": 1},
            append=[message(0)],
            commit=writer.begin(id),
        )
        answer = await backend.commit(id, first)
        assert answer.repeated is False
        again = await backend.commit(id, first)
        assert again.repeated is True
        assert (again.version, again.message_count) == (1, 1)
        others = Writer()
        for number in range(1, 100):
            change = Change(increment={"n": 1}, append=[message(number)], commit=others.begin(id))
            await backend.commit(id, change)
        again = await backend.commit(id, first)
        assert again.repeated is True
        assert (again.version, again.message_count) == (100, 100), "as things are now"
        await self.check(backend, id, version=100, state={"n": b"100"}, message_count=100)

    @both_twins
    async def test_commits_of_one_writer_come_in_any_order(self, backend: Twin) -> None:
        id, writer = new_id(), Writer()
        changes = [Change(append=[message(number)], commit=writer.begin(id)) for number in range(8)]
        for _ in range(2):
            for change in reversed(changes):
                await backend.commit(id, change)
        await self.check(backend, id, version=8, message_count=8)

    @both_twins
    async def test_a_lower_number_does_not_make_a_higher_one_forgotten(self, backend: Twin) -> None:
        id, key = await self.stored(backend), Writer().key
        lower = Change(append=[message(0)], commit=Commit(key, 7, 7))
        higher = Change(append=[message(1)], commit=Commit(key, 8, 7))
        for change in (higher, lower, higher, lower):
            await backend.commit(id, change)
        await self.check(backend, id, message_count=2)

    @both_twins
    async def test_a_number_stays_open_while_hundreds_are_applied(self, backend: Twin) -> None:
        id, key = await self.stored(backend), Writer().key
        await backend.commit(id, Change(append=[message(0)], commit=Commit(key, 1, 1)))
        for number in range(3, 300):
            await backend.commit(id, Change(increment={"n": 1}, commit=Commit(key, number, 1)))
        for number, is_known in ((1, True), (2, False), (2, True), (150, True), (300, False)):
            change = Change(increment={"n": 1}, commit=Commit(key, number, 1))
            assert (await backend.commit(id, change)).repeated is is_known, number

    @both_twins
    async def test_a_number_below_the_floor_is_refused(self, backend: Twin) -> None:
        id = await self.stored(backend)
        key = Writer().key
        await backend.commit(id, Change(append=[message(0)], commit=Commit(key, 7, 7)))
        with refused(ConversationConflict):
            await backend.commit(id, Change(append=[message(1)], commit=Commit(key, 6, 6)))
        await self.check(backend, id, message_count=1)

    @both_twins
    async def test_what_was_sent_a_day_ago_is_refused(self, backend: Twin) -> None:
        if not backend.wrapped.is_shared:
            return  # memory always answers, so that nothing is sent again
        id, change = await self.stored(backend), Change(append=[message(0)])
        change.commit.sending()
        change.commit.sent_at = time.monotonic() - WRITER_SECONDS
        with refused(ConversationConflict):
            await backend.commit(id, change)
        await self.check(backend, id, message_count=0)

    @both_twins
    async def test_a_repeated_commit_says_which_messages_were_there(self, backend: Twin) -> None:
        id = await self.stored(backend, append=[("wamid.1", b"first")])
        for data, existing in ((b"second", ["wamid.1"]), (b"other", [])):
            name = "wamid.1" if existing else "wamid.2"
            change = Change(append=[(name, data)], once=[name])
            for _ in range(2):
                assert list((await backend.commit(id, change)).existing) == existing

    @both_twins
    async def test_a_refused_commit_may_be_made_good(self, backend: Twin) -> None:
        id, writer = await self.stored(backend), Writer()
        commit = writer.begin(id)
        with refused(ConversationConflict):
            await backend.commit(id, Change(expected_version=7, append=[message(0)], commit=commit))
        await backend.commit(id, Change(append=[message(0)], commit=commit))
        await self.check(backend, id, messages=[message(0)])
