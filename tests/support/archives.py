"""Conversations as backends see them, for tests of what moves them; and places to move them to."""

import math
import time
from typing import Any

import orjson
from hypothesis import strategies as st

from django_convstate import ConversationStore
from django_convstate.administration import repository_of
from django_convstate.backends.records import Record
from django_convstate.backends.toolkit.packed import Pair
from django_convstate.transfer.lines import Whole
from tests.support.places import make_place

LISTING = ["locmem", "standalone", "failover", "sqlite", "postgres"]
TARGETS = [*LISTING, "default", "file"]
KEPT = ("version", "owner", "state", "message_count", "dropped", "last_key")
TIMES = ("ttl", "created_at", "modified_at", "last_accessed")
TOLERANCE = 0.002  # seconds: Redis keeps milliseconds

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
values = json.map(orjson.dumps) | st.binary(max_size=20)
message_ids = st.integers(2**70, 2**76).map("{:020x}".format) | texts.filter(bool)
messages = st.lists(
    st.tuples(message_ids, st.dictionaries(texts, json, max_size=2).map(orjson.dumps) | values),
    max_size=8,
    unique_by=lambda pair: pair[0],
)


@st.composite
def wholes(draw: Any) -> Whole:
    """A conversation that has not expired."""
    said: list[Pair] = draw(messages)
    ttl = draw(st.floats(600, 10**8) | st.just(math.inf))
    last_accessed = time.time() - draw(st.floats(0, 100))
    modified_at = last_accessed - draw(st.floats(0, 100))
    return Whole(
        Record(
            id="id+" + draw(st.text("aZ0_.:+@=~-", min_size=12, max_size=125)),
            version=draw(st.integers(1, 10**10 - 1)),
            owner=draw(st.none() | texts.filter(lambda text: text not in ("", "None"))),
            created_at=modified_at - draw(st.floats(0, 10**6)),
            modified_at=modified_at,
            last_accessed=last_accessed,
            expires_at=last_accessed + ttl,
            ttl=ttl,
            state=draw(st.dictionaries(texts, values, max_size=4)),
            messages=(),
            message_count=len(said),
            dropped=draw(st.integers(0, 2**31)),
            last_key=draw(st.integers(2**77, 2**78)).to_bytes(10),
        ),
        said,
    )


def store_on(place: str, prefix: str) -> ConversationStore:
    """A store with nothing in common with those of other prefixes."""
    options = {} if place == "locmem" else {"key_prefix": prefix}
    return ConversationStore(make_place(place, **options))


def keep(store: ConversationStore, whole: Whole) -> None:
    repository_of(store).restore(whole.record.id, whole.record, iter(whole.messages))


def whole_of(store: ConversationStore, id: str) -> Whole:
    """What a store has under an id, in small pieces."""
    repository = repository_of(store)
    record = repository.peek(id, 2)
    said: list[Pair] = []
    for position in range(record.dropped, record.end, 3):
        said += repository.read_messages(id, position, min(position + 3, record.end))
    return Whole(record, said)


def assert_same(found: Whole, expected: Whole) -> None:
    for name in KEPT:
        assert getattr(found.record, name) == getattr(expected.record, name), name
    for name in TIMES:
        one, other = getattr(found.record, name), getattr(expected.record, name)
        assert one == other or abs(one - other) <= TOLERANCE, name
    # Redis measures it anew each time.
    expires_at = found.record.expires_at
    assert expires_at == expected.record.expires_at or (
        abs(expires_at - expected.record.expires_at) < 1
    )
    assert list(found.messages) == list(expected.messages)
