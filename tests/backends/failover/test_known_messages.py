"""What is remembered of messages, beside the primary, after any sequence of changes by this process
and by others."""

from collections.abc import Callable, Sequence
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from django_convstate.backends.failover.last_known import KEPT_CHANGES, LastKnownCache
from django_convstate.backends.failover.snapshot import KEPT_MESSAGES
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed, Replacement
from django_convstate.backends.toolkit.packed import NO_KEY, Pair
from tests.support.messages import pairs

WINDOWS = st.sampled_from([0, 1, 3, 50])
COUNTS = st.integers(0, 4)


class Process:
    """One that loads and commits, and others that do; `known` is what it remembers. `busy` is that
    of a process which is never asked, and so keeps what came by as late as it may."""

    def __init__(self) -> None:
        self.primary = LocMemBackend()
        self.known = LastKnownCache(10, 10**6, None, 600)
        self.busy = LastKnownCache(10, 10**6, None, 600)
        self.copies = [(0, NO_KEY)]  # where the copies of its callers end
        self.sent: list[Change] = []
        self.said = 0
        self.commit(Change(append=self.texts(2)))

    def texts(self, count: int) -> list[Pair]:
        self.said += count
        return pairs(*(b"%d" % number for number in range(self.said - count, self.said)))

    def messages(self) -> tuple[list[Pair], int]:
        """Return all that the primary has, and how many were dropped."""
        record = self.primary.peek("a", 10**6)
        assert record is not None
        return list(record.messages), record.dropped

    def load(self, window: int) -> None:
        record = self.primary.load("a", window)
        assert record is not None
        for each in (self.known, self.busy):
            each.put("a", record, each.era)
        self.copies.append((record.end, record.last_key))
        assert len(self.check()) >= min(window, record.message_count)

    def commit(self, change: Change) -> Committed:
        committed = self.primary.commit("a", change)
        for each in (self.known, self.busy):
            each.apply("a", change, committed, each.era)
        self.copies.append((committed.end, committed.last_key))
        self.sent.append(change)
        known = self.check()
        told = [*committed.others, *(() if committed.repeated else change.append)]
        assert len(known) >= min(committed.message_count, len(told) - len(committed.existing))
        return committed

    def check(self) -> Sequence[Pair]:
        """What is known is the newest there is, at the same positions."""
        messages, dropped = self.messages()
        stored = self.known.get("a")
        assert stored is not None
        known = stored.messages.newest(10**6)
        assert list(known) == messages[len(messages) - len(known) :]
        assert (stored.messages.dropped, stored.messages.end) == (dropped, dropped + len(messages))
        for position, (id, data) in enumerate(known, stored.messages.start):
            assert stored.messages.find(id) == (position, data)
        return known


@settings(max_examples=300)
@given(st.data())
def test_known_messages_are_the_newest_of_the_primary(data: st.DataObject) -> None:
    process = Process()
    for _ in range(data.draw(st.integers(1, 2 * KEPT_CHANGES))):
        kind = data.draw(st.sampled_from(["load", "commit", "commit", "blind", "again", "others"]))
        if kind == "load":
            process.load(data.draw(WINDOWS))
        elif kind == "commit":
            process.commit(_change(process, data))
        elif kind == "blind":
            process.commit(_blind_change(process, data))
        elif kind == "again":
            process.commit(data.draw(st.sampled_from(process.sent[-3:])))
        else:
            end = process.messages()[1] + len(process.messages()[0])
            keep = data.draw(st.none() | st.integers(max(0, end - 4), end))
            process.primary.commit(
                "a",
                Change(
                    keep_messages=keep,
                    append=process.texts(data.draw(st.integers(0, 5))),
                    max_messages=data.draw(st.sampled_from([6, 10**6])),
                    drop_oldest=True,
                    set={"n": b"1"},
                ),
            )
    known, late = process.known.get("a"), process.busy.get("a")
    assert known is not None
    assert late is not None
    assert list(late.messages.packed) == list(known.messages.packed)
    assert (late.version, late.state) == (known.version, known.state)


def _blind_change(process: Process, data: st.DataObject) -> Change:
    record = process.primary.peek("a", 0)
    is_counter = record is not None and record.state.get("n") != b'"text"'
    return Change(append=process.texts(data.draw(COUNTS)), increment={"n": 1} if is_counter else {})


def _change(process: Process, data: st.DataObject) -> Change:
    seen = data.draw(st.sampled_from(process.copies[-3:]))
    messages, _ = process.messages()
    appended, once = process.texts(data.draw(COUNTS)), []
    if data.draw(st.booleans()):
        appended.append(data.draw(st.sampled_from([*messages, ("given", b"given")])))
        once.append(appended[-1][0])
    replaced = data.draw(st.none() | st.sampled_from(messages)) if messages else None
    return Change(
        replace=[Replacement(id=replaced[0], old=None, new=b"new")] if replaced else [],
        keep_messages=data.draw(st.none() | st.integers(max(0, seen[0] - 4), seen[0])),
        append=appended,
        once=once,
        max_messages=data.draw(st.sampled_from([6, 10**6])),
        drop_oldest=True,
        set={"n": data.draw(st.sampled_from([b"1", b'"text"']))},
        seen=seen,
        window=data.draw(WINDOWS),
    )


@settings(max_examples=300)
@given(st.data())
def test_threads_that_overtake_each_other_remember_the_newest(data: st.DataObject) -> None:
    """Each answer of the primary is kept a while after it was given, in any order."""
    process = Process()
    known, primary = process.known, process.primary
    late: list[Callable[[], None]] = []
    steps = data.draw(st.integers(1, 2 * KEPT_CHANGES))
    for _ in range(steps):
        kind = data.draw(st.sampled_from(["load", "commit", "blind", "late", "late"]))
        if kind == "load":
            record = primary.load("a", 50)
            late.append(partial(known.put, "a", record, known.era))
        elif kind != "late":
            seen, window = data.draw(st.sampled_from(process.copies[-3:])), 50
            if kind == "blind":
                seen, window = (0, NO_KEY), 0
            change = Change(append=process.texts(1), increment={"n": 1}, seen=seen, window=window)
            era, committed = known.era, primary.commit("a", change)
            late.append(partial(known.apply, "a", change, committed, era))
            process.copies.append((committed.end, committed.last_key))
        elif late:
            late.pop(data.draw(st.integers(0, len(late) - 1)))()
    while late:
        late.pop(data.draw(st.integers(0, len(late) - 1)))()
    process.check()
    stored, record = known.get("a"), primary.peek("a", 0)
    assert stored is not None
    assert record is not None
    assert stored.version == record.version
    if steps < KEPT_CHANGES:  # so that none comes after later ones have become one with the rest
        assert stored.state == record.state


@given(st.lists(st.tuples(COUNTS, st.integers(0, 3)), max_size=3 * KEPT_CHANGES))
def test_nothing_is_forgotten_while_nobody_else_writes(turns: list[tuple[int, int]]) -> None:
    process = Process()
    for count, dropped in turns:
        seen = process.copies[-1]
        process.commit(
            Change(
                keep_messages=max(0, seen[0] - dropped) if dropped else None,
                append=process.texts(count),
                seen=seen,
                window=50,
            )
        )
        assert len(process.check()) == min(KEPT_MESSAGES, len(process.messages()[0]))


@given(st.lists(st.integers(0, 5), max_size=3 * KEPT_CHANGES))
def test_what_others_append_is_remembered_too(turns: list[int]) -> None:
    process = Process()
    for theirs in turns:
        process.primary.commit("a", Change(append=process.texts(theirs)))
        change = Change(append=process.texts(1), seen=process.copies[-1], window=50)
        process.commit(change)
        assert len(process.check()) == min(KEPT_MESSAGES, len(process.messages()[0]))


def test_a_repeated_answer_tells_of_messages_that_were_not_known() -> None:
    """Two threads have sent one change, and the second answer has the newest messages."""
    process = Process()
    process.load(0)
    change = Change(set={"n": b"1"}, seen=process.copies[-1], window=1)
    process.commit(change)
    process.commit(change)
    assert len(process.check()) == 1
