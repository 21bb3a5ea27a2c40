"""JSON and nothing else: a value to bytes and back, with the path of whatever does not fit.

RFC 8259 by orjson, but stricter: what orjson would quietly turn into something else (NaN into null,
a UUID or a date into a string) is refused where it is written.
"""

import math
from typing import Any, Final, TypeAlias

import orjson

from .exceptions import ConversationCorrupt, InvalidConversationType, InvalidConversationValue

# A JSON value. `Any`, because `conversation["trip"]["days"]` would need casts otherwise.
JSON: TypeAlias = Any

MAX_DEPTH: Final = 254  # orjson's own limit for writing
INT_MIN: Final = -(2**63)
UINT_MAX: Final = 2**64 - 1

_HINTS = {
    "bytes": "decode it, or store base64 text",
    "set": "use a sorted list",
    "frozenset": "use a sorted list",
    "date": "store its isoformat()",
    "datetime": "store its isoformat()",
    "time": "store its isoformat()",
    "Decimal": "store str() of it",
    "UUID": "store str() of it",
    "__proxy__": "a lazy translation: store str() of it",
}


def encode(value: JSON, path: str, key: str | None = None) -> bytes:
    """Return `value` as compact UTF-8 JSON.

    Tuples become lists and subclasses of str, int, float, list and dict their plain selves, as
    `json.dumps` does.

    Args:
        value: what is to be stored.
        path: how to call it in an error, e.g. `message`.
        key: to be called `path["key"]`.

    Raises:
        InvalidConversationValue: a number, string or nesting that JSON cannot hold.
        InvalidConversationType: a type that JSON does not have.
    """
    try:
        data = orjson.dumps(value)
        # Reading it back is native code and finds every silent change; only then is a walk in
        # Python worth its time.
        if type(value) is str or orjson.loads(data) == value:
            return b"%b" % data  # see _trimmed
    except (TypeError, RecursionError):
        pass
    return _trimmed(
        orjson.dumps(_plain(value, path if key is None else path_of(path, key), MAX_DEPTH))
    )


def encode_texts(value: dict[str, str], path: str) -> bytes:
    """Return a dictionary of plain strings as JSON. Nothing in it can change silently, so it need
    not be read back. Raises as `encode` does."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return encode(value, path)


def decode(data: bytes) -> JSON:
    """Return the value in `data`.

    Raises:
        ConversationCorrupt: it is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConversationCorrupt(f"Stored bytes are not JSON ({len(data)} bytes).") from error


def decode_all(items: list[bytes]) -> list[JSON]:
    """Return the values in `items`, decoded in one call. Raises as `decode` does."""
    values = decode(b"[%b]" % b",".join(items))
    if len(values) != len(items):
        raise ConversationCorrupt("Stored bytes are not one JSON value each.")
    return values  # type: ignore[no-any-return]


def _trimmed(data: bytes) -> bytes:
    # What orjson returns still has the buffer of 4 KiB that it was written in. A backend may keep
    # it for long, so it gets a copy that is as large as it looks.
    return b"%b" % data


def _plain(value: Any, path: str, depth: int) -> JSON:
    """Return a copy of `value` made of plain JSON types only, or say where that is impossible."""
    if isinstance(value, (list, tuple, dict)):
        if depth == 0:
            raise InvalidConversationValue(
                f"{_shorten(path)} is nested more than {MAX_DEPTH} deep, or contains itself."
            )
        if isinstance(value, dict):
            return {
                _plain_key(key, path): _plain(item, path_of(path, key), depth - 1)
                for key, item in list(value.items())  # another thread may add to it meanwhile
            }
        return [_plain(item, f"{path}[{i}]", depth - 1) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_str(value, path)
    if isinstance(value, (int, float)):
        return _plain_number(value, path)
    name = type(value).__name__
    hint = f": {_HINTS[name]}" if name in _HINTS else ""
    raise InvalidConversationType(f"{_shorten(path)} is of type {name}, which JSON lacks{hint}.")


def _plain_number(value: int | float, path: str) -> int | float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidConversationValue(f"{_shorten(path)} is {value}, which JSON cannot hold.")
        return float(value)
    if not INT_MIN <= value <= UINT_MAX:
        raise InvalidConversationValue(
            f"{_shorten(path)} is an integer beyond 64 bits; store it as a string."
        )
    return int(value)


def _plain_str(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidConversationValue(
            f"{_shorten(path)} has a lone surrogate, which UTF-8 cannot hold."
        ) from None
    return str.__str__(value)


def _plain_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise InvalidConversationType(
            f"{_shorten(path)} has a key of type {type(key).__name__}; JSON keys are strings."
        )
    return _plain_str(key, f"a key of {path}")


def path_of(path: str, key: object) -> str:
    """Return how to call the value under `key`, as Python and JSON both would."""
    if isinstance(key, str) and key.isprintable():
        return f"{path}[{orjson.dumps(str.__str__(key)).decode()}]"
    return f"{path}[{key!r}]"


def _shorten(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:80]}…{path[-30:]}"
