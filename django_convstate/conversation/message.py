"""One message: as it is handed out, and as it is stored."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Never

from .. import clock
from ..backends.toolkit.packed import NO_KEY, are_keyed, id_of, pack_under
from ..codec import JSON, decode, encode, encode_texts
from ..exceptions import ConversationCorrupt, InvalidConversationType


class Message(dict[str, JSON]):
    """A message of a conversation. It is read-only: what is said is said, and `messages.update`
    says otherwise.

    `copy`, `deepcopy` and `pickle` make plain dictionaries of it, and its nested values are plain
    copies, so that changing them changes nothing stored.
    """

    # The message as it is packed: what its id is, is rarely asked.
    __slots__ = ("_packed",)
    _packed: bytes

    @classmethod
    def each(
        cls, values: Iterable[dict[str, JSON]], packed: Sequence[bytes], start: int
    ) -> "list[Message]":
        """Return decoded messages, which are packed as these and begin at a position."""
        made = list(map(cls, values))
        for self, each in zip(made, packed, strict=True):
            self._packed = each
        if not are_keyed(packed):
            for position, self in enumerate(made, start):
                self._packed = pack_under(NO_KEY, id_of(self._packed, position), b"")
        return made

    @property
    def id(self) -> str:
        """What `messages.find`, `update` and `redact` know it by."""
        return id_of(self._packed, 0)

    def __repr__(self) -> str:
        role, content = self.get("role"), self.get("content")
        said = f"{len(content)} characters" if isinstance(content, str) else f"{len(self)} fields"
        return (
            f"<Message: {role[:20]!r}, {said}>" if isinstance(role, str) else f"<Message: {said}>"
        )

    __sentry_repr__ = __repr__

    def copy(self) -> dict[str, JSON]:
        """Return a plain dictionary, which can be changed."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, JSON]:
        return deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[type[dict[str, JSON]], tuple[dict[str, JSON]]]:
        return dict, (dict(self),)

    def _refuse(self, *args: object, **kwargs: object) -> Never:
        raise TypeError(
            "A message is read-only. Write conversation.messages.update(message.id, field=value) "
            "to change what is stored, or copy() it for a dictionary of your own."
        )

    _refuse.alters_data = True  # type: ignore[attr-defined] # or templates would call it

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = setdefault = clear = _refuse


def message_of(id: str, data: bytes) -> Message:
    """Return the message that bytes of the store are."""
    return Message.each([object_of(decode(data))], [pack_under(NO_KEY, id, b"")], 0)[0]


def redacted(id: str, message: dict[str, JSON]) -> dict[str, JSON]:
    """Return what is left of a message: its id, role and time, as far as it has them."""
    left: dict[str, JSON] = {"id": id} if message.get("id") == id else {}
    if isinstance(message.get("role"), str):
        left["role"] = message["role"]
    with suppress(TypeError, ValueError):  # it is no time, and may be anything
        datetime.fromisoformat(message.get("timestamp"))  # type: ignore[arg-type]
        left["timestamp"] = message["timestamp"]
    return left | {"redacted": True}


def object_of(value: JSON) -> dict[str, JSON]:
    """Return a decoded message, or raise `ConversationCorrupt` if it cannot be one."""
    if type(value) is not dict:
        raise ConversationCorrupt("Among the stored messages is something else.")
    return value


def encode_message(role: str, content: JSON, id: str, extra: Mapping[str, JSON]) -> bytes:
    """Return a message as it is stored, with its time unless it has one."""
    if not isinstance(role, str) or not role:
        raise InvalidConversationType("The role of a message is a string that is not empty.")
    seconds, milliseconds = divmod(int(clock.time() * 1000), 1000)
    timestamp = f"{_text_of(seconds)}.{milliseconds:03}+00:00"
    if not extra and type(content) is type(role) is str:  # as it mostly is
        texts = {"role": role, "content": content, "timestamp": timestamp, "id": id}
        return encode_texts(texts, "message")
    message = {"role": role, "content": content, "timestamp": timestamp, **extra, "id": id}
    return encode(message, "message")


@lru_cache(maxsize=2)
def _text_of(seconds: int) -> str:
    """Return a time in seconds since the epoch as ISO 8601, in UTC, without its offset."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def encode_item(item: object, name: str) -> bytes:
    """Return a message that is kept as it is."""
    if not isinstance(item, dict):
        raise InvalidConversationType(
            f"{name} is of type {type(item).__name__}; a message is a JSON object: write a "
            "dictionary, such as the model_dump() of what an SDK gives you."
        )
    return encode(item, name)
