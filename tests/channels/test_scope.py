"""The conversation in the scope, and consumers that are not ours."""

import json
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

from django_convstate import ConversationNotFound, conversations
from django_convstate.channels import (
    ConversationMiddleware,
    ConversationMiddlewareStack,
    ScopeConversation,
)
from django_convstate.http.visitor import Visitor
from django_convstate.tokens import sign_id
from tests.support.consumers import Chat, Plain
from tests.support.tabs import PATIENCE, Browser, Tab

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db


class TestTheScope:
    async def test_a_plain_consumer_loads_and_saves_by_the_scope(self) -> None:
        browser = Browser(Plain)
        tab = await browser.open()
        await tab.ask(say="hello")
        assert (await tab.ask(say="again"))["messages"] == ["hello", "again"]
        again = await browser.open(tab.token)
        assert (await again.ask())["count"] == 2
        await browser.leave()

    async def test_attaching_to_the_scope_calls_no_store(self, calls: Any) -> None:
        browser = Browser(Plain)
        await browser.open()
        await browser.open(sign_id("somebody"))
        assert not calls
        await browser.leave()

    async def test_a_conversation_loaded_before_accept_may_begin_anew(self) -> None:
        browser = Browser(Plain)
        tab = await browser.open(sign_id("gone"), query="?early")
        assert tab.token
        await tab.ask(say="hello")
        late = await browser.open(sign_id("gone"))
        await late.send_json_to({"say": "hello"})
        with pytest.raises(ConversationNotFound):
            await late.wait(PATIENCE)
        await browser.leave()

    async def test_session_and_user_are_beside_it(self) -> None:
        seen: dict[str, Any] = {}

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.update(scope)
            await send({"type": "websocket.close"})

        tab = Tab(ConversationMiddlewareStack(application), "/", [(b"origin", b"http://x")])
        await tab.connect(PATIENCE)
        assert seen["user"].is_anonymous
        assert seen["session"].is_empty()
        assert isinstance(seen["conversation"], ScopeConversation)

    async def test_the_stack_works_without_session_and_auth_apps(self, settings: Any) -> None:
        settings.INSTALLED_APPS = ["django_convstate"]
        browser = Browser(Chat)
        tab = await browser.open()
        assert (await tab.ask(say="hello"))["count"] == 1
        await browser.leave()

    async def test_a_forgotten_await_says_what_to_write(self) -> None:
        scope: Any = {"type": "websocket", "path": "/", "headers": []}
        door: Any = ScopeConversation(scope, conversations, Visitor(None))
        for wrong in (
            lambda: door["city"],
            lambda: door.update(city="Jaipur"),
            lambda: door.messages,
            lambda: "city" in door,
            lambda: bool(door),
        ):
            with pytest.raises(SynchronousOnlyOperation, match=r'await scope\["conversation"\]'):
                wrong()
        with pytest.raises(AttributeError):
            _ = door.nonsense
        assert door.id not in repr(door)

    async def test_a_consumer_without_the_stack_says_so(self) -> None:
        tab = Tab(Chat.as_asgi(), "/")
        await tab.send_input({"type": "websocket.connect"})
        with pytest.raises(ImproperlyConfigured, match="ConversationMiddlewareStack"):
            await tab.wait(PATIENCE)

    async def test_other_protocols_pass_through(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)

        seen: list[Any] = []
        scope = {"type": "http"}
        await ConversationMiddleware(application)(scope, None, None)  # type: ignore[arg-type]
        assert seen == [scope]

    def test_news_in_the_channel_layer_are_small(self) -> None:
        assert len(json.dumps({"type": "conversation.news", "count": 2**31, "kept": 2**31})) < 100
