"""A conversation as a line of JSON, and back.

    {"format": 1, "id": "...", "owner": null, "version": 7, "created_at": 1764150000.25, ...,
     "state": {"city": "Jaipur"}, "messages": [["0193...", {"role": "user", ...}], ...]}

Times are seconds since the epoch, `ttl` is in seconds (null: for ever), and each message stands
beside its id. A backend may hold bytes that JSON would not give back as they are: those are in
`state_bytes` and in the third place of a message, as base64.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from .. import clock, conf, ids
from ..backends.records import Record
from ..backends.toolkit.packed import END_OF_KEYS, KEY_SIZE, NO_KEY, Pair
from ..exceptions import InvalidConversationValue

FORMAT: Final = 1
END: Final = 10**10  # of versions, and of moments (in the year 2286): no backend takes more
_MAX_DROPPED: Final = 2**31
_TIMES: Final = ("created_at", "modified_at", "last_accessed")
_REQUIRED: Final = {"format", "id", "version", *_TIMES, "messages"}
_KNOWN: Final = _REQUIRED | {"owner", "ttl", "dropped", "last_key", "state", "state_bytes"}


@dataclass(slots=True)
class Whole:
    """A conversation with all its messages."""

    record: Record
    messages: Sequence[Pair] = field(repr=False)

    def expires_at(self, max_age: float | None) -> float:
        """Return when it expires, in seconds since the epoch."""
        idle = self.record.last_accessed + self.record.ttl
        return idle if max_age is None else min(idle, self.record.created_at + max_age)

    def has_expired(self, max_age: float | None) -> bool:
        """Tell whether it has expired, by the clock of this process."""
        return self.expires_at(max_age) <= clock.time()


def line_of(whole: Whole) -> bytes:
    """Return a conversation as a line, with its newline."""
    record = whole.record
    state = {key: _json_of(data) for key, data in record.state.items()}
    line: dict[str, Any] = {
        "format": FORMAT,
        "id": record.id,
        "owner": record.owner,
        "version": record.version,
        "created_at": record.created_at,
        "modified_at": record.modified_at,
        "last_accessed": record.last_accessed,
        "ttl": None if math.isinf(record.ttl) else record.ttl,
        "dropped": record.dropped,
        "last_key": record.last_key.hex(),
        "state": {key: value for key, value in state.items() if value is not None},
    }
    if others := {key: _text_of(record.state[key]) for key in state if state[key] is None}:
        line["state_bytes"] = others
    line["messages"] = [_message_of(id, data) for id, data in whole.messages]
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _message_of(id: str, data: bytes) -> list[Any]:
    value = _json_of(data) if data[:1] == b"{" else None
    return [id, None, _text_of(data)] if value is None else [id, value]


def _json_of(data: bytes) -> orjson.Fragment | None:
    """Return bytes as the JSON that they are; None: they would not come back as they are."""
    try:
        return orjson.Fragment(data) if orjson.dumps(orjson.loads(data)) == data else None
    except (orjson.JSONDecodeError, TypeError):  # beyond a depth it is a TypeError
        return None


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def parse_line(line: bytes) -> Whole:
    """Return the conversation in a line.

    Raises:
        InvalidConversationValue: there is none. The message quotes nothing of what was said.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise InvalidConversationValue("It is not JSON, or cut off.") from None
    if not isinstance(fields, dict) or "format" not in fields:
        raise InvalidConversationValue('It is no conversation: it has no field "format".')
    if fields["format"] != FORMAT or isinstance(fields["format"], bool | float):
        raise InvalidConversationValue(
            f"Its format is not {FORMAT}, the only one that this version of django-convstate knows."
        )
    if missing := _REQUIRED - fields.keys():
        raise InvalidConversationValue(f"It lacks {_names(missing)}.")
    if unknown := fields.keys() - _KNOWN:
        raise InvalidConversationValue(f"It has unknown fields: {_names(unknown)}.")
    return _whole_of(fields)


def _whole_of(fields: Mapping[str, Any]) -> Whole:
    messages = _messages_in(fields["messages"])
    created_at, modified_at, last_accessed = (_time_in(fields, name) for name in _TIMES)
    ttl = _ttl_in(fields.get("ttl"))
    record = Record(
        id=ids.validate_id(fields["id"]),
        version=_whole_number(fields, "version", 1, END - 1),
        owner=ids.owner_of(_owner_in(fields.get("owner"))),
        created_at=created_at,
        modified_at=modified_at,
        last_accessed=last_accessed,
        expires_at=last_accessed + ttl,
        ttl=ttl,
        state=_state_in(fields),
        messages=(),
        message_count=len(messages),
        dropped=_whole_number(fields, "dropped", 0, _MAX_DROPPED),
        last_key=_key_in(fields.get("last_key", NO_KEY.hex())),
    )
    return Whole(record, messages)


def _names(fields: set[str]) -> str:
    return ", ".join(f'"{name[:40]}"' for name in sorted(fields)[:5])


def _owner_in(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidConversationValue("owner must be a string or null.")
    return value


def _whole_number(fields: Mapping[str, Any], name: str, lowest: int, highest: int) -> int:
    value = fields.get(name, lowest)
    if type(value) is not int or not lowest <= value <= highest:
        raise InvalidConversationValue(f"{name} must be a whole number from {lowest} to {highest}.")
    return value


def _time_in(fields: Mapping[str, Any], name: str) -> float:
    value = fields[name]
    if type(value) not in (int, float) or not 0 < value < END:
        raise InvalidConversationValue(f"{name} must be seconds since the epoch.")
    return float(value)


def _ttl_in(value: Any) -> float:
    if value is None:
        return math.inf
    if problem := conf.seconds(value):
        raise InvalidConversationValue(f"ttl {problem}, or null for ever.")
    return float(value)


def _key_in(value: object) -> bytes:
    try:
        key = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE or key >= END_OF_KEYS:
        raise InvalidConversationValue(
            f"last_key must be {KEY_SIZE} bytes in hex, the first below {END_OF_KEYS.hex()}."
        )
    return key


def _state_in(fields: Mapping[str, Any]) -> dict[str, bytes]:
    values, others = fields.get("state", {}), fields.get("state_bytes", {})
    if not isinstance(values, dict) or not isinstance(others, dict):
        raise InvalidConversationValue("state and state_bytes must be objects.")
    state = {key: _dumped(value, "state") for key, value in values.items()}
    return state | {key: _bytes_in(text, "state_bytes") for key, text in others.items()}


def _messages_in(value: object) -> list[Pair]:
    if not isinstance(value, list):
        raise InvalidConversationValue("messages must be a list.")
    found: dict[str, bytes] = {}
    for position, item in enumerate(value):
        id, data = _pair_in(item, f"messages[{position}]")
        if id in found:
            raise InvalidConversationValue(f"messages[{position}] has the id of another.")
        found[id] = data
    return list(found.items())


def _pair_in(item: object, path: str) -> Pair:
    match item:
        case [str(id), dict(value)]:
            return ids.validate_message_id(id), _dumped(value, path)
        case [str(id), None, str(text)]:
            return ids.validate_message_id(id), _bytes_in(text, path)
    raise InvalidConversationValue(f"{path} must be an id and an object.")


def _dumped(value: object, path: str) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # it writes fewer levels than it reads
        raise InvalidConversationValue(f"{path} has something that is nested too deeply.") from None


def _bytes_in(value: object, path: str) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "-", validate=True)
    except ValueError:
        raise InvalidConversationValue(f"{path} has something that is not base64.") from None
