"""The ways to a conversation: blind appends, open, create, peek, key, TTLs, turns, lists."""

import asyncio
import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationBusy,
    ConversationConflict,
    ConversationNotFound,
    ConversationStore,
    InvalidConversationId,
    InvalidConversationValue,
)
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.exceptions import ConversationTooLarge, InvalidConversationType
from tests.support.backends import CountingBackend, SwitchedFailover
from tests.support.conversations import contents
from tests.support.ways import call


@dataclass
class User:
    pk: Any
    is_authenticated: bool = True


@pytest.fixture
def store() -> ConversationStore:
    return ConversationStore(CountingBackend())


@pytest.fixture
def away() -> Iterator[ConversationStore]:
    """A store in an outage, in which memory goes on."""
    backend = SwitchedFailover()
    assert isinstance(backend, FailoverBackend)
    backend.primary.away = True
    yield ConversationStore(backend)
    backend.primary.away = False
    backend.close()


def kept(store: ConversationStore, id: str = "a", **options: Any) -> Conversation:
    conversation = store.create(id=id, **options)
    conversation["a"] = 1
    conversation.save()
    return conversation


class TestBlind:
    def calls(self, way: str) -> dict[str, int]:
        """What the backend was asked, without what a twin in memory asks its method."""
        found = dict(CountingBackend.calls)
        return found if way == "sync" else {n: c for n, c in found.items() if n.startswith("a")}

    def test_an_append_is_one_round_trip(self, way: str, store: ConversationStore) -> None:
        CountingBackend.calls.clear()
        assert call(way, store, "append", "a", "user", "hi", source="webhook") is True
        assert call(way, store, "append", "a", "user", "you?", id="x") is True
        assert self.calls(way) == {"commit" if way == "sync" else "acommit": 2}
        messages = store.get("a").messages
        assert [message["content"] for message in messages] == ["hi", "you?"]
        assert (messages[0]["source"], messages[1].id, messages[1]["id"]) == ("webhook", "x", "x")

    def test_a_message_that_is_there_already_is_not_kept(
        self, way: str, store: ConversationStore
    ) -> None:
        assert call(way, store, "append", "a", "user", "first", id="x") is True
        assert call(way, store, "append", "a", "user", "second", id="x") is False
        for number in range(100):
            store.append("a", "user", str(number))
        CountingBackend.calls.clear()
        assert call(way, store, "append", "a", "user", "third", id="x") is False
        assert self.calls(way) == {"commit" if way == "sync" else "acommit": 1}
        assert contents(store.get("a"))[:2] == ["first", "0"]
        assert len(store.get("a").messages) == 101

    def test_an_extend_is_one_round_trip(self, way: str, store: ConversationStore) -> None:
        items = [{"type": "call"}, {"id": "own", "role": "user"}]
        CountingBackend.calls.clear()
        ids = call(way, store, "extend", "a", items)
        assert self.calls(way) == {"commit" if way == "sync" else "acommit": 1}
        messages = store.get("a").messages
        assert [message.id for message in messages] == list(ids)
        assert list(messages) == items

    def test_an_extend_by_nothing_stores_nothing(self, way: str, store: ConversationStore) -> None:
        assert list(call(way, store, "extend", "a", [], owner="u1", ttl=60)) == []
        assert not store.exists("a")

    @pytest.mark.parametrize(
        ("name", "args"), [("append", ("user", "hi")), ("extend", ([{"a": 1}],))]
    )
    def test_owner_and_ttl(
        self, way: str, store: ConversationStore, name: str, args: tuple[Any, ...]
    ) -> None:
        call(way, store, name, "a", *args, owner=User(5), ttl=60)
        assert (store.get("a").owner, store.get("a").ttl) == ("5", 60)
        call(way, store, name, "a", *args, ttl=90)
        assert (store.get("a").owner, store.get("a").ttl) == ("5", 60), "only of a new one"
        for other in ("6", AnonymousUser()):
            with pytest.raises(ConversationConflict, match="another owner"):
                call(way, store, name, "a", *args, owner=other)
        assert len(store.get("a").messages) == 2
        call(way, store, name, "forever", *args, ttl=math.inf)
        assert store.get("forever").ttl == math.inf
        for bad in ({"ttl": 0}, {"ttl": "5"}, {"owner": "None"}, {"owner": 5}):
            with pytest.raises(InvalidConversationValue):
                call(way, store, name, "b", *args, **bad)
        assert not store.exists("b")

    def test_what_cannot_be_stored_is_not_sent(self, way: str, store: ConversationStore) -> None:
        CountingBackend.calls.clear()
        for bad, error in (
            (("", "user", "a"), InvalidConversationId),
            (("a", "", "a"), InvalidConversationType),
            (("a", "user", float("nan")), InvalidConversationValue),
            (("a", "user", "a" * 70_000), ConversationTooLarge),
        ):
            with pytest.raises(error):
                call(way, store, "append", *bad)
        with pytest.raises(InvalidConversationType, match="item 0"):
            call(way, store, "extend", "a", ["text"])
        assert CountingBackend.calls == {}


class TestOpenAndCreate:
    def test_open_gives_owner_and_ttl_to_a_new_one(
        self, way: str, store: ConversationStore
    ) -> None:
        conversation = call(way, store, "open", "a", owner=User(5), ttl=60)
        assert (conversation.owner, conversation.ttl, conversation.is_new) == ("5", 60, True)
        conversation["a"] = 1
        conversation.save()
        again = call(way, store, "open", "a", owner="5", ttl=90)
        assert (again.owner, again.ttl, again["a"]) == ("5", 60, 1)

    def test_open_of_another_owners_is_not_found(self, way: str, store: ConversationStore) -> None:
        kept(store, "theirs", owner="u1")
        kept(store, "nobodys")
        for id, owner in (
            ("theirs", "u2"),
            ("theirs", None),
            ("theirs", AnonymousUser()),
            ("nobodys", "u1"),
            ("no id: {}", "u1"),
        ):
            with pytest.raises(ConversationNotFound, match="no such conversation"):
                call(way, store, "open", id, owner=owner)
        for owner in (None, AnonymousUser()):
            assert call(way, store, "open", "nobodys", owner=owner)["a"] == 1
        assert call(way, store, "open", "theirs")["a"] == 1, "trusted code asks for nobody"
        with pytest.raises(InvalidConversationId):
            call(way, store, "open", "no id: {}")

    def test_what_another_owner_begins_meanwhile_is_not_taken(
        self, way: str, store: ConversationStore
    ) -> None:
        ours = call(way, store, "open", "a", owner="u1")
        kept(store, "a", owner="u2")
        ours["a"] = "ours"
        with pytest.raises(ConversationConflict):
            call(way, ours, "save")
        assert store.get("a")["a"] == 1

    def test_strict_does_not_go_on_without_the_history(
        self, way: str, away: ConversationStore
    ) -> None:
        assert call(way, away, "open", "a").degraded
        with pytest.raises(BackendUnavailable, match="nothing is known here"):
            call(way, away, "open", "a", strict=True)
        with pytest.raises(BackendUnavailable):
            call(way, away, "open", "a", owner="u1")

    def test_strict_goes_on_with_what_is_known(self, way: str, away: ConversationStore) -> None:
        backend = away.backend
        assert isinstance(backend, SwitchedFailover)
        backend.primary.away = False
        kept(away, "a")
        backend.primary.away = True
        conversation = call(way, away, "open", "a", strict=True)
        assert (conversation.degraded, conversation["a"]) == (True, 1)

    def test_a_new_conversation_may_begin_with_a_turn_in_an_outage(
        self, way: str, away: ConversationStore
    ) -> None:
        conversation = away.create(owner="u1")
        if way == "async":

            async def take_turn() -> None:
                async with conversation.aturn():
                    conversation.messages.append("user", "hello")

            asyncio.run(take_turn())
        else:
            with conversation.turn():
                conversation.messages.append("user", "hello")
        assert (conversation.degraded, conversation.owner) == (True, "u1")
        backend = away.backend
        assert isinstance(backend, SwitchedFailover)
        backend.primary.away = False
        backend.close()
        record = backend.primary.load(conversation.id, 10)
        assert record is not None
        assert (record.owner, record.message_count) == ("u1", 1)

    def test_create_with_an_id_that_is_taken_conflicts(
        self, way: str, store: ConversationStore
    ) -> None:
        assert kept(store, "mine").id == "mine"
        again = store.create(id="mine")
        again["a"] = 2
        with pytest.raises(ConversationConflict, match="taken"):
            call(way, again, "save")
        assert store.get("mine")["a"] == 1

    @pytest.mark.parametrize("bad", ["", "a b", ".a", "x" * 129, 5, b"a"])
    def test_create_with_a_bad_id_is_refused(self, store: ConversationStore, bad: Any) -> None:
        with pytest.raises(InvalidConversationId):
            store.create(id=bad)


class TestPeek:
    def test_it_reads(self, way: str, store: ConversationStore) -> None:
        kept(store, "a", owner="u1")
        store.append("a", "user", "hi", id="x")
        peeked = call(way, store, "peek", "a", owner=User("u1"))
        assert (peeked["a"], contents(peeked), peeked.messages.find("x")["content"]) == (
            1,
            ["hi"],
            "hi",
        )
        for id, owner in (("a", "u2"), ("a", None), ("absent", "u1"), ("no id {}", "u1")):
            with pytest.raises(ConversationNotFound):
                call(way, store, "peek", id, owner=owner)

    def test_it_slides_nothing(self, way: str) -> None:
        backend = LocMemBackend()
        store = ConversationStore(backend)
        kept(store, "a", ttl=60)
        (before,) = backend.scan()
        time.sleep(0.02)
        peeked = call(way, store, "peek", "a")
        (after,) = backend.scan()
        assert (after.last_accessed, after.expires_at) == (before.last_accessed, before.expires_at)
        assert peeked.expires_at == before.expires_at
        store.get("a")
        (loaded,) = backend.scan()
        assert loaded.last_accessed > before.last_accessed

    @pytest.mark.parametrize(
        ("name", "args"),
        [("save", ()), ("delete", ()), ("touch", ()), ("touch", (60,)), ("claim", ("u1",))],
    )
    def test_it_is_read_only(
        self, way: str, store: ConversationStore, name: str, args: tuple[Any, ...]
    ) -> None:
        kept(store, "a", ttl=90)
        peeked = call(way, store, "peek", "a")
        call(way, peeked, "save")  # of nothing
        peeked["a"] = 2
        peeked.messages.append("user", "hi")
        with pytest.raises(ConversationConflict, match="peeked at"):
            call(way, peeked, name, *args)
        again = store.get("a")
        assert (again["a"], len(again.messages), again.owner, again.ttl) == (1, 0, None, 90)

    def test_it_takes_no_turn_and_no_new_id(self, way: str, store: ConversationStore) -> None:
        kept(store, "a")
        peeked = call(way, store, "peek", "a")
        with pytest.raises(ConversationConflict, match="peeked at"):
            peeked.turn() if way == "sync" else peeked.aturn()
        with pytest.raises(ConversationConflict, match="peeked at"):
            call(way, peeked, "cycle_id")
        assert store.exists("a")


class TestKey:
    def test_it_is_valid_and_the_same_each_time(self, store: ConversationStore) -> None:
        uid = uuid.uuid4()
        for parts in (("a",), ("whatsapp", "+49 30/1"), ("é", 5, uid), ("x" * 1000,), ("",)):
            key = store.key(*parts)
            assert key == store.key(*parts)
            conversation = store.open(key)
            assert conversation.id == key
        assert store.key("a") == ConversationStore("locmem").key("a") == store.key(("a",))
        # What was stored under it must be found by every later version.
        assert store.key("slack", "T1", "C2") == "key-F11gyOPZSHj4Jp1NeZZCkg"

    def test_other_parts_make_another(self, store: ConversationStore) -> None:
        keys = [
            store.key("a", "bc"),
            store.key("ab", "c"),
            store.key("abc"),
            store.key("a", "b", "c"),
            store.key(("a", "b"), "c"),
            store.key("a", ("b", "c")),
            store.key("c", "ab"),
            store.key("a,bc"),
            store.key('a","bc'),
            store.key("A", "bc"),
        ]
        assert len(set(keys)) == len(keys)

    @pytest.mark.parametrize(
        "bad", [(), (None,), (1.5,), (True,), (b"a",), (["a"],), ((),), ("a", None)]
    )
    def test_what_makes_no_key_is_refused(
        self, store: ConversationStore, bad: tuple[Any, ...]
    ) -> None:
        with pytest.raises(InvalidConversationType):
            store.key(*bad)


class TestLifetime:
    def test_delete_of_an_expected_version(self, way: str, store: ConversationStore) -> None:
        conversation = kept(store, "a")
        with pytest.raises(ConversationConflict):
            call(way, store, "delete", "a", expected_version=conversation.version + 1)
        assert store.exists("a")
        assert call(way, store, "delete", "a", expected_version=conversation.version) is True
        assert call(way, store, "delete", "a", expected_version=conversation.version) is False
        assert not store.exists("a")

    def test_a_ttl_that_is_assigned_is_saved(self, way: str, store: ConversationStore) -> None:
        conversation = kept(store, "a", ttl=60)
        conversation.ttl = 90
        assert (conversation.ttl, conversation.is_modified) == (90, True)
        assert store.get("a").ttl == 60, "not before it is saved"
        call(way, conversation, "save")
        assert not conversation.is_modified
        for each in (conversation, store.get("a")):
            assert each.ttl == 90
            assert each.expires_at is not None
            assert 80 < (each.expires_at - datetime.now(UTC)).total_seconds() <= 90

    def test_a_ttl_of_a_new_one_stores_nothing_by_itself(
        self, way: str, store: ConversationStore
    ) -> None:
        conversation = store.create(id="a")
        conversation.ttl = 60
        call(way, conversation, "save")
        assert not store.exists("a")
        conversation["a"] = 1
        call(way, conversation, "save")
        assert store.get("a").ttl == 60

    @pytest.mark.parametrize("bad", [0, -1, float("nan"), -math.inf, True, "60", 10**12])
    def test_an_impossible_ttl_is_refused_everywhere(
        self, way: str, store: ConversationStore, bad: Any
    ) -> None:
        conversation = kept(store, "a", ttl=60)
        with pytest.raises(InvalidConversationValue, match="ttl"):
            conversation.ttl = bad
        for use in (
            lambda: call(way, conversation, "touch", bad),
            lambda: call(way, store.create(), "touch", bad),
            lambda: call(way, store, "touch", "a", bad),
            lambda: call(way, store, "open", "b", ttl=bad),
            lambda: store.create(ttl=bad),
        ):
            with pytest.raises(InvalidConversationValue, match="ttl"):
                use()
        assert store.get("a").ttl == conversation.ttl == 60

    def test_touch_with_a_ttl(self, way: str, store: ConversationStore) -> None:
        conversation = kept(store, "a", ttl=60)
        conversation.ttl = 70
        call(way, conversation, "touch", 90)
        assert not conversation.is_modified, "the later one counts"
        assert (conversation.ttl, store.get("a").ttl) == (90, 90)
        assert call(way, store, "touch", "a", 80) is True
        assert call(way, store, "touch", "absent", 80) is False
        assert store.get("a").ttl == 80
        new = store.create(id="new")
        call(way, new, "touch", 50)
        new["a"] = 1
        call(way, new, "save")
        assert store.get("new").ttl == 50

    def test_for_ever(self, way: str, store: ConversationStore) -> None:
        conversation = kept(store, "a", ttl=math.inf)
        assert (conversation.ttl, conversation.expires_at) == (math.inf, None)
        (summary,) = store.list()
        assert summary.expires_at is None
        again = call(way, store, "get", "a")
        assert (again.ttl, again.expires_at) == (math.inf, None)
        call(way, again, "touch")
        assert again.expires_at is None
        call(way, again, "touch", 60)
        assert again.expires_at is not None
        again.ttl = math.inf
        call(way, again, "save")
        assert (again.expires_at, store.get("a").expires_at) == (None, None)
        assert store.purge().deleted == 0

    def test_a_turn_waits_no_longer_than_its_timeout(
        self, way: str, store: ConversationStore
    ) -> None:
        kept(store, "a")
        first, second = store.get("a"), store.get("a")

        async def aturn() -> None:
            async with second.aturn(timeout=0.05):
                pytest.fail("it is held")

        with first.turn():
            began = time.monotonic()
            with pytest.raises(ConversationBusy):
                if way == "async":
                    asyncio.run(aturn())
                else:
                    with second.turn(timeout=0.05):
                        pytest.fail("it is held")
            assert time.monotonic() - began < store.options.turn_wait / 2

    @pytest.mark.parametrize("bad", [0, -1, True, "5", float("nan"), math.inf])
    def test_a_timeout_of_a_turn_is_a_duration(
        self, way: str, store: ConversationStore, bad: Any
    ) -> None:
        conversation = store.create()
        with pytest.raises(InvalidConversationValue, match="timeout"):
            conversation.turn(timeout=bad) if way == "sync" else conversation.aturn(timeout=bad)


def listed(way: str, store: ConversationStore, *args: Any, **kwargs: Any) -> list[Any]:
    if way == "sync":
        return list(store.list(*args, **kwargs))

    async def alist() -> list[Any]:
        return [summary async for summary in store.alist(*args, **kwargs)]

    return asyncio.run(alist())


class TestList:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    @pytest.mark.parametrize("owner", [None, "u1", User("u1")])
    def test_pages_have_all_of_them_once(
        self, way: str, store: ConversationStore, limit: int, owner: Any
    ) -> None:
        for number in range(7):
            kept(store, f"c{number}", owner="u1")  # some of them in one millisecond
            kept(store, f"d{number}", owner="u2")
        found: list[str] = []
        after = None
        while page := listed(way, store, owner, limit=limit, after=after):
            assert len(page) <= limit
            found += [summary.id for summary in page]
            after = page[-1].cursor
        everything = [summary.id for summary in listed(way, store, owner, limit=100)]
        assert found == everything
        assert len(set(found)) == len(found) == (14 if owner is None else 7)

    def test_newest_saved_first(self, way: str, store: ConversationStore) -> None:
        for id in ("a", "b", "c"):
            kept(store, id)
            time.sleep(0.002)
        store.get("b")  # which saves nothing
        store.append("a", "user", "hi")
        assert [summary.id for summary in listed(way, store, limit=5)] == ["a", "c", "b"]

    def test_what_is_saved_while_pages_are_read_is_not_repeated(
        self, way: str, store: ConversationStore
    ) -> None:
        for number in range(6):
            kept(store, f"c{number}")
            time.sleep(0.002)
        first = listed(way, store, limit=3)
        store.append("c5", "user", "hi")
        kept(store, "new")
        second = listed(way, store, limit=10, after=first[-1].cursor)
        assert [summary.id for summary in (*first, *second)] == [f"c{n}" for n in range(5, -1, -1)]
        store.delete(first[-1].id)
        assert listed(way, store, limit=10, after=first[-1].cursor) == second

    def test_values_of_some_keys(self, way: str, store: ConversationStore) -> None:
        conversation = kept(store, "a")
        conversation["title"] = {"text": "Reise", "tags": ["é"]}
        conversation["secret"] = "s"
        conversation.save()
        kept(store, "b")
        found = listed(way, store, limit=5, keys=["title", "a", "absent"])
        states = {summary.id: summary.state for summary in found}
        assert states == {"a": {"title": {"text": "Reise", "tags": ["é"]}, "a": 1}, "b": {"a": 1}}
        assert all(summary.state == {} for summary in listed(way, store))
        assert "Reise" not in repr(found)

    @pytest.mark.parametrize(
        "bad",
        [{"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": "5"}, {"after": ""}, {"after": 5}],
    )
    def test_what_makes_no_sense_is_refused_at_the_call(
        self, way: str, store: ConversationStore, bad: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidConversationValue):
            store.list(**bad) if way == "sync" else store.alist(**bad)


# Whatever takes an owner.
TAKES_OWNER: list[Any] = [
    lambda way, store, owner: store.create(owner=owner),
    lambda way, store, owner: call(way, store, "get", "nobodys", owner=owner),
    lambda way, store, owner: call(way, store, "peek", "nobodys", owner=owner),
    lambda way, store, owner: call(way, store, "open", "new", owner=owner),
    lambda way, store, owner: call(way, store, "append", "x", "user", "hi", owner=owner),
    lambda way, store, owner: call(way, store, "extend", "x", [{}], owner=owner),
    lambda way, store, owner: listed(way, store, owner),
    lambda way, store, owner: call(way, store, "purge", owner=owner),
    lambda way, store, owner: call(way, store.get("nobodys"), "claim", owner),
]


class TestOwners:
    @pytest.mark.parametrize("use", TAKES_OWNER)
    @pytest.mark.parametrize(
        ("bad", "hint"),
        [
            (
                "None",
                r"str\(user\.pk\) of a visitor who is not logged in\. Write owner=request\.user",
            ),
            (5, r"a string or a user, not int.*write str\(\)"),
            (b"u1", "a string or a user, not bytes"),
            (object(), "a string or a user, not object"),
            ("", "1 to 256 characters"),
            ("x" * 257, "1 to 256 characters"),
            ("a\0b", "NUL"),
        ],
    )
    def test_what_is_no_owner_is_refused(
        self, way: str, store: ConversationStore, use: Any, bad: Any, hint: str
    ) -> None:
        kept(store, "nobodys")
        with pytest.raises(InvalidConversationValue, match=hint):
            use(way, store, bad)
        assert not store.exists("x")

    @pytest.mark.parametrize("pk", [5, "five", uuid.UUID(int=5)])
    def test_a_user_is_known_by_the_primary_key(
        self, way: str, store: ConversationStore, pk: Any
    ) -> None:
        user = User(pk)
        conversation = kept(store, "a", owner=user)
        assert conversation.owner == str(pk)
        for owner in (user, str(pk)):
            assert call(way, store, "get", "a", owner=owner).owner == str(pk)
            assert call(way, store, "open", "a", owner=owner)["a"] == 1
            assert [summary.id for summary in listed(way, store, owner)] == ["a"]
        nobodys = kept(store, "b")
        call(way, nobodys, "claim", user)
        assert store.get("b").owner == str(pk)
        assert call(way, store, "purge", owner=user).deleted == 2

    @pytest.mark.parametrize("nobody", [AnonymousUser(), User(5, is_authenticated=False), None])
    def test_an_anonymous_user_is_nobody(
        self, way: str, store: ConversationStore, nobody: Any
    ) -> None:
        assert kept(store, "nobodys", owner=nobody).owner is None
        kept(store, "theirs", owner="5")
        for id in ("nobodys", "theirs"):
            with pytest.raises(ConversationNotFound):
                call(way, store, "get", id, owner=nobody)
        with pytest.raises(InvalidConversationValue, match="logged in"):
            call(way, store.get("nobodys"), "claim", nobody)
        if nobody is not None:  # None asks for everybody's
            assert listed(way, store, nobody) == []
            with pytest.raises(InvalidConversationValue, match="not logged in"):
                call(way, store, "purge", owner=nobody)
        assert store.exists("nobodys")
