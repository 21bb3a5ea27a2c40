"""What `request.aconversation()` returns: a coroutine that tells whoever forgets to await it what
to write, where Python would only say that a coroutine has no items."""

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from ..conversation.conversation import Conversation

_HINT: Final = (
    "The conversation of this request was not awaited. Write "
    "`conversation = await request.aconversation()`."
)


class Unawaited(Coroutine[Any, Any, "Conversation"]):
    """A coroutine in all respects, so that `asyncio.create_task` and the like take it, too."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: "Coroutine[Any, Any, Conversation]") -> None:
        self._coroutine = coroutine

    def __await__(self) -> "Generator[Any, Any, Conversation]":
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __getattr__(self, name: str) -> NoReturn:
        # Not for dunder names, nor for asyncio's: those are only asked whether they are there.
        if not name.startswith(("_", "cr_", "gi_")):
            self._coroutine.close()  # one error is enough: no warning beside it
        raise AttributeError(_HINT)

    def _forgotten(self, *args: object) -> NoReturn:
        self._coroutine.close()
        raise TypeError(_HINT)

    __getitem__ = __setitem__ = __delitem__ = _forgotten
    __contains__ = __iter__ = __len__ = __bool__ = _forgotten
