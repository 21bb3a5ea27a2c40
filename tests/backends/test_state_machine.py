"""Random operations on every backend, beside a model made of plain dictionaries and lists."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.records import (
    Change,
    Committed,
    Create,
    Diverged,
    Record,
    Replacement,
)
from django_convstate.backends.toolkit.packed import Pair
from django_convstate.backends.toolkit.writer import Commit
from django_convstate.exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationValue,
)
from django_convstate.ids import new_id
from tests.support.places import make_place

KEYS = st.sampled_from(["a", "b", "counter", "naïve 東京", ""])
COUNTERS = st.dictionaries(st.sampled_from(["counter", "a"]), st.integers(-5, 5), max_size=2)
VALUES = st.sampled_from(
    [b"1", b"-7", b'"text"', b"[1,[2]]", b'{"x":null}', b"9223372036854775807", b"\x00\xff", b"{"]
)
LEASES = st.sampled_from(["one", "two", "three"])
BODIES = st.integers(0, 99).map(lambda n: b'{"n":%d}' % n) | st.sampled_from([b"", b"\0\xff"])
# Ids that a caller gives, some of them again and again: names, keys that are below every other,
# one that is far ahead of the clock, and what only looks like a key.
GIVEN = [
    "m",
    "#0",
    "msg_2",
    "é" * 40,
    f"{1:020x}",
    f"{2:020x}",
    "7a" + "0" * 18,
    "ff" * 10,
    "AB" * 10,
]
WRITERS = [b"writer_1", b"writer_2", b"writer_3"]


def seldom(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly None, so that not every change is refused for one reason or another."""
    return st.sampled_from([False] * 5 + [True]).flatmap(lambda yes: strategy if yes else st.none())


PLAIN_CHANGES = st.builds(
    Change,
    create=seldom(st.sampled_from(Create)).map(lambda create: create or Create.EITHER),
    unless_deleted=st.booleans(),
    expected_version=seldom(st.integers(0, 4)),
    visitor=seldom(st.sampled_from(["", "u1"])),
    owner=seldom(st.sampled_from(["u1", "u2"])),
    ttl=st.just(600.0),
    set=st.dictionaries(KEYS, VALUES, max_size=3),
    unset=st.lists(KEYS, max_size=2, unique=True),
    increment=seldom(COUNTERS).map(lambda counters: counters or {}),
    max_state_bytes=seldom(st.integers(0, 60)),
    keep_messages=seldom(st.integers(0, 12)),
    max_messages=seldom(st.integers(1, 8)),
    drop_oldest=st.sampled_from([True, True, False]),
    lease=seldom(LEASES),
    release=st.booleans(),
    window=st.integers(0, 5),
)
REFUSALS = (
    ConversationConflict,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationValue,
)
Message = tuple[int, str, bytes]  # its sort key, its id, and its bytes


class Refused(Exception):
    """The model does not take a change, for whatever reason."""


def refuse_if(wrong: bool) -> None:
    if wrong:
        raise Refused


def key_in(id: str) -> int:
    """Return the sort key that an id is; 0: none."""
    digits = set("0123456789abcdef")
    is_key = len(id) == 20 and set(id) <= digits and int(id[:2], 16) < ord("{")
    return int(id, 16) if is_key else 0


def size_of(state: dict[str, bytes]) -> int:
    return sum(len(key.encode()) + len(value) for key, value in state.items())


@dataclass
class Model:
    """A conversation as anybody would write it down."""

    version: int = 0
    owner: str | None = None
    state: dict[str, bytes] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    dropped: int = 0
    last_key: int = 0
    is_deleted: bool = False
    moved_to: str | None = None
    # Of each writer: its floor, and the numbers of its commits that were applied from there on.
    log: dict[bytes, tuple[int, set[int]]] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.dropped + len(self.messages)

    @property
    def seen(self) -> tuple[int, bytes]:
        """What a caller has seen who has just loaded it."""
        return self.end, self.last_key.to_bytes(10)

    def find(self, id: str) -> tuple[int, bytes] | None:
        for index, (_, other, body) in enumerate(self.messages):
            if other == id:
                return self.dropped + index, body
        return None

    def without_it(self, moved_to: str | None = None) -> "Model":
        """Return what is left when it is gone: that it was deleted, and the queue."""
        return Model(is_deleted=True, moved_to=moved_to, queue=self.queue)

    def is_applied(self, commit: Commit) -> bool:
        floor, numbers = self.log.get(commit.writer, (0, set()))
        refuse_if(commit.number < floor)
        return commit.number in numbers

    def after(self, change: Change) -> "Model":
        """Return what it is after a change. Raises Refused, or Diverged."""
        self.refuse_unless_fits(change)
        self.refuse_unless_expected(change)
        new = deepcopy(self)
        new.version += 1
        new.owner = change.owner or self.owner
        new.change_state(change)
        for replacement in change.replace:
            new.replace(replacement)
        del new.messages[max(0, self.kept(change) - self.dropped) :]
        new.append(change)
        limit = change.max_messages
        if limit is not None and change.append and len(new.messages) > limit:
            refuse_if(not change.drop_oldest)
            new.dropped += len(new.messages) - limit
            del new.messages[:-limit]
        if change.lease is not None and change.release:
            del new.queue[0]
        floor, numbers = self.log.get(change.commit.writer, (0, set()))
        floor = max(floor, change.commit.floor)
        numbers = {number for number in numbers | {change.commit.number} if number >= floor}
        new.log[change.commit.writer] = floor, numbers
        return new

    def refuse_unless_fits(self, change: Change) -> None:
        exists = self.version > 0
        refuse_if(change.lease is not None and self.queue[:1] != [change.lease])
        refuse_if(change.create is Create.MUST_BE_NEW and exists)
        refuse_if(change.create is Create.MUST_EXIST and not exists)
        refuse_if(change.unless_deleted and not exists and self.is_deleted)
        refuse_if(change.expected_version not in (None, self.version))
        if self.owner is not None:
            refuse_if(change.owner not in (None, self.owner))
            refuse_if(change.visitor not in (None, self.owner))

    def refuse_unless_expected(self, change: Change) -> None:
        state = {
            key: self.state.get(key)
            for key, old in change.expected.items()
            if self.state.get(key) != old
        }
        messages = {}
        for replacement in change.replace:
            found = self.find(replacement.id)
            stored = found[1] if found else None
            if stored is None or replacement.old not in (None, stored):
                messages[replacement.id] = stored
        if state or messages:
            raise Diverged(state, messages)

    def change_state(self, change: Change) -> None:
        before = size_of(self.state)
        self.state |= change.set
        for key in change.unset:
            self.state.pop(key, None)
        for key, delta in change.increment.items():
            try:
                total = int(self.state.get(key, b"0")) + delta
            except ValueError:
                raise Refused from None
            refuse_if(abs(total) >= 2**63)
            self.state[key] = b"%d" % total
        size, limit = size_of(self.state), change.max_state_bytes
        refuse_if(limit is not None and size > limit and size > before)

    def replace(self, replacement: Replacement) -> None:
        for index, (key, id, _) in enumerate(self.messages):
            if id == replacement.id:
                self.messages[index] = key, id, replacement.new

    def kept(self, change: Change) -> int:
        """Return the position from which on a change drops messages."""
        return self.end if change.keep_messages is None else min(self.end, change.keep_messages)

    def append(self, change: Change) -> None:
        """Append those that are not there. Their keys grow: one that is not above the last one, or
        is far ahead of the clock, is replaced by the next one."""
        latest = (int(time.time() * 1000) + 60_000) << 32
        for id, body in change.append:
            if id not in change.once or self.find(id) is None:
                key = key_in(id)
                self.last_key = key if self.last_key < key < latest else self.last_key + 1
                self.messages.append((self.last_key, id, body))

    def existing(self, change: Change) -> list[str]:
        """Return which of the ids to append were there already, or come twice."""
        kept = max(0, self.kept(change) - self.dropped)
        there = {id for _, id, _ in self.messages[:kept]}
        existing = []
        for id, _ in change.append:
            if id in change.once and id in there:
                existing.append(id)
            there.add(id)
        return existing

    def others(self, change: Change) -> list[Pair]:
        """Return what others have appended behind what the caller has seen; or the newest, if
        messages that it has seen are gone. At most a window of it."""
        changed = deepcopy(self)
        for replacement in change.replace:
            changed.replace(replacement)
        kept = max(0, self.kept(change) - self.dropped)
        messages = changed.messages[:kept]
        position, key = change.seen
        before = [message for message in messages if message[0] <= int.from_bytes(key)]
        if kept == len(self.messages) and self.dropped + len(before) == position:
            messages = messages[len(before) :]
        return as_pairs(messages, change.window)

    def restored(self, *, as_stored: bool) -> "Model":
        """Return what it is after it was backed up and restored. A backup of pairs alone has no
        keys: they are made anew, from the ids where they are in order, and none begins with "z" or
        what is above: there has to be room for more."""
        new = replace(self, messages=list(self.messages), log={}, queue=[])
        if not as_stored:
            last = 0
            for index, (_, id, body) in enumerate(self.messages):
                last = key_in(id) if last < key_in(id) < ord("z") << 72 else last + 1
                new.messages[index] = last, id, body
            new.last_key = max(self.last_key, last)
        return new


def as_pairs(messages: Sequence[Message], window: int) -> list[Pair]:
    return [(id, body) for _, id, body in messages[max(0, len(messages) - window) :]]


@dataclass
class Backup:
    record: Record
    model: Model


class BackendBesideModel(RuleBasedStateMachine):
    conversations = Bundle("conversations")
    backups = Bundle("backups")

    def __init__(self, backend: ConversationStateBackend) -> None:
        super().__init__()
        self.backend: Any = backend
        self.models: dict[str, Model] = {}
        # What was sent to a conversation, perhaps to be sent again; and what its callers have seen.
        self.sent: dict[str, list[Change]] = defaultdict(list)
        self.seen: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.open: dict[tuple[str, bytes], set[int]] = defaultdict(set)
        self.numbers = count(1)
        self.own_key = 0

    def begin(self) -> str:
        id = new_id()
        self.models[id] = Model()
        return id

    first = initialize(target=conversations)(begin)
    another = rule(target=conversations)(begin)

    # Most of what is done is commits.
    @rule(id=conversations, changes=st.lists(PLAIN_CHANGES, min_size=1, max_size=8), data=st.data())
    def commit(self, id: str, changes: list[Change], data: st.DataObject) -> None:
        for change in changes:
            self.commit_one(id, change, data)

    def commit_one(self, id: str, change: Change, data: st.DataObject) -> None:
        fresh = [self.fresh_id() for _ in range(4)]
        append = data.draw(st.lists(st.tuples(self.new_ids(id, fresh), BODIES), max_size=4))
        ids = [message_id for message_id, _ in append]
        may_be_there = set(ids)
        if data.draw(st.booleans()):  # of which those that were made here need not be looked for
            may_be_there -= {each for each in fresh if ids.count(each) == 1}
        self.send(
            id,
            replace(
                change,
                expected=data.draw(self.expectations(id)),
                replace=data.draw(self.replacements(id)),
                append=append,
                once=sorted(may_be_there),
                seen=data.draw(self.seen_before(id)),
                commit=self.next_commit(id, data.draw(st.sampled_from(WRITERS))),
            ),
        )

    @rule(id=conversations, number=st.integers(1, 4), window=st.integers(0, 5))
    def append(self, id: str, number: int, window: int) -> None:
        """Append as a conversation does that has just been loaded."""
        append = [(self.fresh_id(), b"%d" % each) for each in range(number)]
        commit, seen = self.next_commit(id, WRITERS[0]), self.models[id].seen
        self.send(id, Change(ttl=600.0, append=append, seen=seen, window=window, commit=commit))

    def new_ids(self, id: str, fresh: list[str]) -> st.SearchStrategy[str]:
        there = [message_id for _, message_id, _ in self.models[id].messages]
        return st.sampled_from([*fresh, *fresh, *GIVEN, *there, self.last_key_as_id(id)])

    def last_key_as_id(self, id: str) -> str:
        """Return the last sort key as an id. The message may have another one."""
        return f"{self.models[id].last_key:020x}"

    def fresh_id(self) -> str:
        """Return an id of now, above the last one."""
        self.own_key = max(self.own_key + 1, int(time.time() * 1000) << 32)
        return f"{self.own_key:020x}"

    def expectations(self, id: str) -> st.SearchStrategy[dict[str, bytes | None]]:
        state = self.models[id].state
        right = KEYS.map(lambda key: (key, state.get(key)))
        wrong = st.tuples(KEYS, st.none() | VALUES)
        return seldom(st.lists(right | right | right | wrong, max_size=2)).map(
            lambda expected: dict(expected or ())
        )

    def replacements(self, id: str) -> st.SearchStrategy[list[Replacement]]:
        model = self.models[id]
        there = {message_id: body for _, message_id, body in model.messages}
        missing = ["not there", self.last_key_as_id(id)]
        ids = st.sampled_from([*there] * 3 + missing if there else missing)

        def of(message_id: str) -> st.SearchStrategy[Replacement]:
            old = st.sampled_from([*[there.get(message_id), None] * 3, b"wrong"])
            return st.builds(Replacement, id=st.just(message_id), old=old, new=BODIES)

        some = st.lists(ids.flatmap(of), max_size=2, unique_by=lambda each: each.id)
        return seldom(some).map(lambda replacements: replacements or [])

    def seen_before(self, id: str) -> st.SearchStrategy[tuple[int, bytes]]:
        now = self.models[id].seen
        return st.sampled_from([now, now, (0, bytes(10)), (now[0] + 1, now[1]), *self.seen[id]])

    def next_commit(self, id: str, writer: bytes) -> Commit:
        number, numbers = next(self.numbers), self.open[id, writer]
        numbers.add(number)
        return Commit(writer, number, min(numbers))

    def send(self, id: str, change: Change) -> None:
        model = self.models[id]
        self.sent[id].append(change)
        try:
            repeated = model.version > 0 and model.is_applied(change.commit)
            after = model if repeated else model.after(change)
        except Refused:
            with pytest.raises(REFUSALS):
                self.backend.commit(id, change)
            return
        except Diverged as expected:
            diverged = expected
        else:
            committed = self.backend.commit(id, change)
            self.check(committed, change, model, after)
            self.models[id] = after
            self.seen[id].append(after.seen)
            return
        with pytest.raises(Diverged) as caught:
            self.backend.commit(id, change)
        assert caught.value.state == diverged.state
        assert caught.value.messages == diverged.messages

    def check(self, committed: Committed, change: Change, before: Model, after: Model) -> None:
        assert committed.version == after.version
        assert (committed.message_count, committed.dropped) == (len(after.messages), after.dropped)
        assert (committed.end, committed.last_key) == after.seen
        assert committed.repeated is (after is before)
        if committed.repeated:
            expected, end = as_pairs(after.messages, change.window), after.end
            # As far as it can be told: they are stored with other bytes.
            existing = [
                id
                for id, body in change.append
                if id in change.once and (found := after.find(id)) and found[1] != body
            ]
        else:
            expected, end = before.others(change), max(before.dropped, before.kept(change))
            existing = before.existing(change)
        assert list(committed.existing) == existing
        assert list(committed.others) == expected
        if change.window and (expected or end != change.seen[0]):
            assert committed.others_end == end

    @rule(id=conversations, number=st.integers(0, 1000))
    def commit_again(self, id: str, number: int) -> None:
        """At once, or after many others; after the conversation was deleted or moved, too."""
        if sent := self.sent[id]:
            self.send(id, sent.pop(number % len(sent)))

    @rule(id=conversations)
    def close_commits(self, id: str) -> None:
        """From now on, the writers say that those of before are not sent again."""
        for writer in WRITERS:
            self.open[id, writer].clear()

    @rule(id=conversations, expected=st.none() | st.none() | st.integers(0, 4))
    def delete(self, id: str, expected: int | None) -> None:
        model = self.models[id]
        if model.version and expected not in (None, model.version):
            with pytest.raises(ConversationConflict):
                self.backend.delete(id, expected)
            return
        assert self.backend.delete(id, expected) is (model.version > 0)
        if model.version:
            self.models[id] = model.without_it()

    @rule(target=conversations, id=conversations, taken=st.booleans(), wrong=st.booleans())
    def rename(self, id: str, taken: bool, wrong: bool) -> str | MultipleResults[str]:
        model, beside = self.models[id], self.backend.id_beside(id)
        if model.version == 0:
            assert self.backend.rename(id, beside) is False
            if model.moved_to is not None:
                assert self.backend.rename(id, model.moved_to) is True, "the reply was lost"
            return multiple()
        self.models[beside] = Model()
        if taken:
            self.send(beside, Change(ttl=600.0, set={"taken": b"1"}))
        if taken or wrong:
            with pytest.raises(ConversationConflict):
                self.backend.rename(id, beside, model.version + wrong)
            return str(beside)
        assert self.backend.rename(id, beside, model.version) is True
        self.models[id] = model.without_it(beside)
        self.models[beside] = replace(model, is_deleted=False, moved_to=None, queue=[])
        self.sent[beside], self.seen[beside] = self.sent[id].copy(), self.seen[id].copy()
        assert self.backend.rename(id, beside) is True, "the reply was lost"
        return str(beside)

    @rule(target=backups, id=conversations)
    def back_up(self, id: str) -> Backup | MultipleResults[Backup]:
        record = self.backend.load(id, 10_000)
        return multiple() if record is None else Backup(record, deepcopy(self.models[id]))

    @rule(id=conversations, backup=backups, as_stored=st.booleans(), unless_deleted=st.booleans())
    def restore(self, id: str, backup: Backup, as_stored: bool, unless_deleted: bool) -> None:
        """What was backed up, perhaps of another conversation, perhaps of this one."""
        model, record = self.models[id], backup.record
        messages = record.messages if as_stored else iter(list(record.messages))
        use = partial(self.backend.restore, id, record, messages, unless_deleted=unless_deleted)
        if model.version:
            with pytest.raises(ConversationConflict):
                use()
        elif model.is_deleted and unless_deleted:
            with pytest.raises(ConversationInterrupted):
                use()
        else:
            use()
            self.models[id] = backup.model.restored(as_stored=as_stored)
            self.models[id].queue = model.queue

    @rule(id=conversations, lease=LEASES)
    def acquire(self, id: str, lease: str) -> None:
        model, acquired = self.models[id], self.backend.acquire(id, lease, 600.0, 5)
        if lease not in model.queue:
            model.queue.append(lease)
        assert acquired.position == model.queue.index(lease)
        is_theirs_and_stored = acquired.position == 0 and model.version > 0
        assert (acquired.record is not None) is is_theirs_and_stored
        if is_theirs_and_stored:
            self.check_record(acquired.record, model, 5)

    @rule(id=conversations, lease=LEASES)
    def renew(self, id: str, lease: str) -> None:
        assert self.backend.renew(id, lease, 600.0) is (self.models[id].queue[:1] == [lease])

    @rule(id=conversations, lease=LEASES)
    def release(self, id: str, lease: str) -> None:
        self.backend.release(id, lease)
        self.models[id].queue = [other for other in self.models[id].queue if other != lease]

    @rule(id=conversations)
    def touch(self, id: str) -> None:
        assert self.backend.touch(id, 600.0) is (self.models[id].version > 0)

    @rule(id=conversations, start=st.integers(0, 12), length=st.integers(0, 8))
    def page(self, id: str, start: int, length: int) -> None:
        model = self.models[id]
        first, stop = max(0, start - model.dropped), max(0, start + length - model.dropped)
        expected = as_pairs(model.messages[first:stop], length)
        assert list(self.backend.read_messages(id, start, start + length)) == expected

    @rule(id=conversations, number=st.integers(0, 20))
    def find(self, id: str, number: int) -> None:
        model = self.models[id]
        there = [message_id for _, message_id, _ in model.messages]
        missing = ["not there", f"{model.last_key:020x}", f"{model.last_key + 1:020x}"]
        for message_id in {*there[number : number + 3], *GIVEN, *missing}:
            assert self.backend.find(id, message_id) == model.find(message_id)

    @rule(id=conversations, window=st.integers(1, 5))
    def load(self, id: str, window: int) -> None:
        for read in (self.backend.load, self.backend.peek):
            model, record = self.models[id], read(id, window)
            assert (record is not None) is (model.version > 0)
            if record is not None:
                self.check_record(record, model, window)

    def check_record(self, record: Record, model: Model, window: int) -> None:
        assert (record.version, record.owner) == (model.version, model.owner)
        assert record.state == model.state
        assert list(record.messages) == as_pairs(model.messages, window)
        assert (record.message_count, record.dropped) == (len(model.messages), model.dropped)
        assert (record.end, record.last_key) == model.seen
        oldest = model.messages[0][1:] if len(model.messages) > window else None
        assert record.first == oldest

    @invariant()
    def the_same_exist(self) -> None:
        for id, model in self.models.items():
            assert self.backend.exists(id) is (model.version > 0)


class ByTwins:
    """A backend entered by its asyncio twins, from sync code."""

    def __init__(self, backend: ConversationStateBackend, runner: asyncio.Runner) -> None:
        self._backend = backend
        self._runner = runner
        self.id_beside = backend.id_beside  # which has none

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self._backend, f"a{name}")
        return lambda *args, **kwargs: self._runner.run(twin(*args, **kwargs))


# How many examples are tried, of those that memory takes.
shares = pytest.mark.parametrize("share", [0.2, pytest.param(1, marks=pytest.mark.slow)])


@shares
def test_a_backend_behaves_as_the_model(place: str, share: float) -> None:
    backend = make_place(place)
    run(backend, round(share * (300 if place == "locmem" else 100)))
    backend.close()


# On the caches, the twins are the methods in a thread.
@pytest.mark.parametrize("place", ["locmem", "standalone", "sentinel", "cluster"], indirect=True)
@shares
def test_async_methods_behave_as_the_model(place: str, share: float) -> None:
    backend = make_place(place)
    with asyncio.Runner() as runner:
        run(ByTwins(backend, runner), round(share * 50))
    backend.close()


def run(backend: Any, max_examples: int) -> None:
    run_state_machine_as_test(
        partial(BackendBesideModel, backend),  # type: ignore[arg-type]
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
