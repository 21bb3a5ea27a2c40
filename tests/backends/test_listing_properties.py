"""Whatever is saved, begun and deleted while the pages of a list are read: what is not touched is
listed once, and nothing twice."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_convstate import clock
from django_convstate.backends.base import ConversationStateBackend, Selection
from django_convstate.backends.records import Change, Record
from django_convstate.backends.redis import owned, owner_index
from django_convstate.backends.reports import LISTING_LAG
from django_convstate.ids import new_id
from tests.support.messages import pairs
from tests.support.places import make_place

AGES: Final = st.lists(
    st.one_of(st.sampled_from([0.0, 1.0, 3600.0]), st.floats(0, 200), st.floats(0, 5000)),
    min_size=1,
    max_size=14,
)
# Between two pages: which conversation is saved or deleted, one is begun, or seconds pass.
DEEDS: Final = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.just("save"), st.integers(0, 13)),
            st.tuples(st.just("delete"), st.integers(0, 13)),
            st.tuples(st.just("begin"), st.just(0)),
            st.tuples(st.just("pass"), st.integers(1, 100)),
        ),
        max_size=4,
    ),
    max_size=8,
)


class Owner:
    """One with conversations, of whom it is known which have been saved, or deleted, since the
    first page was read."""

    def __init__(self, backend: ConversationStateBackend, ages: list[float]) -> None:
        self.backend = backend
        self.name = new_id()
        self.ids = [self._restore(age) for age in ages]
        self.touched: set[str] = set()

    def _restore(self, ago: float) -> str:
        id, when = new_id(), round(clock.time() - ago, 3)
        record = Record(
            id=id,
            version=1,
            owner=self.name,
            created_at=when,
            modified_at=when,
            last_accessed=when,
            expires_at=when + 86_400,
            ttl=86_400.0,
            state={},
            messages=[],
            message_count=0,
        )
        self.backend.restore(id, record, [])
        return id

    def do(self, deed: str, number: int) -> None:
        id = self.ids[number % len(self.ids)]
        if deed == "pass":
            clock.set_ahead(clock.ahead + number)
            return
        if deed == "begin":
            self.ids.append(id := new_id())
        self.touched.add(id)
        if deed == "delete":
            self.backend.delete(id)
        else:
            self.backend.commit(id, Change(owner=self.name, append=pairs(b"{}")))


@pytest.fixture(params=["locmem", "standalone", pytest.param("sqlite", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest) -> Iterator[ConversationStateBackend]:
    if request.param != "locmem":
        request.getfixturevalue({"standalone": "valkey"}.get(request.param, request.param))
    backend = make_place(request.param)
    yield backend
    backend.close()
    clock.set_ahead(0)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=AGES,
    before=st.lists(st.tuples(st.sampled_from(["save", "pass"]), st.integers(1, 40)), max_size=6),
    between=DEEDS,
    limit=st.integers(1, 6),
    crowd=st.sampled_from([0, 2, 100]),
    page=st.sampled_from([2, 500]),
)
def test_what_is_not_touched_is_listed_once_and_nothing_twice(
    backend: ConversationStateBackend,
    ages: list[float],
    before: list[tuple[str, int]],
    between: list[list[tuple[str, int]]],
    limit: int,
    crowd: int,
    page: int,
) -> None:
    clock.set_ahead(0)
    owner = Owner(backend, ages)
    for deed in before:
        owner.do(*deed)
    owner.touched.clear()
    there = set(owner.ids)
    with ExitStack() as sizes:
        sizes.enter_context(patch.object(owner_index, "MOST_WITHIN_LAG", crowd))
        sizes.enter_context(patch.object(owned, "PAGE", page))
        found = pages(owner, between, limit)
        everything = [summary.id for summary in backend.scan(owner.name)]
    exist = {id for id in owner.ids if backend.exists(id)}
    backend.purge(Selection(owner=owner.name))  # memory has room for a thousand
    listed = [summary.id for page in found for summary in page]
    untouched = [each for page in found for each in page if each.id not in owner.touched]
    assert len(set(listed)) == len(listed), "nothing twice"
    assert there - owner.touched <= set(listed), "nothing is lost"
    for times in (*map(saved, found), saved(untouched)):
        assert all(b - a <= LISTING_LAG for at, a in enumerate(times) for b in times[at:])
    assert exist == set(everything)
    assert len(everything) == len(set(everything))


def pages(owner: Owner, between: list[list[tuple[str, int]]], limit: int) -> list[list[Any]]:
    """Read page after page, until one is not full, and do something between them. Of every second
    page the last one is left to the next."""
    found, deeds = list[list[Any]](), iter(between)
    after, is_full = None, True
    while is_full:
        page = list(owner.backend.scan(owner.name, limit=limit, after=after))
        is_full = len(page) == limit
        if is_full and len(page) > 1 and len(found) % 2:
            page.pop()
        found.append(page)
        after = page[-1].cursor if page else after
        for deed in next(deeds, ()):
            owner.do(*deed)
    return found


def saved(summaries: list[Any]) -> list[float]:
    return [summary.modified_at.timestamp() for summary in summaries]
