"""What a websocket is told of what others say, and how it stays open."""

import asyncio
import gc
import sys
import tracemalloc
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import channel_layers

from django_convstate import conversations
from django_convstate.backends.records import Change
from tests.support.consumers import Chat, Plain
from tests.support.messages import pairs
from tests.support.tabs import PATIENCE, Browser, contents, id_of, stored, until_slid

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


class TestOtherTabs:
    async def test_other_tabs_hear_a_message(self, browser: Browser) -> None:
        token = stored("before")
        tabs = [await browser.open(token) for _ in range(3)]
        stranger = await browser.open(stored())
        await tabs[0].ask(say="hello")
        for tab in tabs[1:]:
            news = await tab.hear()
            assert contents(news) == ["hello"]
            assert news["count"] == 2
        for tab in (*tabs, stranger):
            assert await tab.receive_nothing()

    async def test_other_tabs_hear_a_half_saved_in_between_first(self, browser: Browser) -> None:
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(say="question", halfway="answer")
        heard = contents(await other.hear())
        while len(heard) < 2:
            heard += contents(await other.hear())
        assert heard == ["question", "answer"]
        assert await tab.receive_nothing()

    async def test_other_tabs_hear_nothing_of_a_change_of_state(self, browser: Browser) -> None:
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(set="a value")
        assert await other.receive_nothing()

    async def test_other_tabs_hear_that_messages_were_truncated(self, browser: Browser) -> None:
        token = stored("one", "two")
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(take_back=1)
        assert await other.hear() == {"type": "conversation.messages", "messages": [], "count": 1}
        await other.ask(take_back=0, say="instead")
        news = await tab.hear()
        assert (contents(news), news["count"]) == (["instead"], 1)

    async def test_a_message_by_http_is_heard_before_the_next_answer(
        self, browser: Browser
    ) -> None:
        token = stored("before")
        tab = await browser.open(token)
        conversation = conversations.get(id_of(token))
        conversation.messages.append("assistant", "by http")
        conversation.save()
        await tab.send_json_to({"say": "and now"})
        assert contents(await tab.hear()) == ["by http"]
        assert (await tab.hear())["count"] == 3

    async def test_racing_tabs_hear_each_message_of_others_once(self, browser: Browser) -> None:
        token = stored()
        tabs = [await browser.open(token) for _ in range(4)]
        for number in range(10):
            for name, tab in enumerate(tabs):
                await tab.send_json_to({"say": f"{name}.{number}"})
        everything = {f"{name}.{number}" for name in range(4) for number in range(10)}
        for name, tab in enumerate(tabs):
            heard: list[str] = []
            answers = 0
            while len(heard) < 30 or answers < 10:
                message = await tab.hear()
                if "type" in message:
                    heard += contents(message)
                else:
                    answers += 1
            own = {text for text in everything if text.startswith(f"{name}.")}
            assert sorted(heard) == sorted(everything - own)
            assert await tab.receive_nothing()
        assert len(conversations.get(id_of(token)).messages) == 40

    async def test_a_message_committed_by_others_during_a_commit_is_heard(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = stored("before")
        tab = await browser.open(token)
        backend = conversations.backend

        def speak_first(id: str) -> None:
            monkeypatch.undo()
            another = conversations.get(id)
            another.messages.append("user", "slipped in")
            another.save()

        def commit(id: str, change: Any) -> Any:
            speak_first(id)
            return backend.commit(id, change)

        async def acommit(id: str, change: Any) -> Any:
            await sync_to_async(speak_first)(id)
            return await backend.acommit(id, change)

        monkeypatch.setattr(backend, "commit", commit)
        monkeypatch.setattr(backend, "acommit", acommit)
        assert (await tab.ask(say="mine"))["count"] == 2
        news = await tab.hear()
        assert (contents(news), news["count"]) == (["slipped in"], 3)

    async def test_a_tab_that_comes_back_has_missed_nothing(self, browser: Browser) -> None:
        token = stored(*map(str, range(250)))
        tab = await browser.open(token, query="?seen=3")
        heard: list[str] = []
        while len(heard) < 247:
            heard += contents(await tab.hear())
        assert heard == [str(number) for number in range(3, 250)]
        assert await tab.receive_nothing()

    async def test_a_tab_that_has_seen_more_than_there_is_is_told_the_count(
        self, browser: Browser
    ) -> None:
        tab = await browser.open(query="?seen=12")
        assert (await tab.hear())["count"] == 0

    @pytest.mark.parametrize("seen", ["", "-1", "x", "1e9", "9" * 40, "²"])
    async def test_an_invalid_number_of_seen_messages_is_ignored(
        self, browser: Browser, seen: str
    ) -> None:
        tab = await browser.open(stored("hello"), query=f"?seen={seen}")
        assert await tab.receive_nothing()

    async def test_without_a_channel_layer_others_are_heard_with_the_next_message(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CHANNEL_LAYERS = {}
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        await tab.ask(say="hello")
        assert await other.receive_nothing()
        await other.send_json_to({"say": "hello, too"})
        assert contents(await other.hear()) == ["hello"]

    async def test_a_closed_socket_leaves_its_group(self, browser: Browser) -> None:
        tab = await browser.open()
        await tab.say("hello")
        layer: Any = channel_layers["default"]
        (group,) = layer.groups
        assert id_of(tab.token) not in group
        await tab.disconnect(timeout=PATIENCE)
        assert layer.groups == {}


class TestStayingOpen:
    async def test_an_open_socket_keeps_its_conversation_alive(self, browser: Browser) -> None:
        token = stored("hello", ttl=3)
        tab = await browser.open(token)
        await until_slid(conversations, id_of(token))
        assert (await tab.ask())["messages"] == ["hello"]

    async def test_a_conversation_deleted_while_the_socket_is_idle_closes_it(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.6}
        token = stored("hello")
        tab = await browser.open(token)
        conversations.delete(id_of(token))
        assert await tab.close_code() == 4404

    async def test_an_unavailable_store_does_not_close_an_idle_socket(
        self, browser: Browser, settings: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.6}
        tab = await browser.open()
        await tab.say("hello")
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.AwayBackend"
        await asyncio.sleep(0.5)
        assert await tab.receive_nothing()

    async def test_messages_replayed_after_an_outage_are_heard_again(
        self, browser: Browser, settings: Any
    ) -> None:
        """For others may have spoken in between."""
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.SwitchedFailover"
        backend: Any = conversations.backend
        tab = await browser.open()
        await tab.say("before")
        backend.primary.away = True
        await tab.say("mine")
        backend.primary.others.commit(
            id_of(tab.token), Change(append=pairs(b'{"role":"user","content":"theirs"}'))
        )
        backend.primary.away = False
        await backend.aclose()
        heard = await tab.ask(say="after")
        assert contents(heard) == ["theirs", "mine"]
        assert heard["count"] == 3
        assert (await tab.hear())["count"] == 4

    async def test_an_idle_new_socket_stores_and_loads_nothing(
        self, browser: Browser, settings: Any, calls: Any
    ) -> None:
        settings.CONVERSATION_STATE = {"TTL": 0.3}
        await browser.open()
        await asyncio.sleep(0.5)
        assert {name.removeprefix("a") for name in calls} == {"load"}

    async def test_an_idle_socket_of_who_has_planted_it_closes_after_the_claim(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_convstate.channels.listening.REJOIN_INTERVAL", 0.3)
        tab = await browser.open(token := stored("planted"))
        assert (await tab.ask())["count"] == 1
        await (await conversations.aget(id_of(token))).aclaim("anna")
        assert await tab.close_code() == 4404

    async def test_membership_is_renewed_before_it_is_forgotten(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_convstate.channels.listening.REJOIN_INTERVAL", 0.3)
        token = stored()
        tab, other = await browser.open(token), await browser.open(token)
        layer: Any = channel_layers["default"]
        layer.groups.clear()
        async with asyncio.timeout(PATIENCE):
            while sum(map(len, layer.groups.values())) < 2:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)
        await tab.ask(say="hello")
        assert contents(await other.hear()) == ["hello"]

    @pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
    async def test_memory_does_not_grow_over_many_messages(self, count: int) -> None:
        browser = Browser(Chat)
        tab = await browser.open()

        async def turns(count: int) -> int:
            for _ in range(count):
                answer = await tab.ask(take_back=0, say="x" * 100)
                assert answer["count"] == 1
            gc.collect()
            return sys.getallocatedblocks()

        await turns(500)
        before = await turns(100)
        after = await turns(count)
        await browser.leave()
        assert after - before < 1000, "not a block of memory for every tenth of 10,000 messages"

    async def test_an_idle_socket_takes_little_memory(self) -> None:
        plain, chat = Browser(Plain), Browser(Chat)
        token = stored(*["x" * 1000] * 50)

        async def size_of(browser: Browser, count: int) -> float:
            gc.collect()
            tracemalloc.start()
            try:
                for _ in range(count):
                    await browser.open(token)
                gc.collect()
                return tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()

        await size_of(plain, 10), await size_of(chat, 10)
        ours = await size_of(chat, 100) - await size_of(plain, 100)
        await plain.leave()
        await chat.leave()
        assert ours < 10 * 1024
