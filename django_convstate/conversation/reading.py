"""Reading the messages of a conversation: those in memory at once, those before them from the
store.

What may have to read is refused in async code, whether it has to or not: an error that comes only
with the fifty-first message is found by users, not by developers.
"""

import asyncio
import logging
import operator
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from django.utils.asyncio import async_unsafe

from ..backends.toolkit.packed import PackedMessages, Pair
from ..codec import JSON
from ..exceptions import ConversationInterrupted
from ..ids import hashed_id
from ..repository import Repository
from ..tracebacks import clears_locals
from . import llm
from .message import Message
from .message_view import MessageView
from .templating import alters_data
from .working_copy import WorkingCopy

logger = logging.getLogger("django_convstate")


@clears_locals
class ReadMessages(Sequence[Message]):
    """All messages of a conversation, oldest first; those before the window are read when needed.

    As a sequence it has the messages that are there. `page` and `dropped` count positions, from the
    first message that there ever was, so that they stay the same when the oldest are dropped.
    """

    __slots__ = ("_copy", "_repository")

    def __init__(self, copy: WorkingCopy, repository: Repository) -> None:
        self._copy = copy
        self._repository = repository

    @property
    def dropped(self) -> int:
        """How many of the oldest messages were dropped because of WHEN_FULL: the position of the
        first one that is there."""
        return self._copy.log.dropped

    def window(self, size: int | None = None) -> list[Message]:
        """Return the newest `size` messages (None: WINDOW), oldest first; in an outage, those of
        them that are known here.

        Async code is refused more than WINDOW of them, however many there are: they may have to be
        read. Up to WINDOW it gets those in memory; after `truncate` that may be fewer.
        """
        view, start = self._newest(size, "awindow")
        return view.assemble(self._read(view, start, view.end), start, view.end)

    @alters_data
    async def awindow(self, size: int | None = None) -> list[Message]:
        """See `window`. Reads what is not in memory."""
        view, start = self._anewest(size, "awindow")
        return view.assemble(await self._aread(view, start, view.end), start, view.end)

    def for_llm(
        self,
        size: int | None = None,
        *,
        system: str | dict[str, JSON] | None = None,
        budget: int | None = None,
        count: Callable[[dict[str, JSON]], int] | None = None,
        fields: Iterable[str] = (),
        dangling: str = "drop",
    ) -> list[dict[str, JSON]]:
        """Return what a model is sent: plain dictionaries with the fields that its API takes.

        That is the leading "system" and "developer" messages, as far as they are in memory (before
        the window, the first one is), and the longest end of the history that obeys the limits and
        in which no tool call is cut off from its results. The newest message, with what belongs to
        it, is there in any case. Messages of Chat Completions, items of the Responses API and
        blocks of Anthropic are known by their shape. Up to WINDOW nothing is read, beyond it once.

        Args:
            size: of how many messages at most, the leading ones included. None: WINDOW.
            system: the text of a system message, or a message, that is put first and not stored.
            budget: how many tokens they have at most.
            count: returns the tokens of a message. None: an estimate, a quarter of its JSON.
            fields: what else is sent of a message that has it. Reasoning is sent with tool calls.
            dangling: what becomes of a call that never got all its results: "drop" leaves it out,
                "stand_in" sends a result that says so.

        Raises:
            SynchronousOnlyOperation: in async code, `size` is above WINDOW; see `window`.
            InvalidConversationValue: an argument is not of its kind.
        """
        wanted = self._wanted(size, system, budget, count, fields, dangling)
        view, start = self._newest(wanted.size or 1, "afor_llm")
        start = llm.reach(view, start, self._copy.log.options.window)
        return self._selected(wanted, view, self._read(view, start, view.end), start)

    @alters_data
    async def afor_llm(
        self,
        size: int | None = None,
        *,
        system: str | dict[str, JSON] | None = None,
        budget: int | None = None,
        count: Callable[[dict[str, JSON]], int] | None = None,
        fields: Iterable[str] = (),
        dangling: str = "drop",
    ) -> list[dict[str, JSON]]:
        """See `for_llm`. Reads what is not in memory."""
        wanted = self._wanted(size, system, budget, count, fields, dangling)
        view, start = self._anewest(wanted.size or 1, "afor_llm")
        start = llm.reach(view, start, self._copy.log.options.window)
        return self._selected(wanted, view, await self._aread(view, start, view.end), start)

    def _wanted(self, size: int | None, *limits: Any) -> llm.Selection:
        return llm.Selection.of(self._size(size), *limits)

    def _selected(
        self, wanted: llm.Selection, view: MessageView, read: Sequence[Pair], start: int
    ) -> list[dict[str, JSON]]:
        log = self._copy.log
        sent, illegal = llm.select_from(view, wanted, read, start)
        if illegal and not log.has_warned:
            log.has_warned = True
            logger.warning(
                "Conversation %s: %d messages were not sent to the model, or not whole: they have "
                "results of tool calls that do not come right before, which its API refuses.",
                hashed_id(self._copy.id),
                illegal,
            )
        return sent

    def _size(self, size: int | None) -> int:
        return self._copy.log.options.window if size is None else max(0, operator.index(size))

    def _newest(self, size: int | None, twin: str) -> tuple[MessageView, int]:
        """Return what is in memory, and where the newest messages begin, which sync code may
        read."""
        wanted = self._size(size)
        if wanted > self._copy.log.options.window:
            refuse_async("More than WINDOW messages", f"messages.{twin}({wanted})")
        view = self._copy.log.view()
        start = view.window_start(wanted)
        if start < view.start and is_async():
            start = max(start, view.start)  # up to WINDOW this never raises
        return view, start

    def _anewest(self, size: int | None, twin: str) -> tuple[MessageView, int]:
        view = self._copy.log.view()
        return view, view.window_start(self._size(size))

    def all(self) -> list[Message]:
        """Return every message. Reads those before the window from the store."""
        return self.page(0, self._copy.log.end)

    @alters_data
    async def aall(self) -> list[Message]:
        """See `all`."""
        return await self.apage(0, self._copy.log.end)

    def page(self, start: int, stop: int) -> list[Message]:
        """Return messages `start` to `stop`, as a slice does. Reads what is not in memory.

        Raises:
            ConversationInterrupted: it was deleted, shortened or has expired in the meantime.
        """
        view = self._copy.log.view()
        start, stop = _bounds(view, start, stop)
        return view.assemble(self._read(view, start, stop), start, stop)

    @alters_data
    async def apage(self, start: int, stop: int) -> list[Message]:
        """See `page`."""
        view = self._copy.log.view()
        start, stop = _bounds(view, start, stop)
        return view.assemble(await self._aread(view, start, stop), start, stop)

    def _read(self, view: MessageView, start: int, stop: int) -> Sequence[Pair]:
        """Return those of the messages `start` to `stop` that are not in memory."""
        missing = view.missing(start, stop)
        read = self._repository.read_messages(self._copy.id, *missing) if missing else ()
        if missing and len(read) < missing[1] - missing[0]:
            self._check_dropped(read, missing, self._repository.exists(self._copy.id))
        return read

    async def _aread(self, view: MessageView, start: int, stop: int) -> Sequence[Pair]:
        missing = view.missing(start, stop)
        read = await self._repository.aread_messages(self._copy.id, *missing) if missing else ()
        if missing and len(read) < missing[1] - missing[0]:
            self._check_dropped(read, missing, await self._repository.aexists(self._copy.id))
        return read

    def _check_dropped(self, read: Sequence[Pair], missing: tuple[int, int], exists: bool) -> None:
        """Check that what is missing was dropped as the oldest, if that is how it is set: then what
        is left comes right before the messages in memory."""
        drops = self._copy.log.options.when_full == "drop_oldest"
        is_end = not read or (
            isinstance(read, PackedMessages) and read.start + len(read) == missing[1]
        )
        if not (drops and exists and is_end):
            raise ConversationInterrupted(
                "The conversation was deleted, shortened or has expired since it was loaded."
            )

    def __len__(self) -> int:
        return len(self._copy.log)

    @overload
    def __getitem__(self, wanted: int) -> Message: ...
    @overload
    def __getitem__(self, wanted: slice) -> list[Message]: ...
    def __getitem__(self, wanted: int | slice) -> Message | list[Message]:
        if not self._is_among_newest(wanted):
            refuse_async("Messages counted from the first", "messages.apage(start, stop)")
        view = self._copy.log.view()
        positions = range(view.dropped, view.end)[wanted]  # checks as a list does
        if isinstance(positions, int):
            return self._slice(view, positions, positions + 1)[0]
        if not positions:
            return []
        first, last = sorted((positions[0], positions[-1]))
        found = self._slice(view, first, last + 1)
        first = last + 1 - len(found)  # the oldest may have been dropped meanwhile
        return [found[position - first] for position in positions if position >= first]

    def _is_among_newest(self, wanted: int | slice) -> bool:
        """Tell whether what is asked for is among the newest WINDOW, however many there are."""
        window = self._copy.log.options.window
        if not isinstance(wanted, slice):
            return -window <= wanted < 0
        if wanted.step is not None and wanted.step < 0:
            return wanted.stop is not None and -window - 1 <= wanted.stop < 0
        return wanted.start is not None and -window <= wanted.start < 0

    def __iter__(self) -> Iterator[Message]:
        return iter(self._every())

    async def __aiter__(self) -> AsyncIterator[Message]:
        for message in await self.aall():
            yield message

    def __reversed__(self) -> Iterator[Message]:
        return reversed(self._every())

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of the first message that equals `value`, as a list does."""
        return self._every().index(value, start, len(self) if stop is None else stop)

    def __repr__(self) -> str:
        return f"<Messages: {len(self)}>"

    __sentry_repr__ = __repr__

    def _every(self) -> list[Message]:
        refuse_async("All messages", "messages.aall()", "`async for message in messages`, or ")
        view = self._copy.log.view()
        return self._slice(view, view.dropped, view.end)

    def _slice(self, view: MessageView, start: int, stop: int) -> list[Message]:
        """Return the messages at positions `start` to `stop`."""
        if view.missing(start, stop):  # in async code only after truncate
            refuse_async("These messages", "messages.apage(start, stop)")
        return view.assemble(self._read(view, start, stop), start, stop)


def _bounds(view: MessageView, start: int, stop: int) -> tuple[int, int]:
    start, stop, _ = slice(start, stop).indices(view.end)
    return max(start, view.dropped), stop


def refuse_async(what: str, awaited: str, rather: str = "") -> None:
    """Raise `SynchronousOnlyOperation` in an event loop, however Django is set to see to that."""
    async_unsafe(
        f"{what} may have to be read from the store, which would block the event loop. Write "
        f"{rather}`await {awaited}`."
    )(lambda: None)()


def is_async() -> bool:
    """Tell whether an event loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
