"""A whole conversation as one JSON document, and back: what the cache backend stores.

Reading trusts nothing. Whatever is not exactly a document of ours, under the id it was stored
under, is `ConversationCorrupt`.
"""

from typing import Any, Final

import orjson

from ...exceptions import ConversationCorrupt
from ..toolkit.stored import CommitLog, StoredConversation

FORMAT: Final = 1


def dump(id: str, stored: StoredConversation) -> bytes:
    """Return the document for `stored`, whose state and messages are JSON already."""
    return orjson.dumps(
        {
            "convstate": FORMAT,
            "id": id,
            "version": stored.version,
            "owner": stored.owner,
            "created_at": stored.created_at,
            "last_accessed": stored.last_accessed,
            "ttl": stored.ttl,
            "commits": stored.commits.packed.hex(),
            "state": {key: orjson.Fragment(value) for key, value in stored.state.items()},
            "messages": [orjson.Fragment(message) for message in stored.messages],
        }
    )


def parse(id: str, data: object) -> StoredConversation:
    """Return the conversation in `data`.

    Raises:
        ConversationCorrupt: it is not a document, or not that of conversation `id`.
    """
    if not isinstance(data, bytes):
        raise ConversationCorrupt(f"Stored is a {type(data).__name__}, not bytes of ours.")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ConversationCorrupt(f"The {len(data)} bytes stored are not JSON.") from None
    if not isinstance(document, dict) or document.get("convstate") != FORMAT:
        raise ConversationCorrupt("Stored is JSON, but not a conversation of this format.")
    if document.get("id") != id:
        raise ConversationCorrupt("Stored is the document of another conversation.")
    try:
        return _stored(document)
    except (KeyError, TypeError, ValueError):
        # Without the error, which may quote what is stored.
        raise ConversationCorrupt("The stored document is incomplete, or not of ours.") from None


def _stored(document: dict[str, Any]) -> StoredConversation:
    owner, state, messages = document["owner"], document["state"], document["messages"]
    if not (
        isinstance(owner, str | None) and isinstance(state, dict) and isinstance(messages, list)
    ):
        raise TypeError("owner, state or messages")
    return StoredConversation(
        created_at=_number(document["created_at"]),
        last_accessed=_number(document["last_accessed"]),
        ttl=_number(document["ttl"]),
        owner=owner,
        version=int(_number(document["version"])),
        state={key: orjson.dumps(value) for key, value in state.items()},
        messages=[orjson.dumps(message) for message in messages],
        commits=CommitLog.parse(document["commits"]),
    )


def _number(value: Any) -> float:
    # A version, a duration or a moment; the last of them is in the year 2286.
    if type(value) not in (int, float) or not 0 < value < 10**10:
        raise ValueError("a number")
    return float(value)
