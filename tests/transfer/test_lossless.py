"""What is exported and imported is what it was: ids, versions, times, owners, bytes."""

import io
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from django_convstate import ConversationStore
from django_convstate.backends.database import listing
from django_convstate.ids import new_id
from django_convstate.testing import seed
from django_convstate.transfer import export_to, import_from
from django_convstate.transfer.lines import Whole, line_of, parse_line
from tests.backends.test_upgrade import MESSAGES, in_redis
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
    if target.backend.name in ("redis", "database"):
        assert list(target.find_damage()) == []
    if target.backend.can_scan:
        assert [each.id for each in source.list(limit=9)] == [
            each.id for each in target.list(limit=9)
        ]


@pytest.mark.usefixtures("valkey")
def test_what_version_0_1_has_stored(make_store: Callable[[str], ConversationStore]) -> None:
    id = new_id()
    in_redis(id, "of_0_1")  # apart from what other tests leave in the same server
    source = ConversationStore(
        "redis", cache_alias="django_redis", key_prefix="of_0_1", fallback=None
    )
    before = whole_of(source, id)
    file, target = io.BytesIO(), make_store("locmem")
    export_to(file, store=source)
    file.seek(0)
    import_from(file, store=target)
    before.record.last_key = whole_of(target, id).record.last_key  # of which 0.1 had none
    assert_same(whole_of(target, id), before)
    assert target.get(id).messages.all() == MESSAGES
    assert target.get(id).messages.find("#3")["content"] == MESSAGES[3]["content"]
    source.delete(id)
    source.close()


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_what_is_saved_while_it_is_exported_is_not_missed(
    make_store: Callable[[str], ConversationStore], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to the front of the listing, which is read in pages from there on."""
    monkeypatch.setattr(listing, "PAGE", 3)
    store, file = make_store(place), io.BytesIO()
    ids = [seed([("user", "hi")], store=store).id for _ in range(12)]

    def save(done: int, total: int | None) -> None:
        if done == 2:
            for id in ids[:3]:  # the last ones to come
                store.append(id, "user", "meanwhile")

    report = export_to(file, store=store, progress=save)
    assert report.exported == 12
    found = {parse_line(line).record.id: line for line in file.getvalue().splitlines()}
    assert found.keys() == set(ids)
    assert all(b"meanwhile" in found[id] for id in ids[:3])
