"""The messages of a conversation at one moment, as they were in memory. No I/O.

What has to be read from the store for it may take its time: whatever other threads or tasks append
and save meanwhile, the positions in here stay the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from ..backends.toolkit.packed import Pair, bodies_of, id_of, packed_of
from ..codec import JSON, decode, decode_all
from ..exceptions import ConversationCorrupt
from .message import Message, object_of


@dataclass(slots=True, repr=False)
class MessageView:
    """The messages are at positions `dropped` to `end`. Those from `start` on are in memory,
    `packed`.

    `oldest` is the first message with its position, as it was last known; `changed` what was made
    of messages, by their id; `is_offline` says that the store cannot be asked for others.
    """

    dropped: int
    start: int
    end: int
    packed: list[bytes]
    oldest: tuple[int, Pair] | None
    changed: Mapping[str, bytes]
    is_offline: bool

    @property
    def first(self) -> dict[str, JSON] | None:
        """The first message, if it is known, and further back than what is in memory."""
        if self.oldest is None or not self.oldest[0] == self.dropped < self.start:
            return None
        id, data = self.oldest[1]
        return object_of(decode(self.changed.get(id, data)))

    def window_start(self, size: int) -> int:
        """Return where the newest `size` messages begin, as far back as they can be reached."""
        return max(self.start if self.is_offline else self.dropped, self.end - size)

    def missing(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the bounds of the messages among `start` to `stop` that are not in memory."""
        stop = min(stop, self.start)
        return (start, stop) if start < stop else None

    def assemble(self, read: Sequence[Pair], start: int, stop: int) -> list[Message]:
        """Return the messages at positions `start` to `stop`, of which the `read` ones come
        first."""
        found = self._packed(read, start, stop)
        first = stop - len(found)
        return Message.each(self._values(found, first), found, first)

    def values(self, start: int, stop: int, read: Sequence[Pair] = ()) -> list[dict[str, JSON]]:
        """Do as `assemble`, and return plain dictionaries."""
        found = self._packed(read, start, stop)
        return self._values(found, stop - len(found))

    def _packed(self, read: Sequence[Pair], start: int, stop: int) -> list[bytes]:
        found = self.packed[max(0, start - self.start) : max(0, stop - self.start)]
        return [*packed_of(read), *found] if read else found

    def _values(self, packed: list[bytes], start: int) -> list[dict[str, JSON]]:
        bodies = bodies_of(packed)
        if self.changed:
            ids = map(id_of, packed, count(start))
            bodies = list(map(self.changed.get, ids, bodies))
        values = decode_all(bodies)
        if not {dict}.issuperset(map(type, values)):
            raise ConversationCorrupt("Among the stored messages is something else.")
        return values
