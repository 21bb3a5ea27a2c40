"""One message, as it is handed out."""

from copy import deepcopy
from typing import Any, Final, Never

from ..codec import JSON

REDACTED_KEEPS: Final = ("id", "role", "timestamp")


class Message(dict[str, JSON]):
    """A message of a conversation. It is read-only: what is said is said, and `messages.update`
    says otherwise.

    `copy`, `deepcopy` and `pickle` make plain dictionaries of it, and its nested values are plain
    copies, so that changing them changes nothing stored.
    """

    __slots__ = ("_id",)

    def __init__(self, fields: dict[str, JSON], id: str) -> None:
        super().__init__(fields)
        self._id = id

    @property
    def id(self) -> str:
        """What `messages.find`, `update` and `redact` know it by."""
        return self._id

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

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = setdefault = clear = _refuse
