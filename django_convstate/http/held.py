"""A turn around a response that is streamed: it lasts until the stream is over."""

from contextlib import AsyncExitStack, ExitStack
from typing import Final

from asgiref.sync import async_to_sync, sync_to_async

from ..backends.toolkit.isolation import run_isolated


class Discarded(Exception):
    """Ends a turn without saving it."""


class HeldTurn:
    """A turn that a view has begun, and others end: a sync one perhaps from async code, as Django
    converts iterators, too."""

    def __init__(self, turn: ExitStack | AsyncExitStack) -> None:
        """Take over a turn that has begun."""
        self._turn: Final = turn

    def end(self, *, discards: bool = False) -> None:
        """Save what has changed, unless that is to be discarded, and give the turn up.

        Raises as the end of `Conversation.turn` does.
        """
        error = _error(discards)
        if isinstance(self._turn, ExitStack):
            self._turn.__exit__(*error)
        else:
            async_to_sync(self._turn.__aexit__)(*error)

    async def aend(self, *, discards: bool = False) -> None:
        """See `end`."""
        error = _error(discards)
        if isinstance(self._turn, AsyncExitStack):
            await self._turn.__aexit__(*error)
        else:
            in_thread = sync_to_async(run_isolated, thread_sensitive=False)
            await in_thread(self._turn.__exit__, *error)


def _error(discards: bool) -> tuple[type[Discarded], Discarded, None] | tuple[None, None, None]:
    return (Discarded, Discarded(), None) if discards else (None, None, None)
