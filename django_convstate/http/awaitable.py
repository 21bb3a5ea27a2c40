"""What `request.aconversation()` returns: a coroutine that raises an error which says what to write
if it is used without `await`, where Python would only say that a coroutine has no items."""

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from ..conversation.conversation import Conversation

_HINT: Final = (
    "The conversation of this request was not awaited. Write "
    "`conversation = await request.aconversation()`."
)


class GuardedCoroutine(Coroutine[Any, Any, "Conversation"]):
    """A coroutine in all respects, so that `asyncio.create_task` and the like accept it, too."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: "Coroutine[Any, Any, Conversation]") -> None:
        self._coroutine = coroutine

    def __await__(self) -> "Generator[Any, Any, Conversation]":
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """See `Coroutine.send`."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """See `Coroutine.throw`."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """See `Coroutine.close`."""
        self._coroutine.close()

    def __getattr__(self, name: str) -> NoReturn:
        # Whether dunder and cr_ names exist is only asked: the coroutine stays usable.
        if not name.startswith(("_", "cr_", "gi_")):
            self._coroutine.close()  # one error is enough: no "never awaited" warning beside it
        raise AttributeError(_HINT)

    def _raise_hint(self, *args: object) -> NoReturn:
        self._coroutine.close()
        raise TypeError(_HINT)

    __getitem__ = __setitem__ = __delitem__ = _raise_hint
    __contains__ = __iter__ = __len__ = __bool__ = _raise_hint
