"""What is in the traceback of a consumer that fails, and in the logs."""

from typing import Any

import pytest
from channels.testing import WebsocketCommunicator

from django_convstate import Conversation, conversations
from django_convstate.channels import (
    AsyncConversationConsumer,
    ConversationConsumer,
    ConversationMiddlewareStack,
)
from django_convstate.tokens import sign_id
from tests.support.consumers import Plain
from tests.support.reports import CANARY, errors_of, frames_of, leaks
from tests.support.tabs import PATIENCE

# Before each message Channels looks after the connections to the database, if there are any.
pytestmark = pytest.mark.django_db

ID, TEXT, OWNER = (f"{CANARY}-{what}" for what in ("id", "text", "owner"))
OURS = ("django_convstate", "redis", "orjson")


def answer(conversation: Conversation, prompt: str) -> None:
    conversation.messages.append("user", prompt)
    raise RuntimeError("the model is overloaded")


class Failing(AsyncConversationConsumer):
    async def receive_message(self, conversation: Conversation, content: Any) -> None:
        answer(conversation, content["say"])


class SyncFailing(ConversationConsumer):
    def receive_message(self, conversation: Conversation, content: Any) -> None:
        answer(conversation, content["say"])


class OneTurn(Failing):
    one_turn = True


class SyncOneTurn(SyncFailing):
    one_turn = True


class FailingToSave(Plain):
    """Raises an error of ours."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        conversation = await self.scope["conversation"]
        conversation.messages.append("user", content["say"])
        await conversation.asave(expected_version=99)


class FailingToLoad(Plain):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await conversations.adelete(ID)
        await self.scope["conversation"]


async def failed(consumer: Any) -> BaseException:
    """Return the error of a socket on which something was said."""
    await conversations.adelete(ID)
    conversation = conversations.create(id=ID, owner=OWNER)
    conversation["value"] = TEXT
    conversation.messages.append("user", TEXT)
    await conversation.asave()
    application = ConversationMiddlewareStack(consumer.as_asgi())
    headers = [
        (b"origin", b"http://testserver"),
        (b"cookie", f"conversation={sign_id(ID)}".encode()),
    ]
    socket = WebsocketCommunicator(application, "/", headers)
    is_open, _ = await socket.connect(PATIENCE)
    assert is_open
    await socket.send_json_to({"say": TEXT})
    with pytest.raises(Exception) as caught:
        await socket.wait(PATIENCE)
    return caught.value


def functions_with_locals(error: BaseException) -> set[str]:
    return {
        entry.tb_frame.f_code.co_name
        for each in errors_of(error)
        for entry in frames_of(each)
        if entry.tb_frame.f_locals
    }


@pytest.mark.parametrize(
    "consumer",
    [Failing, SyncFailing, OneTurn, SyncOneTurn, FailingToSave, FailingToLoad],
    ids=lambda consumer: consumer.__name__,
)
async def test_our_frames_give_nothing_away(
    consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of Channels, of the server and of the consumer itself have what was sent."""
    error = await failed(consumer)
    assert leaks(error, *OURS) == []
    modules = {entry.tb_frame.f_globals["__name__"] for entry in frames_of(error)}
    assert "django_convstate.channels.middleware" in modules, "it is shown where"
    assert CANARY not in caplog.text


@pytest.mark.parametrize("consumer", [Failing, SyncFailing], ids=["async", "sync"])
async def test_the_locals_of_the_consumer_itself_are_kept(consumer: Any) -> None:
    shown = functions_with_locals(await failed(consumer))
    assert {"answer", "receive_message"} <= shown
