"""What is exported and imported is what it was: ids, versions, times, owners, bytes."""

import io
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from django_convstate import ConversationStore
from django_convstate.transfer import export_to, import_from
from django_convstate.transfer.lines import Whole, line_of, parse_line
from tests.support.archives import (
    LISTING,
    TARGETS,
    assert_same,
    keep,
    whole_of,
    wholes,
)

batches = st.lists(wholes(), min_size=1, max_size=3, unique_by=lambda whole: whole.record.id)


@pytest.fixture
def stores(
    make_store: Callable[[str], ConversationStore], source: str, target: str
) -> tuple[ConversationStore, ConversationStore]:
    return make_store(source), make_store(target)


@given(wholes())
def test_a_line_is_the_conversation(whole: Whole) -> None:
    line = line_of(whole)
    assert line.count(b"\n") == 1
    assert_same(parse_line(line), whole)
    assert line_of(parse_line(line)) == line


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", LISTING)
@settings(
    max_examples=4,
    phases=[Phase.explicit, Phase.generate],  # to shrink takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches)
def test_between_all_backends(
    stores: tuple[ConversationStore, ConversationStore], batch: list[Whole]
) -> None:
    source, target = stores
    try:
        move(source, target, batch)
    finally:  # or what fails is not made smaller
        for store in stores:
            for whole in batch:
                store.delete(whole.record.id)


def move(source: ConversationStore, target: ConversationStore, batch: list[Whole]) -> None:
    for whole in batch:
        keep(source, whole)
    file = io.BytesIO()
    assert export_to(file, store=source).exported == len(batch)
    file.seek(0)
    assert import_from(file, store=target).imported == len(batch)
    for whole in batch:
        id = whole.record.id
        assert_same(whole_of(source, id), whole)
        assert_same(whole_of(target, id), whole)
    if target.backend.can_scan:
        assert [each.id for each in source.list(limit=9)] == [
            each.id for each in target.list(limit=9)
        ]
