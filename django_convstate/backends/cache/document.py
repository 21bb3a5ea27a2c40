"""A whole conversation as one value, and back: what the cache backend stores.

    "CVS2", the length of the header (4 bytes, big-endian), the header (JSON), and then one after
    the other the values of the state, the messages (see toolkit/packed.py) and the log of commits

What 0.1 stored is one JSON document, which is still read. Reading trusts nothing: whatever is not
exactly a document of ours, under the id it was stored under, is `ConversationCorrupt`.
"""

import math
import struct
from itertools import accumulate, pairwise
from typing import Any, Final

import orjson

from ...exceptions import ConversationCorrupt
from ..toolkit.commit_log import CommitLog
from ..toolkit.message_list import MessageList
from ..toolkit.packed import checked
from ..toolkit.stored import StoredConversation

_MAGIC: Final = b"CVS2"
_TOMBSTONE: Final = b"CVS2 deleted, now "
_PREFIX: Final = struct.Struct(">4sI")
_FORMAT_OF_0_1: Final = 1


def dump(id: str, stored: StoredConversation) -> bytes:
    """Return the document for `stored`."""
    messages = stored.messages
    header = orjson.dumps(
        {
            "id": id,
            "version": stored.version,
            "owner": stored.owner,
            "created_at": stored.created_at,
            "modified_at": stored.modified_at,
            "last_accessed": stored.last_accessed,
            "ttl": None if math.isinf(stored.ttl) else stored.ttl,
            "dropped": messages.dropped,
            "last_key": messages.last_key.hex(),
            "state": [[key, len(value)] for key, value in stored.state.items()],
            "messages": [len(packed) for packed in messages.packed],
            "commits": len(stored.commits.packed),
        }
    )
    return b"".join(
        [
            _PREFIX.pack(_MAGIC, len(header)),
            header,
            *stored.state.values(),
            *messages.packed,
            stored.commits.packed,
        ]
    )


def tombstone(new_id: str) -> bytes:
    """Return what is stored of a conversation that was deleted, or moved to a new id."""
    return _TOMBSTONE + new_id.encode()


def moved_to(data: object) -> str | None:
    """Return the new id in a tombstone, "" if the conversation was deleted. None: it is none."""
    if isinstance(data, bytes) and data.startswith(_TOMBSTONE):
        return data.removeprefix(_TOMBSTONE).decode()
    return None


def parse(id: str, data: object) -> StoredConversation:
    """Return the conversation in `data`.

    Raises:
        ConversationCorrupt: it is not a document, or not that of conversation `id`.
    """
    if not isinstance(data, bytes):
        raise ConversationCorrupt(f"Stored is a {type(data).__name__}, not bytes of ours.")
    if not data.startswith(_MAGIC):
        return _parse_json(id, data)
    try:
        _, size = _PREFIX.unpack_from(data)
        header = orjson.loads(data[_PREFIX.size : _PREFIX.size + size])
        _check_id(header, id)
        return _stored(header, data, _PREFIX.size + size)
    except (LookupError, TypeError, ValueError, struct.error):
        # Without the error, which may quote what is stored.
        raise _incomplete() from None


def _stored(header: dict[str, Any], data: bytes, start: int) -> StoredConversation:
    keys = [key for key, _ in header["state"]]
    sizes = [*(size for _, size in header["state"]), *header["messages"], header["commits"]]
    *values, commits = _cut(data, start, sizes)
    messages = checked(values[len(keys) :])
    return StoredConversation(
        **_common(header),
        modified_at=_number(header["modified_at"]),
        ttl=math.inf if header["ttl"] is None else _number(header["ttl"]),
        state=dict(zip(map(_text, keys), values, strict=False)),
        messages=MessageList(
            messages, _count(header["dropped"]), last_key=bytes.fromhex(header["last_key"])
        ),
        commits=CommitLog.parse(commits),
    )


def _cut(data: bytes, start: int, sizes: list[int]) -> list[bytes]:
    ends = list(accumulate(map(_count, sizes), initial=start))
    if ends[-1] != len(data):
        raise ValueError("it is cut off")
    return [data[first:last] for first, last in pairwise(ends)]


def _parse_json(id: str, data: bytes) -> StoredConversation:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ConversationCorrupt(f"The {len(data)} bytes stored are not JSON.") from None
    if not isinstance(document, dict) or document.get("convstate") != _FORMAT_OF_0_1:
        raise ConversationCorrupt("Stored is JSON, but not a conversation of this format.")
    _check_id(document, id)
    try:
        state, messages = document["state"], document["messages"]
        if not (isinstance(state, dict) and isinstance(messages, list)):
            raise TypeError("state or messages")
        return StoredConversation(
            **_common(document),
            modified_at=_number(document["last_accessed"]),
            ttl=_number(document["ttl"]),
            state={key: orjson.dumps(value) for key, value in state.items()},
            messages=MessageList([orjson.dumps(message) for message in messages]),
        )
    except (KeyError, TypeError, ValueError):
        raise _incomplete() from None


def _common(header: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(header["owner"], str | None):
        raise TypeError("owner")
    return {
        "created_at": _number(header["created_at"]),
        "last_accessed": _number(header["last_accessed"]),
        "owner": header["owner"],
        "version": int(_number(header["version"])),
    }


def _check_id(header: Any, id: str) -> None:
    if not isinstance(header, dict) or header.get("id") != id:
        raise ConversationCorrupt("Stored is the document of another conversation.")


def _incomplete() -> ConversationCorrupt:
    return ConversationCorrupt("The stored document is incomplete, or not of ours.")


def _number(value: Any) -> float:
    # A version, a duration or a moment; the last of them is in the year 2286.
    if type(value) not in (int, float) or not 0 < value < 10**10:
        raise ValueError("a number")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a key")
    return value
