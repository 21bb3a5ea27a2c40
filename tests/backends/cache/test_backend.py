"""What only the cache backend has to deal with: locks, and whatever may be found in a cache."""

import asyncio
import json
import logging
import pickle
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import SynchronousOnlyOperation

from django_convstate import (
    BackendUnavailable,
    ConversationBusy,
    ConversationCorrupt,
    ConversationNotFound,
    ConversationStore,
    InvalidBackend,
    get_backend,
    signals,
)
from django_convstate.backends.cache import document
from django_convstate.backends.cache import lock as cachelock
from django_convstate.backends.cache.backend import CacheBackend
from django_convstate.backends.records import Change
from django_convstate.ids import new_id
from tests.support.documents import (
    ID,
    IMPOSSIBLE_FIELDS,
    check_corrupt,
    check_corrupt_if_cut_off,
)
from tests.support.messages import bodies, pairs
from tests.support.ruler import Stopwatch

tenant: ContextVar[str] = ContextVar("tenant", default="public")


def by_tenant(key: str, prefix: str, version: int) -> str:
    return f"{tenant.get()}:{prefix}:{version}:{key}"


class Explosive:
    """Leaves a trace when it is unpickled."""

    exploded = False

    @classmethod
    def explode(cls) -> "Explosive":
        cls.exploded = True
        return cls()

    def __reduce__(self) -> Any:
        return Explosive.explode, ()


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a document, and what follows it."""
    magic, size = struct.unpack_from(">4sI", data)
    assert magic == b"CVS2"
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def put_together(header: dict[str, Any], contents: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack(">4sI", b"CVS2", len(encoded)) + encoded + contents


def stored(store: ConversationStore) -> str:
    conversation = store.create()
    conversation["city"] = "Jaipur"
    conversation.messages.append("user", "héllo")
    conversation.save()
    return conversation.id


class TestWhatIsStored:
    def test_a_conversation_is_one_document_of_bytes(self, alias: str) -> None:
        store = ConversationStore(get_backend("cache", cache_alias=alias))
        id = stored(store)
        data = caches[alias].get(f"convstate:doc:{id}")
        assert type(data) is bytes
        header, contents = taken_apart(data)
        assert header["id"] == id
        assert header["state"] == [["city", len(b'"Jaipur"')]]
        (size,) = header["messages"]
        assert contents.startswith(b'"Jaipur"')
        assert "héllo".encode() in contents[len(b'"Jaipur"') :][:size]

    def test_a_key_prefix_separates_two_projects(self) -> None:
        ours, theirs = (ConversationStore("cache", key_prefix=name) for name in ("ours", "theirs"))
        id = stored(ours)
        assert ours.exists(id)
        assert not theirs.exists(id)

    @pytest.mark.parametrize("alias", ["default", "file"])
    async def test_a_key_function_of_the_cache_keeps_tenants_apart(
        self, settings: Any, alias: str
    ) -> None:
        entry = settings.CACHES[alias] | {"KEY_FUNCTION": by_tenant}
        settings.CACHES = {**settings.CACHES, alias: entry}
        store = ConversationStore("cache", cache_alias=alias)
        tenant.set("acme")
        conversation = store.create()
        async with conversation.aturn():  # its lease is under a key of its own
            conversation.messages.append("user", "of acme")
        tenant.set("zenith")
        assert not await store.aexists(conversation.id)
        assert not await sync_to_async(store.exists)(conversation.id)
        other = await store.aopen(conversation.id)
        other.messages.append("user", "of zenith")
        await other.asave()
        tenant.set("acme")
        for loaded in (await store.aget(conversation.id), store.get(conversation.id)):
            assert [message["content"] async for message in loaded.messages] == ["of acme"]

    def test_every_key_has_a_ttl(self, valkey: None) -> None:
        store = ConversationStore("cache", cache_alias="django_redis", ttl=100)
        id = stored(store)
        client = caches["django_redis"]
        assert 50 <= client.ttl(f"convstate:doc:{id}") <= 100  # type: ignore[attr-defined]
        assert store.touch(id, 500)
        assert 450 <= client.ttl(f"convstate:doc:{id}") <= 500  # type: ignore[attr-defined]
        store.health()
        left = [client.ttl(key) for key in client.keys("*")]  # type: ignore[attr-defined]
        assert None not in left

    def test_nothing_is_left_locked(self, alias: str) -> None:
        store = ConversationStore(get_backend("cache", cache_alias=alias))
        id = stored(store)
        assert caches[alias].get(f"convstate:lock:{id}") is None


class TestDamage:
    def plant(self, alias: str, id: str, value: Any) -> None:
        caches[alias].set(f"convstate:doc:{id}", value, 60)

    def whole(self) -> bytes:
        store = ConversationStore("cache")
        id = stored(store)
        header, contents = taken_apart(caches["default"].get(f"convstate:doc:{id}"))
        return put_together(header | {"id": ID}, contents)

    def assert_quarantined(self, alias: str, id: str, value: Any) -> None:
        store = ConversationStore(get_backend("cache", cache_alias=alias))
        heard: list[str] = []

        def listen(id: str, **kwargs: Any) -> None:
            heard.append(id)

        signals.conversation_quarantined.connect(listen)
        try:
            with pytest.raises(ConversationCorrupt):
                store.get(id)
        finally:
            signals.conversation_quarantined.disconnect(listen)
        assert heard == [id]
        with pytest.raises(ConversationNotFound):
            store.get(id)
        assert caches[alias].get(f"convstate:corrupt:{id}") == value

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b'{"convstate":2}',
            b'{"convstate":1,"id":ID}',
            pickle.dumps({"state": {}}),
            "text",
            5,
            {"state": {}},
        ],
        ids=repr,
    )
    def test_an_unreadable_value_is_quarantined(
        self, alias: str, value: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.plant(alias, ID, value)
        self.assert_quarantined(alias, ID, value)
        (line,) = [r.getMessage() for r in caplog.records if r.name == "django_convstate"]
        assert "damaged and was quarantined" in line
        assert ID not in line

    def test_a_document_cut_off_at_any_byte_is_corrupt(self) -> None:
        check_corrupt_if_cut_off(self.whole())

    def test_a_document_with_one_byte_changed_is_read_or_corrupt(self) -> None:
        whole = self.whole()
        for position in range(len(whole)):
            for byte in (0, 0x20, 0x22, 0x39, 0x7B, 0xFF):
                damaged = whole[:position] + bytes([byte]) + whole[position + 1 :]
                with suppress(ConversationCorrupt):
                    read = document.parse(ID, damaged)
                    list(read.messages.between(0, 100))  # ids and all

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *IMPOSSIBLE_FIELDS,
            ("messages", [10**6]),
            ("state", [["city", -8]]),
            ("state", [[5, 8]]),
            ("dropped", -1),
            ("last_key", "xyz"),
        ],
    )
    def test_a_field_with_an_impossible_value_is_corrupt(self, field: str, value: Any) -> None:
        header, contents = taken_apart(self.whole())
        check_corrupt(put_together(header | {field: value}, contents))

    def test_a_message_that_is_no_object_is_corrupt(self) -> None:
        backend, id = CacheBackend(), new_id()
        backend.commit(id, Change(append=pairs(b'["no object"]')))
        with pytest.raises(ConversationCorrupt):
            ConversationStore(backend).get(id).messages.window(1)

    def test_a_document_of_another_id_is_quarantined(self) -> None:
        store = ConversationStore("cache")
        theirs = caches["default"].get(f"convstate:doc:{stored(store)}")
        self.plant("default", "mine", theirs)
        self.assert_quarantined("default", "mine", theirs)

    def test_a_pickle_is_not_executed(self, alias: str) -> None:
        Explosive.exploded = False
        bomb = pickle.dumps(Explosive())
        self.plant(alias, "bomb", bomb)
        self.assert_quarantined(alias, "bomb", bomb)
        assert not Explosive.exploded

    def test_bytes_that_the_cache_cannot_unpickle_are_corrupt_and_not_overwritten(
        self, valkey: None
    ) -> None:
        id = new_id()
        backend = CacheBackend(cache_alias="redis")
        cache: Any = caches["redis"]
        raw = cache._cache.get_client(write=True)
        for garbage in (b"\x80", b"", b"\x80\x05garbage", b"cos\nno_such_thing\n."):
            raw.set(cache.make_key(f"convstate:doc:{id}"), garbage, ex=60)
            with pytest.raises(ConversationCorrupt):
                backend.load(id, 1)
            assert raw.get(cache.make_key(f"convstate:doc:{id}")) == garbage, "not overwritten"

    def test_damage_between_load_and_save_is_not_overwritten(self) -> None:
        store = ConversationStore("cache")
        conversation = store.get(stored(store))
        self.plant("default", conversation.id, b"damaged")
        conversation["a"] = 1
        with pytest.raises(ConversationCorrupt):
            conversation.save()
        assert not conversation.is_modified
        assert caches["default"].get(f"convstate:corrupt:{conversation.id}") == b"damaged"

    def test_open_begins_anew_after_damage(self) -> None:
        store = ConversationStore("cache")
        self.plant("default", "telegram:7", b"damaged")
        conversation = store.open("telegram:7")
        conversation["a"] = 1
        conversation.save()
        assert store.get("telegram:7")["a"] == 1


class TestLock:
    def test_a_lock_of_a_dead_process_is_waited_for_until_it_expires(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cachelock, "LOCK_TTL", 1)
        monkeypatch.setattr(cachelock, "ACQUIRE_TIMEOUT", 3.0)
        backend = CacheBackend()
        with Stopwatch() as watch:  # which may take longer to begin than the lock lasts
            caches["default"].add("convstate:lock:a", 1, cachelock.LOCK_TTL)
            started = time.monotonic()
            backend.commit("a", Change(append=pairs(b"1")))
            assert time.monotonic() - started > 0.5
        assert watch.seconds < 2.5

    def test_a_lock_that_stays_held_raises_conversation_busy(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cachelock, "ACQUIRE_TIMEOUT", 0.2)
        caches["default"].add("convstate:lock:busy", 1, 60)
        with pytest.raises(ConversationBusy, match="Nothing was written"):
            CacheBackend().commit("busy", Change(append=pairs(b"1")))
        caches["default"].delete("convstate:lock:busy")

    def test_a_commit_too_slow_to_release_its_turn_is_committed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, id = CacheBackend(), new_id()
        backend.acquire(id, "lease", 60, 1)
        backend.commit(id, Change(append=pairs(b"1")))
        queue = backend._queue

        def slow(id: str) -> Any:
            found = queue(id)
            if bodies(backend.read_messages(id, 0, 9)) == [b"1", b"2"]:  # after the write
                monkeypatch.setattr(cachelock, "LOCK_TTL", 0)
            return found

        monkeypatch.setattr(backend, "_queue", slow)
        committed = backend.commit(id, Change(append=pairs(b"2"), lease="lease", release=True))
        assert committed.message_count == 2
        assert queue(id).is_held_by("lease"), "it expires by itself"

    def test_processes_exclude_each_other_in_a_file_based_cache(self, tmp_path: Any) -> None:
        script = """
import sys, django
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": sys.argv[1]}})
django.setup()
from django_convstate.backends.records import Change
from django_convstate.backends.cache import CacheBackend
for number in range(50):
    message = b"[%d,%d]" % (int(sys.argv[2]), number)
    CacheBackend().commit("a", Change(append=[(message.decode(), message)]))
print(len(CacheBackend().read_messages("a", 0, 9999)))
"""
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path), str(number)],
                stdout=subprocess.PIPE,
            )
            for number in range(4)
        ]
        outputs = [int(worker.communicate(timeout=120)[0]) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * 4
        assert max(outputs) == 200


class Forgetful(LocMemCache):
    """As memcached does with a value over its limit, says nothing and drops the key."""

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(value, bytes) and len(value) > 2000:
            self.delete(key)
        else:
            super().set(key, value, *args, **kwargs)


class TestOutage:
    def test_a_cache_that_silently_drops_a_value_is_noticed(self, settings: Any) -> None:
        settings.CACHES = {"default": {"BACKEND": f"{__name__}.Forgetful"}}
        store = ConversationStore("cache")
        conversation = store.get(stored(store))
        conversation["long"] = "x" * 3000
        with pytest.raises(BackendUnavailable, match="did not keep"):
            conversation.save()
        assert dict(store.get(conversation.id)) == {"city": "Jaipur"}

    def test_an_unreachable_cache_raises_backend_unavailable(self) -> None:
        backend = CacheBackend(cache_alias="unreachable")
        for call in (
            lambda: backend.load("a", 1),
            lambda: backend.exists("a"),
            lambda: backend.delete("a"),
            lambda: backend.touch("a"),
            lambda: backend.commit("a", Change(append=pairs(b"1"))),
            lambda: backend.read_messages("a", 0, 1),
        ):
            with pytest.raises(BackendUnavailable, match="'unreachable'"):
                call()
        health = backend.health()
        assert not health.connected
        assert health.latency_ms is None
        assert "cannot be reached" in health.detail

    def test_a_wrong_url_raises_backend_unavailable(self, settings: Any) -> None:
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": "no-such-scheme://x",
            }
        }
        with pytest.raises(BackendUnavailable):
            CacheBackend().load("a", 1)

    @pytest.mark.django_db
    def test_a_database_cache_in_the_event_loop_raises_synchronous_only_operation(self) -> None:
        async def view() -> None:
            CacheBackend(cache_alias="database").load("a", 1)

        with pytest.raises(SynchronousOnlyOperation):
            asyncio.run(view())

    def test_a_missing_alias_raises_invalid_backend(self) -> None:
        with pytest.raises(InvalidBackend, match="'nowhere'"):
            CacheBackend(cache_alias="nowhere").load("a", 1)

    def test_a_dummy_cache_is_not_healthy(self) -> None:
        assert not CacheBackend(cache_alias="dummy").health().connected

    def test_no_error_or_log_shows_the_password(
        self, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": "redis://:hunter2@127.0.0.1:1/0",
            }
        }
        caplog.set_level(logging.DEBUG)
        with pytest.raises(BackendUnavailable) as caught:
            CacheBackend().load("a", 1)
        assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
        assert "hunter2" not in CacheBackend().health().detail


def test_saving_leaves_no_thread(alias: str) -> None:
    before = threading.active_count()
    stored(ConversationStore(get_backend("cache", cache_alias=alias)))
    assert threading.active_count() == before
