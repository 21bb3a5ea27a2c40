"""Saving, reloading, claiming and deleting a Conversation."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.template import Context, Template

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationConflict,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationStore,
    InvalidConversationValue,
    conversations,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change
from tests.support.backends import LosesReplies, LosesRequests, record_of
from tests.support.conversations import contents
from tests.support.messages import bodies, pairs


class TestSaving:
    def test_an_empty_conversation_is_not_stored(self) -> None:
        conversation = conversations.create(owner="u1", ttl=60)
        conversation.save()
        assert conversation.is_new
        assert conversation.expires_at is None
        assert not conversations.exists(conversation.id)

    def test_a_save_sets_version_expiry_and_flags(self) -> None:
        conversation = conversations.create(owner="u1", ttl=60)
        conversation["a"] = 1
        assert (conversation.is_new, conversation.is_modified) == (True, True)
        conversation.save()
        assert (conversation.is_new, conversation.is_modified) == (False, False)
        again = conversations.get(conversation.id)
        for known in (conversation, again):
            assert (known.owner, known.version, known.ttl) == ("u1", 1, 60)
            assert known.created_at is not None
            assert known.expires_at is not None
            assert known.last_accessed is not None
            left = (known.expires_at - datetime.now(UTC)).total_seconds()
            assert 50 < left <= 60
            assert not known.degraded

    def test_saves_of_two_handles_lose_nothing(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        saved["a"] = 1
        saved.messages.append("user", "a")
        other["b"] = 2
        other.messages.append("user", "b")
        saved.save()
        other.save()
        result = conversations.get(saved.id)
        assert (result["a"], result["b"]) == (1, 2)
        assert contents(result)[-2:] == ["a", "b"]

    def test_a_save_with_another_expected_version_conflicts(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        other["a"] = "theirs"
        other.save(expected_version=other.version)
        saved["a"] = "ours"
        with pytest.raises(ConversationConflict):
            saved.save(expected_version=saved.version)
        assert not saved.is_modified, "what was refused is not sent behind one's back"
        saved.reload()
        assert saved["a"] == "theirs"

    @pytest.mark.parametrize("bad", ["1", 1.0, True])
    def test_an_expected_version_must_be_an_integer(self, saved: Conversation, bad: Any) -> None:
        saved["a"] = 1
        with pytest.raises(TypeError, match="expected version"):
            saved.save(expected_version=bad)
        saved.save()

    @pytest.mark.parametrize(
        "version", [2**31, 2**53, 2**53 + 1, 10**4000], ids=["2^31", "2^53", "beyond", "far beyond"]
    )
    def test_an_expected_version_may_come_from_a_client(
        self, store: ConversationStore, version: int
    ) -> None:
        conversation = store.create()
        conversation["a"] = 1
        conversation.save()
        conversation["a"] = 2
        error = InvalidConversationValue if version > 2**53 else ConversationConflict
        with pytest.raises(error):
            conversation.save(expected_version=version)
        with pytest.raises(error):
            store.delete(conversation.id, expected_version=version)
        assert store.get(conversation.id)["a"] == 1

    def test_an_expected_version_is_checked_when_a_failed_save_is_sent_again(self) -> None:
        backend = LosesRequests()
        store = ConversationStore(backend)
        ours = store.create()
        ours["a"] = 1
        ours.save()
        ours["a"] = "ours"
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            ours.save(expected_version=ours.version)
        theirs = store.get(ours.id)
        theirs["a"] = "theirs"
        theirs.save()
        with pytest.raises(ConversationConflict):
            ours.save()
        assert store.get(ours.id)["a"] == "theirs"

    def test_two_queued_changes_are_checked_one_after_the_other(self) -> None:
        backend = LosesRequests()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        for value in (2, 3):
            conversation["a"] = value
            backend.to_lose = 1
            with pytest.raises(BackendUnavailable):
                conversation.save(expected_version=conversation.version)
        conversation["a"] = 4
        conversation.save(expected_version=conversation.version)
        assert conversation.version == 4
        assert ConversationStore(backend).get(conversation.id)["a"] == 4

    def test_a_pop_after_a_failed_save_drops_the_own_message(self) -> None:
        backend = LosesRequests()
        store = ConversationStore(backend)
        ours = store.create()
        ours.messages.append("user", "0")
        ours.save()
        ours.messages.append("user", "mine")
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            ours.save()
        theirs = store.get(ours.id)
        theirs.messages.append("user", "theirs")
        theirs.save()
        ours.messages.pop()
        ours.save()
        assert contents(store.get(ours.id)) == ["0", "theirs"]

    def test_what_is_said_after_a_failed_save_is_no_part_of_what_waits(self) -> None:
        backend = LosesRequests()
        conversation = ConversationStore(backend).create()
        conversation.messages.append("user", "taken back")
        conversation.save()
        conversation.messages.pop()
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            conversation.save()
        conversation.messages.append("user", "once")
        conversation.save()
        assert contents(conversation) == ["once"]
        assert contents(ConversationStore(backend).get(conversation.id)) == ["once"]

    def test_what_was_loaded_stays_while_two_changes_are_answered(self) -> None:
        class Counts(LosesRequests):
            reads = 0

            def read_messages(self, *args: Any) -> Any:
                self.reads += 1
                return super().read_messages(*args)

        backend = Counts()
        store = ConversationStore(backend, window=3)
        first = store.create()
        first.messages.append("user", "0", id="m0")
        first.messages.append("user", "1", id="m1")
        for number in range(2, 6):
            first.messages.append("user", str(number))
        first.save()
        conversation = store.get(first.id)
        conversation.messages.append("user", "6")
        conversation.messages.append("user", "7")
        backend.to_lose = 1
        with pytest.raises(BackendUnavailable):
            conversation.save()
        for id in ("m0", "m1"):  # which are stored, and in no window
            conversation.messages.append("user", "again", id=id)
        conversation.save()
        window = [message["content"] for message in conversation.messages.window(3)]
        assert window == ["5", "6", "7"]
        assert not backend.reads

    def test_a_value_changed_back_and_forth_around_a_failed_save_is_saved(
        self, saved: Conversation
    ) -> None:
        saved["a"] = [1, 5]
        saved.save()
        saved["a"] = [1]
        saved["a"].append(5)
        saved.save()
        assert not saved.is_modified
        saved["a"].pop()
        assert saved.is_modified
        saved.save()
        assert conversations.get(saved.id)["a"] == [1]

    def test_templates_cannot_call_what_alters_data(self, saved: Conversation) -> None:
        shown = Template(
            "{{ c.city }} {{ c.messages.0.content }} {{ c.delete }}{{ c.messages.clear }}"
        ).render(Context({"c": saved}))
        assert shown == "Jaipur message 0 "
        assert conversations.exists(saved.id)
        assert len(saved.messages) == 10

    def test_unknown_attributes_are_refused(self, saved: Conversation) -> None:
        with pytest.raises(AttributeError):
            saved.title = "lost"  # type: ignore[attr-defined]

    def test_a_save_of_what_was_deleted_meanwhile_is_interrupted(self, saved: Conversation) -> None:
        conversations.delete(saved.id)
        saved["a"] = 1
        with pytest.raises(ConversationInterrupted):
            saved.save()
        assert not conversations.exists(saved.id)

    def test_delete_begins_anew(self, saved: Conversation) -> None:
        old = saved.id
        saved["unsaved"] = 1
        saved.delete()
        assert not conversations.exists(old)
        assert (len(saved), len(saved.messages), saved.is_new) == (0, 0, True)
        saved.save()
        assert not conversations.exists(saved.id)
        saved["a"] = 1
        saved.save()
        assert saved.id != old
        assert conversations.get(saved.id)["a"] == 1

    def test_reload_forgets_what_was_not_saved(self, saved: Conversation) -> None:
        messages = saved.messages
        saved["a"] = 1
        messages.append("user", "unsaved")
        saved.reload()
        assert "a" not in saved
        assert len(messages) == len(saved.messages) == 10
        conversations.delete(saved.id)
        with pytest.raises(ConversationNotFound):
            saved.reload()

    def test_touch_of_a_new_conversation_stores_nothing(self) -> None:
        conversation = conversations.create()
        conversation.touch()
        assert conversation.expires_at is None

    def test_touch_does_not_exceed_the_max_age(self) -> None:
        conversation = ConversationStore("locmem", max_age=100).create()
        conversation["a"] = 1
        conversation.save()
        conversation.touch()
        assert conversation.expires_at is not None
        assert (conversation.expires_at - datetime.now(UTC)).total_seconds() <= 100

    def test_touch_extends_the_ttl(self, saved: Conversation) -> None:
        before = saved.expires_at
        saved.touch()
        assert saved.expires_at is not None
        assert before is not None
        assert saved.expires_at >= before
        conversations.delete(saved.id)
        with pytest.raises(ConversationInterrupted):
            saved.touch()

    def test_claim_sets_an_owner_once(self, saved: Conversation) -> None:
        saved.claim("u1")
        saved.claim("u1")
        assert conversations.get(saved.id).owner == saved.owner == "u1"
        with pytest.raises(ConversationConflict):
            saved.claim("u2")
        unaware = conversations.create()
        unaware.claim("u3")
        assert not conversations.exists(unaware.id)
        unaware["a"] = 1
        unaware.save()
        assert conversations.get(unaware.id).owner == "u3"

    def test_the_second_of_two_claims_conflicts(self, saved: Conversation) -> None:
        other = conversations.get(saved.id)
        other["secret"] = "of u2"
        saved.claim("u1")
        with pytest.raises(ConversationConflict):
            other.claim("u2")
        assert other.owner is None
        again = conversations.get(saved.id)
        assert again.owner == "u1"
        assert "secret" not in again

    def test_a_claim_by_the_owner_calls_no_store(self, saved: Conversation) -> None:
        saved.claim("u1")
        version = saved.version
        saved.claim("u1")
        assert conversations.get(saved.id).version == version

    @pytest.mark.parametrize("bad", ["", "x" * 257, "\ud800", None, 5, b"u1"])
    def test_an_invalid_owner_is_refused(self, saved: Conversation, bad: Any) -> None:
        for use in (
            lambda: saved.claim(bad),
            lambda: conversations.create(owner=bad),
            lambda: conversations.get("absent", owner=bad),
            lambda: conversations.purge(owner=bad),
        ):
            if bad is None and use.__code__.co_names[0] == "conversations":
                continue  # None means nobody there
            with pytest.raises(InvalidConversationValue, match="owner"):
                use()
        assert conversations.get(saved.id).owner is None

    def test_cycle_id_moves_the_conversation(self, saved: Conversation) -> None:
        old, token = saved.id, saved.token
        saved["unsaved"] = 1
        saved.claim("u1")
        saved.cycle_id()
        assert saved.id != old
        assert saved.token != token
        assert not conversations.exists(old)
        again = conversations.get(saved.id)
        assert dict(again) == dict(saved)
        assert again["unsaved"] == 1
        assert (again.owner, again.ttl) == ("u1", 3600)
        assert contents(again) == [f"message {n}" for n in range(10)]

    def test_cycle_id_loses_nothing_of_another_writer(self) -> None:
        class Interfered(LocMemBackend):
            """Another writer comes between the save and the move."""

            def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
                theirs = pairs(b'{"role":"user","content":"theirs"}')
                super().commit(id, Change(append=theirs))
                return super().rename(id, new_id, expected_version)

        backend = Interfered()
        conversation = ConversationStore(backend).create()
        conversation.messages.append("user", "ours")
        conversation.save()
        conversation.cycle_id()
        assert contents(ConversationStore(backend).get(conversation.id)) == ["ours", "theirs"]
        assert [summary.id for summary in backend.scan()] == [conversation.id]

    def test_cycle_id_of_what_was_deleted_is_interrupted(self) -> None:
        class Interfered(LocMemBackend):
            def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
                self.delete(id)
                return super().rename(id, new_id, expected_version)

        backend = Interfered()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        with pytest.raises(ConversationNotFound):
            conversation.cycle_id()
        assert list(backend.scan()) == [], "what somebody deleted does not live on"

    def test_cycle_id_whose_reply_is_lost_loses_nothing(self) -> None:
        class Loses(LocMemBackend):
            lost = False

            def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
                renamed = super().rename(id, new_id, expected_version)
                if not self.lost:
                    self.lost = True
                    raise BackendUnavailable("The reply was lost.")
                return renamed

        backend = Loses()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        conversation.cycle_id()
        assert backend.lost
        assert [summary.id for summary in backend.scan()] == [conversation.id]

    def test_cycle_id_of_which_no_reply_comes_leaves_it_where_it_can_be_found(self) -> None:
        class Away(LocMemBackend):
            def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
                raise BackendUnavailable("The request was lost.")

        backend = Away()
        conversation = ConversationStore(backend).create()
        conversation["a"] = 1
        conversation.save()
        with pytest.raises(BackendUnavailable):
            conversation.cycle_id()
        assert [summary.id for summary in backend.scan()] == [conversation.id]
        conversation["a"] = 2
        conversation.save()
        assert ConversationStore(backend).get(conversation.id)["a"] == 2

    def test_a_save_whose_reply_is_lost_is_applied_once(self) -> None:
        backend = LosesReplies()
        store = ConversationStore(backend)
        conversation = store.create()
        conversation.incr("n")
        conversation.messages.append("user", "once")
        backend.to_lose = 2
        for _ in range(2):
            with pytest.raises(Exception, match="lost"):
                conversation.save()
        assert conversation.is_modified
        conversation.incr("n")
        conversation.messages.append("user", "and this")
        conversation.save()
        assert not conversation.is_modified
        record = record_of(backend, conversation.id)
        assert record.state == {"n": b"2"}
        assert [json.loads(m)["content"] for m in bodies(record.messages)] == ["once", "and this"]
        assert contents(conversation) == ["once", "and this"]

    def test_two_tasks_that_save_one_handle_lose_nothing(self) -> None:
        class Slow(LocMemBackend):
            async def acommit(self, id: str, change: Change) -> Any:
                await asyncio.sleep(0.01)
                return self.commit(id, change)

        async def visit() -> list[str]:
            conversation = ConversationStore(Slow()).create()
            conversation.messages.append("user", "1")
            first = asyncio.create_task(conversation.asave())
            await asyncio.sleep(0)
            conversation.messages.append("user", "2")
            await asyncio.gather(first, conversation.asave(), conversation.asave())
            assert not conversation.is_modified
            await conversation.areload()
            return contents(conversation)

        assert asyncio.run(visit()) == ["1", "2"]

    def test_a_save_cancelled_on_its_way_can_be_repeated(self) -> None:
        class Slow(LocMemBackend):
            async def acommit(self, id: str, change: Change) -> Any:
                answer = self.commit(id, change)
                await asyncio.sleep(0.01)
                return answer

        async def visit() -> list[str]:
            conversation = ConversationStore(Slow()).create()
            conversation.messages.append("user", "once")
            task = asyncio.create_task(conversation.asave())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert conversation.is_modified
            await conversation.asave()
            await conversation.areload()
            return contents(conversation)

        assert asyncio.run(visit()) == ["once"]

    def test_bad_nested_values_leave_everything_as_it_was(self, saved: Conversation) -> None:
        saved["preferences"]["budget"] = float("nan")
        saved.messages.append("user", "good")
        with pytest.raises(InvalidConversationValue, match=r'state\["preferences"\]\["budget"\]'):
            saved.save()
        assert contents(conversations.get(saved.id))[-1] == "message 9"
        saved["preferences"]["budget"] = 100
        saved.save()
        again = conversations.get(saved.id)
        assert again["preferences"]["budget"] == 100
        assert contents(again)[-1] == "good"
