"""A change that is too large, or takes too long, is replayed in pieces, and exactly once."""

from typing import Any

import pytest

from django_convstate import BackendUnavailable
from django_convstate.backends.failover import pieces
from django_convstate.backends.failover.pieces import PIECE_BYTES, divided
from django_convstate.backends.failover.recovery import Recovery
from django_convstate.backends.failover.replay import Replayer
from django_convstate.backends.records import Change, Create, Replacement
from tests.support.backends import Switched
from tests.support.failover import Outage, append, made, messages_of, numbers
from tests.support.messages import bodies, pairs

LARGE = [b"%06d" % number + b"x" * 50_000 for number in range(40)]


class Network:
    """What the primary gets of an outage's changes, and what of its answers gets back.

    Attributes:
        limit: a change with more bytes of messages takes too long: no answer comes.
        arrives: whether it is applied all the same.
        lost: of these commits, by their order, the answers get lost.
        sizes: how many messages each commit had.
    """

    def __init__(self, primary: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
        self.primary = primary
        self.limit = 10**9
        self.arrives = False
        self.lost: set[int] = set()
        self.sizes: list[int] = []
        monkeypatch.setattr(primary, "commit", self.commit)

    def commit(self, id: str, change: Change) -> Any:
        self.primary.refuse_if(self.primary.away)
        if id != "a":
            return self.primary.others.commit(id, change)
        number = len(self.sizes)
        self.sizes.append(len(change.append))
        is_slow = sum(len(data) for _, data in change.append) > self.limit
        committed = None
        if self.arrives or not is_slow:
            committed = self.primary.others.commit(id, change)
        if is_slow or number in self.lost:
            raise BackendUnavailable("timeout")
        return committed


@pytest.fixture
def network(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> Network:
    """The test replays itself: there is no thread that does."""
    monkeypatch.setattr(Recovery, "wake", lambda _: None)
    return Network(outage.primary, monkeypatch)


def replay_until_done(outage: Outage) -> None:
    """As the thread does it, but without its pauses."""
    outage.primary.away = False
    replayer = Replayer(outage.primary, outage.backend._offline)
    for _ in range(200):
        try:
            replayer.replay("a")
        except BackendUnavailable:
            replayer.divide("a")
        else:
            break
    assert outage.backend.health().pending_replay == 0
    assert (replayer.stats.conflicts, replayer.stats.lost) == (0, 0)


def test_a_large_change_goes_in_pieces(outage: Outage, network: Network) -> None:
    outage.commit(append=pairs(*LARGE), set={"k": b"1"}, increment={"n": 1}, ttl=60.0)
    outage.commit(append=pairs(b"last"), increment={"n": 1})
    replay_until_done(outage)
    home = outage.end()
    assert bodies(home.messages) == [b"1", b"2", b"3", *LARGE, b"last"]
    assert (home.state, home.ttl) == ({"n": b"12", "k": b"1"}, 60)
    assert network.sizes[0] == 0, "the head"
    assert max(network.sizes) * len(LARGE[0]) <= PIECE_BYTES


def test_it_counts_as_one_change(outage: Outage) -> None:
    outage.commit(append=pairs(*LARGE))
    outage.commit(append=pairs(b"last"))
    assert outage.backend.health().pending_replay == 2
    outage.end()
    assert outage.stats["replayed"] == 2


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("limit", [55_000, 120_000, 10**9])
def test_pieces_shrink_until_they_arrive_and_nothing_is_there_twice(
    outage: Outage, network: Network, limit: int, arrives: bool
) -> None:
    """Also if what took too long arrives, and only the answer does not."""
    small = [b"1%d" % number for number in range(10)]
    outage.commit(append=pairs(*small, *LARGE[:5]))
    outage.commit(append=pairs(b"last"), increment={"n": 1})
    network.limit, network.arrives = limit, arrives
    replay_until_done(outage)
    home = outage.end()
    assert bodies(home.messages) == [b"1", b"2", b"3", *small, *LARGE[:5], b"last"]
    assert home.state == {"n": b"11"}


@pytest.mark.parametrize("lost", range(12))
def test_a_lost_answer_duplicates_and_loses_nothing(
    outage: Outage, network: Network, lost: int
) -> None:
    outage.commit(append=pairs(*LARGE), increment={"n": 1})
    outage.others_commit(append=pairs(b"theirs"))
    network.lost = {lost, lost + 1}
    replay_until_done(outage)
    home = outage.end()
    assert bodies(home.messages) == [b"1", b"2", b"3", b"theirs", *LARGE]
    assert home.state == {"n": b"11"}


@pytest.mark.parametrize("answer_of_the_head", ["comes", "is lost"])
@pytest.mark.parametrize("arrived", ["before the head", "after the head", "never"])
def test_the_whole_that_had_been_sent_before_is_applied_once(
    outage: Outage, network: Network, arrived: str, answer_of_the_head: str
) -> None:
    whole = Change(append=pairs(*LARGE), increment={"n": 1})
    outage.backend.commit("a", whole)
    outage.commit(append=pairs(b"mine"))
    if arrived == "before the head":
        outage.others.commit("a", whole)
        outage.others_commit(append=pairs(b"theirs"))
    network.lost = {0} if answer_of_the_head == "is lost" else set()
    replay_until_done(outage)
    if arrived == "after the head":
        outage.others.commit("a", whole)
    home = outage.end()
    texts = bodies(home.messages)
    theirs = [b"theirs"] if arrived == "before the head" else []
    assert texts == [b"1", b"2", b"3", *LARGE, *theirs, b"mine"]
    assert home.state == {"n": b"11"}


def test_a_truncation_after_pieces_drops_what_its_author_saw(
    outage: Outage, network: Network
) -> None:
    outage.commit(append=pairs(*LARGE))
    outage.commit(keep_messages=5, append=pairs(b"anew"))
    outage.others_commit(append=pairs(b"theirs"))
    replay_until_done(outage)
    assert bodies(outage.end().messages) == [b"1", b"2", b"3", b"theirs", *LARGE[:2], b"anew"]


def test_messages_that_may_be_there_are_not_added_again(outage: Outage, network: Network) -> None:
    said = [(f"id{number}", data) for number, data in enumerate(LARGE)]
    outage.others_commit(append=[said[7]])
    outage.commit(append=said, once={id for id, _ in said})
    replay_until_done(outage)
    texts = bodies(outage.end().messages)
    assert sorted(texts) == sorted([b"1", b"2", b"3", *LARGE])


def test_a_new_conversation_goes_in_pieces(outage: Outage) -> None:
    change = append(*LARGE, create=Create.MUST_BE_NEW, owner="u1")
    outage.backend.commit("new", change)
    outage.end()
    assert messages_of(outage.others, "new") == LARGE
    record = outage.others.load("new", 1)
    assert record is not None
    assert record.owner == "u1"


def test_pieces_do_not_get_into_anothers_conversation(outage: Outage) -> None:
    outage.backend.commit("new", append(*LARGE, create=Create.MUST_BE_NEW, owner="u1"))
    outage.backend.commit("new", append(b"more"))
    outage.others.commit("new", append(b"theirs", owner="u2"))
    outage.end()
    assert messages_of(outage.others, "new") == [b"theirs"]
    assert outage.conflicts_and_lost == (0, 2)


def test_messages_that_were_replaced_go_in_pieces(outage: Outage, network: Network) -> None:
    record = outage.backend.load("a", 10)
    assert record is not None
    network.limit = 60_000
    replaced = [
        Replacement(id=id, old=old, new=LARGE[number])
        for number, (id, old) in enumerate(record.messages)
    ]
    outage.commit(replace=replaced, append=pairs(*LARGE[3:6]))
    replay_until_done(outage)
    assert bodies(outage.end().messages) == LARGE[:6]


def test_the_journal_counts_the_bytes_of_pieces() -> None:
    primary = Switched()
    with made(primary) as backend:
        primary.away = True
        for _ in range(3):
            backend.commit("a", append(*LARGE))
            assert backend._offline.journal.pending == 1
            Replayer(primary, backend._offline).divide("a")
            primary.away = False
            backend.close()
            journal = backend._offline.journal
            assert (journal._bytes, journal.pending) == (0, 0)
            primary.away = True


def test_what_cannot_be_divided_stays_whole() -> None:
    assert divided("a", append(LARGE[0], set={"k": b"1"}), 1) is None
    assert divided("a", Change(set={"k": b"1"}), 0) is None
    change = append(*numbers(0, 9))
    parts = divided("a", change, 9)
    assert parts is not None
    head, *others = parts
    assert head[0].commit is change.commit
    assert [data for piece, _ in others for _, data in piece.append] == numbers(0, 9)
    assert others[-1][1] == 9
    assert pieces.mark_of([piece for piece, _ in others]) == change.append[0][0]
