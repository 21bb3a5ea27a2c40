"""What a conversation contains, as the admin shows it: its state, and a page of its messages."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Any, Final

from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive

from ....store import ConversationStore
from ....tracebacks import clears_locals
from ..models import Conversation

PAGE: Final = 50  # messages
BEFORE: Final = "before"  # the parameter of the address: the position after the last one shown


@dataclass(frozen=True, slots=True, repr=False)
class Line:
    """A message, as it is shown. `text` is None if it has none, as is `time`; `fields` is what is
    left of it, as JSON; "" if that is the id alone."""

    number: int
    role: str
    text: str | None
    time: datetime | None
    fields: str


@dataclass(frozen=True, slots=True, repr=False)
class Contents:
    """A page of the messages of a conversation, and its state.

    Attributes:
        lines: the messages, oldest first.
        state: as JSON; "" if it is empty.
        total: how many messages there are, and those that were dropped as the oldest.
        older, newer: where the pages beside it end; None: there is none.
    """

    lines: list[Line]
    state: str
    total: int
    older: int | None
    newer: int | None

    @property
    def last(self) -> int:
        """The number of the last message of the page; 0: there is none."""
        return self.lines[-1].number if self.lines else 0


@clears_locals
def read_contents(row: Conversation, alias: str, before: str) -> Contents:
    """Return the messages that end before a position, as an address has it; the newest ones, if
    that makes no sense. Nothing is prolonged by it. Raises what `ConversationStore.peek` raises."""
    store = ConversationStore("database", database_alias=alias, key_prefix=row.prefix, window=PAGE)
    conversation = store.peek(row.key)
    messages = conversation.messages
    begin, end = messages.dropped, messages.dropped + len(messages)
    stop = min(end, max(begin + 1, _position(before, end)))
    found = messages.page(max(begin, stop - PAGE), stop)
    start = stop - len(found)
    return Contents(
        lines=[_line(number, message) for number, message in enumerate(found, start + 1)],
        state=_json(state) if (state := dict(conversation)) else "",
        total=end,
        older=start if start > begin else None,
        newer=min(stop + PAGE, end) if stop < end else None,
    )


def _position(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default


def _line(number: int, message: Mapping[str, Any]) -> Line:
    shown = {
        "role": _string(message.get("role")),
        "content": _text(message.get("content")),
        "timestamp": _time(message.get("timestamp")),
    }
    rest = {name: value for name, value in message.items() if shown.get(name) is None}
    return Line(
        number=number,
        role=shown["role"] or _string(message.get("type")) or "",
        text=shown["content"],
        time=shown["timestamp"],
        fields=_json(rest) if rest.keys() - {"id"} else "",
    )


def _string(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _text(content: Any) -> Any:
    """Return what is said: a text, or the texts of the parts that some APIs make of it; None, if
    there is more in it than that."""
    if not isinstance(content, list):
        return _string(content)
    texts = [_string(part.get("text")) for part in content if isinstance(part, dict)]
    is_text = len(texts) == len(content) and None not in texts
    return "\n".join(texts) if is_text else None


def _time(value: Any) -> Any:
    try:
        time = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if time is None or is_naive(time):
        return None
    # In some time zone, any other is out of range.
    return time if MINYEAR < time.year < MAXYEAR else None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
