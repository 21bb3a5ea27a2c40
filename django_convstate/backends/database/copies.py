"""What columns for queries copy from the bytes. It is a copy for searching, so that what a database
would refuse is left out: it is in the bytes all the same."""

from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Any, Final

import orjson

from .times import seconds_of, when

TITLE: Final = "title"  # the key of the state under which a title is
MAX_TITLE: Final = 200
MAX_ROLE: Final = 64
_MAX_DEPTH: Final = 100  # of JSON; SQLite refuses a depth of more than 1000


def state_copy(state: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the state as JSON, without keys and values that a column of JSON refuses."""
    copy = {}
    for key, data in state.items():
        # PostgreSQL takes no NUL.
        if "\0" not in key and b"\\u0000" not in data and not _is_deep(data):
            try:
                copy[key] = orjson.loads(data)
            except orjson.JSONDecodeError:
                continue
    return copy


def title_of(state: Mapping[str, bytes]) -> str:
    """Return the title in the state; "" if there is none."""
    title = _json(state.get(TITLE, b""))
    return as_text(title, MAX_TITLE) if isinstance(title, str) else ""


def message_copy(data: bytes) -> dict[str, Any]:
    """Return what the columns of a message copy: `role`, `text` and `sent_at`."""
    message = _json(data)
    if not isinstance(message, dict):
        return {"role": "", "text": None, "sent_at": None}
    role, content = message.get("role"), message.get("content")
    return {
        "role": as_text(role, MAX_ROLE) if isinstance(role, str) else "",
        "text": as_text(content) if isinstance(content, str) else None,
        "sent_at": _time(message.get("timestamp")),
    }


def as_text(text: str, limit: int | None = None) -> str:
    """Return text as a column takes it: PostgreSQL takes no NUL."""
    return text.replace("\0", "\ufffd")[:limit]


def _is_deep(data: bytes) -> bool:
    return max(data.count(b"["), data.count(b"{")) > _MAX_DEPTH and _depth(data) > _MAX_DEPTH


def _depth(data: bytes) -> int:
    """Return a bound of the depth of nested values: it counts what is in strings, too."""
    depth = deepest = 0
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        # In some time zone, any other is out of range.
        return when(seconds_of(time)) if MINYEAR < time.year < MAXYEAR else None
    except (OverflowError, ValueError, OSError):
        return None
