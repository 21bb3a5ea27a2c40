"""What the primary has to be told when it is back, by conversation and in the order in which it
happened."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from ...exceptions import BackendUnavailable
from ..records import Change, Create
from ..toolkit.stored import Entry

# Bytes that a Change, a line of the journal and what the fallback has of it take besides their
# contents, measured.
OVERHEAD: Final = 1800
LINE_OVERHEAD: Final = 2600


@dataclass(frozen=True, slots=True)
class Touch:
    """The expiry was slid, with a new idle time in seconds or the old one."""

    ttl: float | None


@dataclass(frozen=True, slots=True)
class Delete:
    """The conversation was deleted, at a moment in seconds since the epoch; everything before is
    of no account, and what somebody has begun under its id since then is none of its business."""

    at: float


Write = Change | Touch | Delete


@dataclass(slots=True)
class Line:
    """What has happened to one conversation.

    `base` is what was known of it before; None: nothing. `surplus` is how many messages the primary
    turned out to have more than was thought here, once that is known. They are behind the `shared`
    ones, those from before that are still wanted, and what was said here is behind them.
    """

    base: Entry | None
    # Each with the number of messages there are after it, as was thought here.
    writes: deque[tuple[Write, int]] = field(default_factory=deque)
    surplus: int | None = None
    shared: int = 0
    # All of `base`, on its way to a primary from which it has expired meanwhile.
    restoring: Change | None = None
    size: int = LINE_OVERHEAD

    @property
    def is_all_known(self) -> bool:
        """Whether there is nothing to it that is not known here: it was begun here, if nothing
        was known before."""
        first = self.writes[0][0] if self.writes else None
        return self.base is not None or (
            isinstance(first, Change) and first.create is Create.MUST_BE_NEW
        )


class Journal:
    """Bounded: when `max_bytes` are reached, nothing more is accepted. Not locked; who uses it
    does that."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lines: dict[str, Line] = {}
        self._bytes = 0
        self.pending = 0
        self.refused = 0

    def __contains__(self, id: str) -> bool:
        return id in self._lines

    def ids(self) -> list[str]:
        """Those of which there is something to tell, the longest waiting first."""
        return list(self._lines)

    def line(self, id: str) -> Line | None:
        return self._lines.get(id)

    @property
    def is_full(self) -> bool:
        """Whether hardly anything can be added."""
        return self._bytes + 2 * LINE_OVERHEAD > self._max_bytes

    def make_room(self, write: Write, base: Entry | None) -> None:
        """Make sure that `write` can be added, to what is known of its conversation.

        Raises:
            BackendUnavailable: the journal is full. Nothing was changed.
        """
        if self._bytes + _first(base) + _size(write) > self._max_bytes:
            self.refused += 1
            raise BackendUnavailable(
                f"The store cannot be reached, and the {self._max_bytes >> 20} MiB in which this "
                "process notes what is to be told it later are full. Nothing was changed.",
                transient=False,
            )

    def add(self, id: str, write: Write, count: int, base: Entry | None) -> None:
        if id not in self._lines:
            shared = 0 if base is None else base.message_count
            self._lines[id] = Line(base, shared=shared, size=_first(base))
            self._bytes += _first(base)
        line, size = self._lines[id], _size(write)
        line.writes.append((write, count))
        line.size += size
        self._bytes += size
        self.pending += 1

    def done(self, id: str) -> bool:
        """Strike out the first write of a conversation, and tell whether it was the last."""
        line = self._lines[id]
        write, _ = line.writes.popleft()
        line.size -= _size(write)
        self._bytes -= _size(write)
        self.pending -= 1
        if line.writes:
            return False
        self.drop(id)
        return True

    def drop(self, id: str) -> int:
        """Strike out all of a conversation, and tell how many writes that were."""
        line = self._lines.pop(id, None)
        if line is None:
            return 0
        self._bytes -= line.size
        self.pending -= len(line.writes)
        return len(line.writes)


def _first(base: Entry | None) -> int:
    # It is here, and once more in the fallback.
    return LINE_OVERHEAD + (0 if base is None else 2 * base.size)


def _size(write: Write) -> int:
    if not isinstance(write, Change):
        return OVERHEAD
    return (
        OVERHEAD
        + sum(map(len, write.append))
        + sum(len(key) + len(value) for key, value in write.set.items())
        + sum(map(len, write.unset))
        + sum(map(len, write.increment))
    )
