"""All that is kept of an owner goes, wherever it is, and what remains elsewhere is told."""

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_convstate import ConversationInterrupted, ConversationStore, InvalidBackend
from django_convstate.backends.database.models import Conversation as Row
from django_convstate.backends.records import Change
from django_convstate.exceptions import ConversationCorrupt, InvalidConversationValue
from django_convstate.testing import seed
from django_convstate.transfer import erase_owner, export_to
from tests.support.archives import LISTING

Make = Callable[[str], ConversationStore]


def everything(store: ConversationStore) -> bytes:
    file = io.BytesIO()
    export_to(file, store=store)
    return file.getvalue()


@pytest.mark.parametrize("place", LISTING)
def test_what_is_an_owners_goes_and_leaves_tombstones(make_store: Make, place: str) -> None:
    store = make_store(place)
    mine = [seed([("user", "mine")], owner="u1", store=store).id for _ in range(3)]
    others = [seed([("user", "o")], owner=owner, store=store).id for owner in ("u2", None)]
    report = erase_owner("u1", store=store)
    assert (report.owner, report.deleted) == ("u1", 3)
    assert sorted(summary.id for summary in store.list()) == sorted(others)
    assert list(store.list("u1")) == []
    assert b"mine" not in everything(store)
    for id in mine:
        with pytest.raises(ConversationInterrupted):
            store.backend.commit(id, Change(unless_deleted=True, set={"a": b"1"}))
    assert erase_owner("u1", store=store).deleted == 0


@pytest.mark.parametrize("place", LISTING)
def test_the_report_says_what_is_elsewhere_and_until_when(make_store: Make, place: str) -> None:
    report = erase_owner("u1", store=make_store(place))
    lasts = {
        word: each.until - report.erased_at
        for each in report.elsewhere
        for word in ("lease", "ids", "quarantine", "OUTAGE_MEMORY", "Journals")
        if word in each.what and each.until
    }
    assert lasts.pop("lease") == timedelta(seconds=5)
    assert lasts.pop("ids") == timedelta(days=1)
    assert lasts.pop("quarantine") == timedelta(days=7)
    for_outages = {"OUTAGE_MEMORY": timedelta(seconds=600), "Journals": timedelta(days=1)}
    assert lasts == (for_outages if place == "failover" else {})
    assert report.elsewhere[-1].until is None
    assert "u1" not in repr(report)


def test_redis_what_is_in_no_index_and_what_is_in_quarantine(
    make_store: Make, valkey: None
) -> None:
    store = make_store("standalone")
    backend: Any = store.backend
    lost, damaged, twice, others = (
        seed([("user", "o")], {"a": 1}, owner=owner, store=store).id
        for owner in ("u1", "u1", "u1", "u2")
    )
    redis = client_of(store)
    (prefix,) = {key.split(b":{")[0].decode() for key in redis.scan_iter(f"*{{{lost}}}:meta")}
    for key in redis.scan_iter(f"{prefix}:owner:*"):
        redis.zrem(key, lost)
    for id in (damaged, twice, others):
        redis.delete(f"{prefix}:{{{id}}}:messages")
        with pytest.raises(ConversationCorrupt):
            store.get(id)
    seed([("user", "o")], id=twice, owner="u1", store=store)
    redis.delete(f"{prefix}:{{{twice}}}:state", f"{prefix}:{{{twice}}}:messages")
    with pytest.raises(ConversationCorrupt):
        backend.load(twice, 1)
    redis.set(f"{prefix}:{{odd}}:meta:corrupt", "no hash")
    redis.set(f"{prefix}:{{odd}}:meta", "no hash")
    redis.hset(f"{prefix}:{{partial}}:meta", "o", "u2")  # which the next load puts in quarantine
    redis.hset(f"{prefix}:{{partial}}:state", "a", "1")

    report = erase_owner("u1", store=store)

    left = {key.decode() for key in redis.scan_iter(f"{prefix}:*")}
    assert not any(id in key for id in (damaged, twice) for key in left)
    assert {key for key in left if lost in key} == {f"{prefix}:{{{lost}}}:meta"}, "a tombstone"
    assert redis.hgetall(f"{prefix}:{{{lost}}}:meta") == {b"gone": b""}
    assert f"{prefix}:{{{others}}}:meta:corrupt" in left
    assert f"{prefix}:{{partial}}:state" in left
    assert report.deleted == 4
    indexed = [id for key in left if ":owner:" in key for id, *_ in redis.zscan_iter(key)]
    assert {others.encode()} >= set(indexed)
    for key in left:
        redis.delete(key)


def client_of(store: ConversationStore) -> Any:
    from django_redis import get_redis_connection

    return get_redis_connection("django_redis")


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_database_what_is_in_quarantine(make_store: Make, place: str) -> None:
    store = make_store(place)
    damaged, others = (seed([("user", "o")], owner=owner, store=store).id for owner in ("u1", "u2"))
    rows = Row.rows.using(place)
    for id in (damaged, others):
        rows.filter(key=id).update(last_key=b"short")
        with pytest.raises(ConversationCorrupt):
            store.get(id)
    assert erase_owner("u1", store=store).deleted == 1
    assert [row.owner for row in rows.all()] == ["u2"]


def test_what_this_process_remembers_for_an_outage_is_forgotten(make_store: Make) -> None:
    store = make_store("failover")
    id = seed([("user", "o")], owner="u1", store=store).id
    assert store.get(id).owner == "u1"
    backend: Any = store.backend
    known = backend._known
    assert known.get(id) is not None
    erase_owner("u1", store=store)
    assert known.get(id) is None


def test_who_owns_nothing_is_refused(make_store: Make) -> None:
    with pytest.raises(InvalidConversationValue, match="owns nothing"):
        erase_owner(None, store=make_store("locmem"))
    with pytest.raises(InvalidBackend, match="cannot find"):
        erase_owner("u1", store=make_store("default"))
