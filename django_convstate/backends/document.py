"""A whole conversation as one JSON document, and back: what the cache backend stores.

Reading trusts nothing. Whatever is not exactly a document of ours, under the id it was stored
under, is `ConversationCorrupt`.
"""

from typing import Any, Final

import orjson

from ..exceptions import ConversationCorrupt
from .entry import CommitLog, Entry

FORMAT: Final = 1


def dump(id: str, entry: Entry) -> bytes:
    """Return the document for `entry`, whose state and messages are JSON already."""
    return orjson.dumps(
        {
            "convstate": FORMAT,
            "id": id,
            "version": entry.version,
            "owner": entry.owner,
            "created_at": entry.created_at,
            "last_accessed": entry.last_accessed,
            "ttl": entry.ttl,
            "commits": entry.commits.packed.hex(),
            "state": {key: orjson.Fragment(value) for key, value in entry.state.items()},
            "messages": [orjson.Fragment(message) for message in entry.messages],
        }
    )


def parse(id: str, data: object) -> Entry:
    """Return the entry in `data`.

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
        return _entry(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ConversationCorrupt(f"The stored document is incomplete: {error!r}.") from None


def _entry(document: dict[str, Any]) -> Entry:
    owner, version, state = document["owner"], document["version"], document["state"]
    if not (isinstance(owner, str | None) and type(version) is int and isinstance(state, dict)):
        raise TypeError("owner, version or state")
    if not isinstance(document["messages"], list):
        raise TypeError("messages")
    return Entry(
        created_at=float(document["created_at"]),
        last_accessed=float(document["last_accessed"]),
        ttl=float(document["ttl"]),
        owner=owner,
        version=version,
        state={key: orjson.dumps(value) for key, value in state.items()},
        messages=[orjson.dumps(message) for message in document["messages"]],
        commits=CommitLog.parse(document["commits"]),
    )
