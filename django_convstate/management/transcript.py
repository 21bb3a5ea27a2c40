"""The contents of a conversation, laid out to be read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from django_convstate import Conversation, Message

from .tables import as_is

PAGE: Final = 200  # messages that are read at a time
_HEAD: Final = ("role", "timestamp", "id")


def transcript(conversation: Conversation) -> Iterator[Text]:
    """Yield the lines of the state, and of each message. Reads page by page."""
    yield from _titled("State")
    for key in sorted(conversation):
        yield from _field(key, conversation[key])
    yield from _titled("Messages")
    messages = conversation.messages
    end = messages.dropped + len(messages)
    for start in range(messages.dropped, end, PAGE):
        page = messages.page(start, min(start + PAGE, end))
        for position, message in enumerate(page, start):
            yield from _message(position, message)


def _titled(title: str) -> Iterator[Text]:
    yield Text()
    yield Text(title, style="italic")


def _message(position: int, message: Message) -> Iterator[Text]:
    head = [str(message[name]) for name in _HEAD if message.get(name) is not None]
    yield Text()
    yield Text.assemble((f"{position:>4}  ", "dim"), _styled("  ".join(head), "bold"))
    fields: Mapping[str, Any] = {k: v for k, v in message.items() if k not in _HEAD}
    for name, value in fields.items():
        if name == "content" and isinstance(value, str):
            yield from _indented(value)
        else:
            yield from _field(name, value)


def _field(name: str, value: Any) -> Iterator[Text]:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if "\n" not in text:
        yield Text.assemble("      ", _styled(f"{name}: ", "cyan"), as_is(text))
        return
    yield Text.assemble("      ", _styled(f"{name}:", "cyan"))
    yield from _indented(text, 8)


def _indented(text: str, by: int = 6) -> Iterator[Text]:
    for line in text.split("\n"):
        yield Text.assemble(" " * by, as_is(line.removesuffix("\r")))


def _styled(text: str, style: str) -> Text:
    shown = as_is(text)
    shown.stylize(style)
    return shown
