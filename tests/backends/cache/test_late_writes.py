"""A write that comes late, because its process or its packet was paused, undoes nothing that others
have committed meanwhile."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from django_convstate import (
    BackendUnavailable,
    ConversationBusy,
    ConversationNotFound,
    ConversationStore,
)
from django_convstate.backends.cache import lock as cachelock
from django_convstate.backends.cache.backend import CacheBackend
from django_convstate.backends.cache.epochs import SEAL_SECONDS
from django_convstate.backends.records import Change
from django_convstate.backends.toolkit.writer import lone_commit
from django_convstate.exceptions import ConversationInterrupted
from django_convstate.ids import new_id
from tests.support.messages import bodies, pairs

COMMITS = 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits takes a lock away soon; it is safe at any time."""
    monkeypatch.setattr(cachelock, "LOCK_TTL", 0.05)
    # Other processes have queues of their own: here all are in one.
    monkeypatch.setattr(cachelock, "_at_head", lambda key, deadline: nullcontext())


def said(*words: str) -> Change:
    return Change(append=pairs(*(b'"%b"' % word.encode() for word in words)))


def read(alias: str, id: str) -> list[str]:
    return [
        body.decode().strip('"')
        for body in bodies(CacheBackend(cache_alias=alias).read_messages(id, 0, 999))
    ]


class Late:
    """The next write of a document is late: `meanwhile` runs before it. Or it gets no answer, and
    comes when `arrive` is called."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        alias: str,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        cache = caches[alias]
        set_: Callable[..., Any] = cache.set
        self.arguments: tuple[Any, ...] = ()

        def late(key: str, *args: Any, **kwargs: Any) -> Any:
            if ":doc" not in key or self.arguments:
                return set_(key, *args, **kwargs)
            self.arguments = (key, *args)
            if meanwhile is None:
                raise TimeoutError
            meanwhile()
            return set_(key, *args, **kwargs)

        self._set = set_
        monkeypatch.setattr(cache, "set", late)

    def arrive(self) -> None:
        self._set(*self.arguments)


class TestLateCommit:
    def test_a_paused_writer_undoes_nothing_and_its_change_is_kept_once(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(cache_alias=alias), new_id()
        backend.commit(id, said("first"))
        Late(monkeypatch, alias, lambda: CacheBackend(cache_alias=alias).commit(id, said("theirs")))
        committed = backend.commit(id, said("late"))
        assert (committed.version, committed.message_count) == (3, 3)
        assert read(alias, id) == ["first", "theirs", "late"]

    def test_the_first_commit_may_be_late(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = new_id()
        Late(monkeypatch, alias, lambda: CacheBackend(cache_alias=alias).commit(id, said("theirs")))
        CacheBackend(cache_alias=alias).commit(id, said("late"))
        assert read(alias, id) == ["theirs", "late"]

    async def test_asyncio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend, id = CacheBackend(), new_id()
        await backend.acommit(id, said("first"))
        set_, is_late = LocMemCache.set, False

        def late(cache: Any, key: str, *args: Any, **kwargs: Any) -> None:
            nonlocal is_late
            if ":doc" in key and not is_late:
                is_late = True
                CacheBackend().commit(id, said("theirs"))
            set_(cache, key, *args, **kwargs)

        monkeypatch.setattr(LocMemCache, "set", late)
        await backend.acommit(id, said("late"))
        assert bodies(await backend.aread_messages(id, 0, 9)) == [
            b'"first"',
            b'"theirs"',
            b'"late"',
        ]

    def test_what_got_no_answer_may_come_after_what_others_have_committed(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(cache_alias=alias), new_id()
        backend.commit(id, said("first"))
        late = Late(monkeypatch, alias)
        change = said("late")
        with pytest.raises(BackendUnavailable):
            backend.commit(id, change)
        monkeypatch.setattr(cachelock, "LOCK_TTL", 60)  # nobody has to wait for that
        backend.commit(id, said("theirs"))
        late.arrive()
        assert read(alias, id) == ["first", "theirs"]
        backend.commit(id, change)
        late.arrive()
        assert read(alias, id) == ["first", "theirs", "late"]

    def test_what_has_come_before_others_commit_counts_and_is_kept_once(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(cache_alias=alias), new_id()
        late = Late(monkeypatch, alias)
        change = said("late")
        with pytest.raises(BackendUnavailable):
            backend.commit(id, change)
        late.arrive()
        backend.commit(id, said("theirs"))
        assert backend.commit(id, change).repeated
        assert read(alias, id) == ["late", "theirs"]

    def test_a_holder_that_died_is_waited_for_and_its_write_does_not_count(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(cache_alias=alias), new_id()
        backend.commit(id, said("first"))
        old = caches[alias].get(f"convstate:doc:{id}")
        caches[alias].add(f"convstate:lock:{id}", "of the dead", 60)
        backend.commit(id, said("second"))
        caches[alias].set(f"convstate:doc:{id}", old, 60)
        assert read(alias, id) == ["first", "second"]


def test_a_cache_that_keeps_no_seal_is_waited_for_no_longer_than_for_a_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, id = caches["default"], new_id()
    cache.add(f"convstate:lock:{id}", "of the dead", 60)
    monkeypatch.setattr(cachelock, "ACQUIRE_TIMEOUT", 0.2)
    # As a database does whose table is locked.
    monkeypatch.setattr(cache, "add", lambda *args, **kwargs: False)
    with pytest.raises(ConversationBusy):
        CacheBackend().commit(id, said("word"))


class TestOtherLateWrites:
    @pytest.fixture
    def backend(self, alias: str) -> CacheBackend:
        return CacheBackend(cache_alias=alias)

    def run_late(
        self, monkeypatch: pytest.MonkeyPatch, backend: CacheBackend, write: Callable[[], object]
    ) -> Late:
        late = Late(monkeypatch, backend.cache_alias)
        with pytest.raises(BackendUnavailable):
            write()
        return late

    def test_a_deletion(self, backend: CacheBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        id = new_id()
        backend.commit(id, said("first"))
        late = self.run_late(monkeypatch, backend, lambda: backend.delete(id))
        backend.commit(id, said("second"))
        late.arrive()
        assert read(backend.cache_alias, id) == ["first", "second"]

    def test_a_paused_deletion_does_not_claim_to_be_one(
        self, backend: CacheBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = new_id()
        backend.commit(id, said("first"))
        other = CacheBackend(cache_alias=backend.cache_alias)
        Late(monkeypatch, backend.cache_alias, lambda: other.commit(id, said("second")))
        with pytest.raises(BackendUnavailable, match="not known"):
            backend.delete(id)
        assert read(backend.cache_alias, id) == ["first", "second"]
        assert backend.delete(id)
        assert not backend.exists(id)

    def test_a_touch(self, backend: CacheBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        id = new_id()
        backend.commit(id, said("first"))
        late = self.run_late(monkeypatch, backend, lambda: backend.touch(id, 500))
        backend.commit(id, said("second"))
        late.arrive()
        assert read(backend.cache_alias, id) == ["first", "second"]

    def test_a_move_to_a_new_id(
        self, backend: CacheBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id, new = new_id(), new_id()
        backend.commit(id, said("first"))
        late = self.run_late(monkeypatch, backend, lambda: backend.rename(id, new))
        assert backend.rename(id, new)
        backend.commit(new, said("second"))
        late.arrive()
        assert read(backend.cache_alias, new) == ["first", "second"]
        assert not backend.exists(id)

    def test_a_restoration(self, backend: CacheBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        id, new = new_id(), new_id()
        backend.commit(id, said("first"))
        record = backend.load(id, 9)
        assert record is not None
        late = self.run_late(
            monkeypatch, backend, lambda: backend.restore(new, record, record.messages)
        )
        backend.restore(new, record, record.messages)
        backend.commit(new, said("second"))
        late.arrive()
        assert read(backend.cache_alias, new) == ["first", "second"]

    def test_a_conversation_that_was_deleted_does_not_come_back(
        self, backend: CacheBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = new_id()
        backend.commit(id, said("first"))
        late = self.run_late(monkeypatch, backend, lambda: backend.commit(id, said("late")))
        assert backend.delete(id)
        late.arrive()
        assert not backend.exists(id)
        assert backend.load(id, 9) is None
        change = said("later")
        change.unless_deleted = True
        with pytest.raises(ConversationInterrupted):
            backend.commit(id, change)


class TestAfterwards:
    def in_doubt(
        self, monkeypatch: pytest.MonkeyPatch, backend: CacheBackend, id: str, count: int = 1
    ) -> None:
        for _ in range(count):
            with monkeypatch.context() as patch:
                Late(patch, backend.cache_alias)
                with pytest.raises(BackendUnavailable):
                    backend.commit(id, said("never came"))

    def test_it_is_there_before_somebody_writes_again(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ConversationStore(CacheBackend(cache_alias=alias))
        conversation = store.create()
        conversation.messages.append("user", "first")
        conversation.save()
        self.in_doubt(monkeypatch, CacheBackend(cache_alias=alias), conversation.id, 3)
        assert store.exists(conversation.id)
        assert store.peek(conversation.id).messages[0]["content"] == "first"
        conversation = store.get(conversation.id)
        with conversation.turn():
            conversation.messages.append("user", "second")
        assert [m["content"] for m in store.get(conversation.id).messages] == ["first", "second"]
        new = conversation.cycle_id() or conversation.id
        assert [m["content"] for m in store.get(new).messages] == ["first", "second"]
        store.delete(new)
        with pytest.raises(ConversationNotFound):
            store.get(new)

    def test_what_is_not_copied_yet_is_copied_by_the_next_one(
        self, alias: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(cache_alias=alias), new_id()
        backend.commit(id, said("first"))
        self.in_doubt(monkeypatch, backend, id)
        cache = caches[alias]
        set_ = cache.set

        def dies(key: str, *args: Any, **kwargs: Any) -> Any:
            if ":sealed" in key:  # after it has copied the document
                raise KeyboardInterrupt
            return set_(key, *args, **kwargs)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(cache, "set", dies)
            backend.commit(id, said("never came"))
        assert read(alias, id) == ["first"]
        backend.commit(id, said("second"))
        assert read(alias, id) == ["first", "second"]

    def test_every_key_has_a_ttl_and_the_seal_outlives_the_document(
        self, valkey: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(cache_alias="django_redis"), new_id()
        client: Any = caches["django_redis"]
        self.in_doubt(monkeypatch, backend, id)
        change = said("first")
        change.ttl = 100
        backend.commit(id, change)
        seal, doc = f"convstate:sealed:{id}", f"convstate:doc.1:{id}"
        assert 50 <= client.ttl(doc) <= 100
        assert SEAL_SECONDS + 50 <= client.ttl(seal) <= SEAL_SECONDS + 100
        assert backend.touch(id, 500)
        assert SEAL_SECONDS + 450 <= client.ttl(seal) <= SEAL_SECONDS + 500
        client.expire(seal, 5)
        client.expire(doc, 5)
        assert backend.load(id, 1) is not None
        assert SEAL_SECONDS + 450 <= client.ttl(seal) <= SEAL_SECONDS + 500
        assert 450 <= client.ttl(doc) <= 500
        assert backend.delete(id)
        assert client.ttl(seal) > client.ttl(doc)
        assert None not in [client.ttl(key) for key in client.keys(f"*{id}")]

    def test_an_id_that_ends_like_an_epoch_is_another_conversation(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = CacheBackend()
        ids = ["telegram", "telegram:1", "1:telegram", "telegram.1"]
        for id in ids:
            backend.commit(id, said(id))
            self.in_doubt(monkeypatch, backend, id)
            backend.commit(id, said(id))
        assert [read("default", id) for id in ids] == [[id, id] for id in ids]
        for id in ids:
            backend.delete(id)


class TestCost:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []

        def counted(name: str) -> Callable[..., Any]:
            method = getattr(caches["default"], name)

            def call(*args: Any, **kwargs: Any) -> Any:
                is_outermost = not depth
                depth.append(1)
                if is_outermost:
                    calls.append(name)
                try:
                    return method(*args, **kwargs)
                finally:
                    depth.pop()

            return call

        depth: list[int] = []
        for name in ("add", "get", "get_many", "set", "touch", "delete"):
            monkeypatch.setattr(caches["default"], name, counted(name))
        return calls

    def test_loading_takes_two_calls_and_a_commit_five(self, calls: list[str]) -> None:
        backend, id = CacheBackend(), new_id()
        backend.commit(id, said("first"))
        assert calls == ["add", "get_many", "set", "get_many", "delete"]
        calls.clear()
        backend.load(id, 9)
        assert calls == ["get_many", "touch"]

    def test_many_epochs_take_as_many_calls_as_one(
        self, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = CacheBackend()
        counts = []
        for epochs in (1, 10):
            id = new_id()
            for _ in range(epochs):
                TestAfterwards().in_doubt(monkeypatch, backend, id)
                backend.commit(id, said("word"))
            calls.clear()
            backend.load(id, 9)
            backend.commit(id, said("last"))
            counts.append(len(calls))
        assert counts[0] == counts[1] <= 13


class Adverse(LocMemCache):
    """What it is given is now and then late, or comes after its caller has given up, or never; and
    its callers are paused before and after a call."""

    chance = random.Random(0)
    late: list[threading.Timer] = []  # noqa: RUF012 - of all threads

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        fate = self.chance.random()
        if fate < 0.02:
            timer = threading.Timer(self.chance.expovariate(20), method, args)
            self.late.append(timer)
            timer.start()
            raise TimeoutError
        if fate < 0.03:
            raise ConnectionError
        if fate < 0.06:
            time.sleep(self.chance.expovariate(20))
        found = method(*args)
        if fate > 0.99:  # the reply is lost
            raise TimeoutError
        if fate > 0.96:
            time.sleep(self.chance.expovariate(20))
        return found

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(super().get, *args)

    def set(self, *args: Any, **kwargs: Any) -> None:
        self._call(super().set, *args)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(super().add, *args)

    def touch(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(super().touch, *args)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(super().delete, *args)


class TestStorm:
    @pytest.fixture
    def adverse(self, settings: Any) -> Iterator[str]:
        entry = {"BACKEND": f"{__name__}.Adverse", "OPTIONS": {"MAX_ENTRIES": 99_999}}
        settings.CACHES = {**settings.CACHES, "adverse": entry | {"LOCATION": new_id()}}
        yield "adverse"
        for timer in Adverse.late:
            timer.join()
        Adverse.late.clear()

    def write(self, alias: str, id: str, name: str) -> None:
        """Commit so often, each change until it is acknowledged."""
        backend = CacheBackend(cache_alias=alias)
        for number in range(COMMITS):
            change = said(f"{name}{number}")
            change.commit = lone_commit()
            while True:
                with suppress(BackendUnavailable, ConversationBusy):
                    backend.commit(id, change)
                    break

    @pytest.mark.parametrize("seed", range(3))
    def test_what_was_acknowledged_is_there_once_and_in_order(
        self, adverse: str, monkeypatch: pytest.MonkeyPatch, seed: int
    ) -> None:
        monkeypatch.setattr(Adverse, "chance", random.Random(seed))
        id = new_id()
        threads = [threading.Thread(target=self.write, args=(adverse, id, name)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for timer in Adverse.late:
            timer.join()
        monkeypatch.setattr(Adverse, "_call", lambda self, method, *args: method(*args))
        words = read(adverse, id)
        for name in "abcd":
            mine = [word for word in words if word.startswith(name)]
            assert mine == [f"{name}{number}" for number in range(COMMITS)]
        assert int(caches[adverse].get(f"convstate:sealed:{id}")) > 1, "there were late writes"
