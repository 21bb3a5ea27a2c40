"""Views that are a turn of their conversation."""

import asyncio
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from django_convstate import (
    Conversation,
    conversations,
)
from django_convstate.conversation.conversation import working_copy_of
from django_convstate.decorators import conversation_turn
from django_convstate.middleware import ConversationMiddleware
from tests.support.turns import (
    stored,
)


class TestViews:
    @pytest.fixture(params=["sync", "async"])
    def visit(self, request: pytest.FixtureRequest) -> Any:
        def visit(view: Any, token: str | None = None, **options: Any) -> Any:
            """Have `view(conversation)` answer a request, as a turn of its conversation."""

            def sync_view(request: Any) -> HttpResponse:
                return view(request.conversation)  # type: ignore[no-any-return]

            async def async_view(request: Any) -> HttpResponse:
                return view(await request.aconversation())  # type: ignore[no-any-return]

            http = RequestFactory().get("/")
            if token is not None:
                http.COOKIES["conversation"] = token
            if self_is_async:
                decorated: Any = conversation_turn(**options)(async_view)
                return asyncio.run(ConversationMiddleware(decorated)(http))  # type: ignore[arg-type]
            return ConversationMiddleware(conversation_turn(**options)(sync_view))(http)

        self_is_async = request.param == "async"
        return visit

    def test_a_view_is_a_turn(self, visit: Any) -> None:
        held = []

        def view(conversation: Conversation) -> HttpResponse:
            conversation.incr("count")
            held.append(working_copy_of(conversation).lease is not None)
            return HttpResponse("fine")

        token = visit(view).cookies["conversation"].value
        visit(view, token)
        assert held == [True, True]
        (summary,) = conversations.list()
        assert summary.version == 2
        assert conversations.get(summary.id)["count"] == 2

    def test_a_view_that_fails_commits_nothing(self, visit: Any) -> None:
        def error(conversation: Conversation) -> HttpResponse:
            conversation["a"] = 1
            return HttpResponse("sorry", status=503)

        def crash(conversation: Conversation) -> HttpResponse:
            conversation["a"] = 1
            raise RuntimeError

        assert visit(error).status_code == 503
        with pytest.raises(RuntimeError):
            visit(crash)
        assert list(conversations.list()) == []

    def test_whoever_comes_in_vain_gets_409(self, visit: Any) -> None:
        conversation = stored(conversations)
        with conversation.turn():
            response = visit(lambda _: HttpResponse(), conversation.token, on_busy="reject")
        assert response.status_code == 409
        assert b"under way" in response.content

    def test_without_the_decorator_too(self, client: Any) -> None:
        conversation = stored(conversations)
        client.cookies["conversation"] = conversation.token
        with conversation.turn():
            assert client.get("/sync/in_turn").status_code == 409
        assert client.get("/sync/in_turn").status_code == 200

    def test_with_and_without_parentheses(self) -> None:
        def view(request: Any) -> HttpResponse:
            return HttpResponse(status=500 + len(request.conversation))

        for decorated in (conversation_turn(view), conversation_turn()(view)):
            assert decorated.__name__ == "view"
            assert ConversationMiddleware(decorated)(RequestFactory().get("/")).status_code == 500  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="on_busy"):
            conversation_turn(on_busy="perhaps")  # type: ignore[call-overload]
