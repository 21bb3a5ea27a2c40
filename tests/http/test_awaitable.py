"""What `request.aconversation()` says to whoever forgets the await."""

import asyncio
import gc
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import AsyncRequestFactory

from django_convstate.middleware import ConversationMiddleware


class TestForgottenAwait:
    @pytest.mark.parametrize(
        "use",
        [
            lambda conversation: conversation["city"],
            lambda conversation: conversation.messages,
            lambda conversation: conversation.save(),
            lambda conversation: conversation.update(a=1),
            lambda conversation: "city" in conversation,
            lambda conversation: list(conversation),
            lambda conversation: len(conversation),
            lambda conversation: bool(conversation),
        ],
    )
    async def test_says_what_to_write(self, use: Any) -> None:
        async def view(request: Any) -> HttpResponse:
            use(request.aconversation())
            return HttpResponse()

        hint = r"Write `conversation = await request\.aconversation\(\)`"
        with pytest.raises((TypeError, AttributeError), match=hint):
            await ConversationMiddleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc]
        gc.collect()  # and no warning comes after it

    async def test_a_coroutine_in_all_other_respects(self) -> None:
        async def view(request: Any) -> HttpResponse:
            conversation = await request.aconversation()
            assert await asyncio.create_task(request.aconversation()) is conversation
            assert await asyncio.wait_for(request.aconversation(), 5) is conversation
            assert (await asyncio.gather(request.aconversation()))[0] is conversation
            pending = request.aconversation()
            assert asyncio.iscoroutine(pending)
            assert "GuardedCoroutine" in repr(pending)
            pending.close()
            return HttpResponse()

        await ConversationMiddleware(view)(AsyncRequestFactory().get("/"))  # type: ignore[misc]
