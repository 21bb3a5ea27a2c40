"""What a client sends that no handler can use is answered, and the socket goes on."""

import json
import logging
from typing import Any

import pytest

from django_convstate import conversations
from tests.support.tabs import Browser, id_of, stored

pytestmark = pytest.mark.django_db

CANARY = "kept to oneself"
LARGE = '"%s"' % ("x" * 300_000)  # over the limit of a message, and of the state
HALF = rf'"{CANARY} \ud83d"'
NAN = f'{{"{CANARY}": NaN}}'
BROKEN = [(LARGE, "TooLarge"), (HALF, "Invalid"), (NAN, "Invalid")]
FRAMES: list[dict[str, Any]] = [
    {"bytes": b""},
    {"bytes": b"\x00\xff"},
    {"bytes": b'{"say": "hello"}'},
    {"text": ""},
    {"text": " "},
    {"text": CANARY},
    {"text": '{"say": "hello"'},
    {"text": "\ufeff{}"},
    {"text": "[" * 200_000},
    {"text": '{"a":' * 200_000},
    {"text": '{"set": %s}' % ("9" * 5000)},
]


def error(name: str) -> dict[str, str]:
    return {"type": "conversation.error", "error": name}


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(*frame.values())[:20])
async def test_a_frame_that_is_not_json_is_answered(
    browser: Browser, frame: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tab = await browser.open()
    await tab.send_input({"type": "websocket.receive", **frame})
    assert await tab.hear() == error("InvalidConversationValue")
    assert CANARY not in caplog.text
    assert (await tab.say("hello"))["messages"] == ["hello"]


async def test_a_flood_of_them_is_answered_frame_by_frame(browser: Browser) -> None:
    tab = await browser.open(token := stored("hello"))
    for _ in range(100):
        await tab.send_to(bytes_data=b"\x00")
    for _ in range(100):
        assert await tab.hear() == error("InvalidConversationValue")
    await tab.say("still there")
    assert len(conversations.get(id_of(token)).messages) == 2


@pytest.mark.parametrize("key", ["say", "set", "inside"])
@pytest.mark.parametrize(("value", "kind"), BROKEN, ids=["large", "half", "nan"])
async def test_a_broken_value_is_answered_wherever_it_is_found_out(
    browser: Browser, key: str, value: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tab = await browser.open(token := stored("hello"))
    await tab.send_to(f'{{"{key}": {value}}}')
    answer = await tab.hear()
    if key == "inside":  # the handler has answered before the save
        answer = await tab.hear()
    assert answer["type"] == "conversation.error"
    assert kind in answer["error"]
    assert CANARY not in json.dumps(answer) + caplog.text
    conversation = conversations.get(id_of(token))
    assert (len(conversation.messages), dict(conversation)) == (1, {"value": 0})
    assert (await tab.say("again"))["messages"] == ["hello", "again"]


async def test_an_unknown_message_is_answered(browser: Browser) -> None:
    tab = await browser.open()
    assert await tab.ask(find="absent") == error("MessageNotFound")
    assert await tab.ask(find="x" * 1000) == error("InvalidConversationValue")
    assert (await tab.say("hello"))["messages"] == ["hello"]
