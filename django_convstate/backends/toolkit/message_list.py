"""The messages of a stored conversation in the memory of this process, as packed.py describes
them."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ...exceptions import BackendUnavailable
from ..records import Change, Replacement
from .packed import (
    CLOCK_SLACK_MS,
    KEY_SIZE,
    NO_KEY,
    PackedMessages,
    Pair,
    data_of,
    given_id,
    id_of,
    is_natural,
    key_of,
    locator,
    next_key,
    pack_under,
    packing,
    to_append,
)

_OLD_ID: Final = re.compile("#(0|[1-9][0-9]*)")
OLDER_MESSAGES: Final = "The older messages cannot be read while the store is unavailable."


@dataclass(slots=True, repr=False)
class Addition:
    """What appending does: the messages as they are packed, which keys were given to ids that are
    no keys, which ids were there already, and the last key after it."""

    packed: list[bytes]
    given: dict[bytes, bytes]
    existing: Sequence[str]
    last_key: bytes


@dataclass(slots=True, repr=False)
class MessageList:
    """The newest of the messages, packed.

    `dropped` is how many came before and are gone; `unloaded` is how many come between, which the
    store has and this process has not loaded. `given` maps the locator of an id to the key of its
    message, for messages whose id is not their key; None: not looked up yet.
    """

    packed: list[bytes] = field(default_factory=list)
    dropped: int = 0
    unloaded: int = 0
    last_key: bytes = NO_KEY
    given: dict[bytes, bytes] | None = None

    @classmethod
    def of(cls, messages: Iterable[Pair], dropped: int, last_key: bytes) -> "MessageList":
        """Return all the messages that follow the dropped ones."""
        packed = list(packing(messages))
        return cls(packed, dropped, 0, max(last_key, key_of(packed[-1]) if packed else NO_KEY))

    def copy(self) -> "MessageList":
        """Return a copy that can be changed without changing this one."""
        return MessageList(self.packed.copy(), self.dropped, self.unloaded, self.last_key)

    def __len__(self) -> int:
        return self.unloaded + len(self.packed)

    @property
    def start(self) -> int:
        """The position of the first message that is loaded."""
        return self.dropped + self.unloaded

    @property
    def end(self) -> int:
        """The position after the last message."""
        return self.dropped + self.unloaded + len(self.packed)

    @property
    def size(self) -> int:
        """What they take, in bytes of JSON."""
        return sum(len(data_of(packed)) for packed in self.packed)

    def newest(self, window: int) -> PackedMessages:
        """Return the newest messages."""
        packed = self.packed[-window:] if window else []
        return PackedMessages(packed, self.end - len(packed))

    def first(self) -> Pair | None:
        """Return the first message that is there; None: it is not loaded."""
        if self.unloaded or not self.packed:
            return None
        return id_of(self.packed[0], self.start), data_of(self.packed[0])

    def between(self, start: int, stop: int) -> PackedMessages:
        """Return the messages at positions `start` to `stop`; those that are gone are left out.

        Raises:
            BackendUnavailable: some of them are not loaded.
        """
        start = max(start, self.dropped)
        if start < min(stop, self.start):
            raise BackendUnavailable(OLDER_MESSAGES)
        first = max(0, start - self.start)
        return PackedMessages(self.packed[first : max(0, stop - self.start)], self.start + first)

    def find(self, id: str) -> tuple[int, bytes] | None:
        """Return the position of a message, and its bytes; None: there is no such message.

        Raises:
            BackendUnavailable: perhaps there is, among those that are not loaded.
        """
        index = self._index(id)
        if index is None and self.unloaded:
            raise BackendUnavailable(OLDER_MESSAGES)
        return None if index is None else (self.start + index, data_of(self.packed[index]))

    def data(self, id: str) -> bytes | None:
        """Return the bytes of a message; None: it is not there, or not loaded."""
        index = self._index(id)
        return None if index is None else data_of(self.packed[index])

    def replace(self, replacement: Replacement) -> None:
        """Give a message new bytes, if it is loaded."""
        index = self._index(replacement.id)
        if index is not None:
            key = key_of(self.packed[index])
            self.packed[index] = (
                b"%b\0%b" % (key, replacement.new)
                if key.hex() == replacement.id
                else pack_under(key, replacement.id, replacement.new)
            )

    def truncate(self, keep: int) -> None:
        """Keep the messages before position `keep`."""
        kept = max(0, keep - self.start)
        self._forget_given(self.packed[kept:])
        del self.packed[kept:]
        self.unloaded = max(0, min(self.unloaded, keep - self.dropped))

    def prepare(self, change: Change, now: float) -> Addition:
        """Return what appending the messages of `change` will do. Nothing is appended yet."""
        latest = (int(now * 1000) + CLOCK_SLACK_MS << 32).to_bytes(KEY_SIZE)
        packed: list[bytes] = []
        given: dict[bytes, bytes] = {}
        existing: list[str] = []
        last, once = self.last_key, set(change.once)
        for message in to_append(change.append):
            place = message[:KEY_SIZE]
            if change.once:
                id = id_of(message, 0)
                if id in change.once and (
                    id not in once or self._is_kept(id, change.keep_messages)
                ):
                    existing.append(id)  # it is stored already, or comes twice in this change
                    continue
                once.discard(id)
            if last < place <= latest:
                last = place
                packed.append(message)
            else:
                last = given[place] = next_key(last)
                packed.append(pack_under(last, id_of(message, 0), data_of(message)))
        return Addition(packed, given, existing, last)

    def stored_otherwise(self, change: Change) -> list[str]:
        """Return which messages of a change that was applied were there already: those that are
        stored with other bytes."""
        return [
            id
            for id, data in change.append
            if id in change.once and self.data(id) not in (None, data)
        ]

    def _is_kept(self, id: str, keep: int | None) -> bool:
        index = self._index(id)
        return index is not None and (keep is None or self.start + index < keep)

    def extend(self, added: Addition) -> None:
        """Append what was prepared."""
        if added.given:
            self._given().update(added.given)
        self.packed += added.packed
        self.last_key = added.last_key

    def drop_oldest(self, count: int) -> None:
        """Drop the first `count` messages."""
        unloaded = min(count, self.unloaded)
        self.dropped += count
        self.unloaded -= unloaded
        self._forget_given(self.packed[: count - unloaded])
        del self.packed[: count - unloaded]

    def adopt(self, others: Sequence[Pair], end: int) -> None:
        """Take over messages that another store has, and that end at position `end` there, in the
        place of all from the first of them on."""
        start = end - len(others)
        if start > self.end:
            self.packed.clear()  # there is a gap
        del self.packed[max(0, start - self.start) :]
        self.packed += packing(others)
        self.given = None

    def settle(self, dropped: int, count: int, last_key: bytes) -> None:
        """Count as another store does, with no more than `count` messages."""
        del self.packed[: max(0, len(self.packed) - count)]
        self.dropped, self.unloaded = dropped, count - len(self.packed)
        self.last_key = last_key

    def since(self, seen: tuple[int, bytes], window: int) -> Sequence[Pair]:
        """Return what was appended behind `seen` (see `Change`), at most a window of it; or the
        newest window, if messages from before are gone."""
        if not window or (seen[1] == self.last_key and seen[0] == self.end):
            return ()
        newest = self.newest(window)
        index = bisect_left(newest.packed, next_key(seen[1]), key=key_of)
        is_cut = index == 0 and len(newest) < len(self)
        return newest if is_cut or newest.start + index != seen[0] else newest[index:]

    def _index(self, id: str) -> int | None:
        """Return where in `packed` a message is."""
        place = locator(id)
        key = self._given().get(place, place)
        if is_natural(key):
            index = bisect_left(self.packed, key, key=key_of)
        elif _OLD_ID.fullmatch(id):  # perhaps one that 0.1 has stored
            index = int(id[1:]) - self.start
        else:
            return None
        is_there = (
            0 <= index < len(self.packed) and id_of(self.packed[index], self.start + index) == id
        )
        return index if is_there else None

    def _given(self) -> dict[bytes, bytes]:
        if self.given is None:
            self.given = {
                locator(id): key_of(packed)
                for packed in self.packed
                if (id := given_id(packed)) is not None and key_of(packed) != NO_KEY
            }
        return self.given

    def _forget_given(self, packed: list[bytes]) -> None:
        if self.given:
            for each in packed:
                if (id := given_id(each)) is not None:
                    self.given.pop(locator(id), None)
