"""The messages of a conversation in their table. `MessageRows` reads what it is asked for, and
notes what becomes of them; `write` does it."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Length

from ...exceptions import ConversationCorrupt
from ..records import Replacement
from ..toolkit.message_list import MessageList
from ..toolkit.packed import PackedMessages, Pair, data_of, id_of, key_of, pack_under
from .copies import as_text, message_copy
from .models import Message
from .sql import insert_messages, select_messages


class MessageRows(MessageList):
    """The messages of a stored conversation. Those that are in memory are those that were appended
    to it, and not written yet."""

    __slots__ = (
        "_alias",
        "_conversation",
        "_found",
        "_newest",
        "_oldest",
        "_stored_dropped",
        "_stored_end",
        "replaced",
    )

    def __init__(
        self, alias: str, conversation: int, *, dropped: int, count: int, last_key: bytes
    ) -> None:
        """Describe the messages of the conversation with this primary key: how many they are, and
        how many came before. No I/O."""
        super().__init__(dropped=dropped, unloaded=count, last_key=last_key)
        self._alias, self._conversation = alias, conversation
        self.replaced: dict[int, bytes] = {}  # by their positions
        self._found: dict[str, tuple[int, bytes]] = {}
        self._newest: PackedMessages | None = None
        self._oldest: Pair | None = None
        self._stored_dropped, self._stored_end = dropped, dropped + count

    @property
    def rows(self) -> QuerySet[Message]:
        """Their rows."""
        return Message.objects.using(self._alias).filter(conversation=self._conversation)

    def look_up(self, ids: Iterable[str]) -> None:
        """Read the messages with these ids, as far as they are there."""
        if ids := list(ids):
            self._found = find_in(self.rows, ids)

    @property
    def only_grow(self) -> bool:
        """Whether nothing becomes of those that are stored."""
        is_whole = self.dropped + self.unloaded == self._stored_end
        return is_whole and self.dropped == self._stored_dropped and not self.replaced

    def read(self, window: int) -> None:
        """Read the newest messages, and the first one, if they were not read with the row."""
        if self._newest is None:
            start = max(self.dropped, self.end - window)
            packed = self._checked(start, self._select(start, also=self.dropped))
            if self._oldest is None and self.end > self.dropped:
                raise _missing()
            self._newest = PackedMessages(packed, start)

    def take(self, window: int, newest: bytes | None, first: bytes | None) -> None:
        """Take over what was read with the row: see `Found`.

        Raises:
            ConversationCorrupt: some are missing.
        """
        packed = _unframed(bytes(newest or b""))
        start = max(self.dropped, self.end - window)
        # They were counted by positions of this range, each of which there is once.
        is_whole = start + len(packed) == self.end and (first is None) == (self.dropped == self.end)
        if not is_whole or (packed and key_of(packed[-1]) > self.last_key):
            raise _missing()
        if first is not None:
            self._oldest = id_of(bytes(first), self.dropped), data_of(bytes(first))
        self._newest = PackedMessages(packed, start)

    def data(self, id: str) -> bytes | None:
        """See `MessageList.data`. Only for those that were looked up."""
        found = self._found.get(id)
        return None if found is None else data_of(found[1])

    def replace(self, replacement: Replacement) -> None:
        """See `MessageList.replace`. Only for those that were looked up."""
        if (found := self._found.get(replacement.id)) is not None:
            position, old = found
            new = _with_data(old, replacement)
            self.replaced[position] = new
            self._found[replacement.id] = position, new

    def newest(self, window: int) -> PackedMessages:
        """See `MessageList.newest`. Only before anything is appended."""
        if not window:
            return PackedMessages([], self.end)
        start = max(self.dropped, self.end - window)
        if self._newest is not None and self._newest.start <= start:
            return self._newest[start - self._newest.start :]
        return PackedMessages(self._checked(start, self._select(start, also=start)), start)

    def first(self) -> Pair | None:
        """See `MessageList.first`. Only after `read`."""
        return self._oldest

    def write(self) -> int:
        """Write what has become of them. Return by how many bytes they have grown."""
        grown = self._delete(Q(position__lt=self.dropped), self.dropped > self._stored_dropped)
        kept = self.dropped + self.unloaded
        grown += self._delete(Q(position__gte=kept), kept < self._stored_end)
        for position, packed in self.replaced.items():
            if self.dropped <= position < kept:
                grown += self._write_one(position, packed)
        return grown + insert(self._alias, self._conversation, self.packed, self.start)

    def _is_kept(self, id: str, keep: int | None) -> bool:
        found = self._found.get(id)
        return found is not None and (keep is None or found[0] < keep)

    def _select(self, start: int, also: int) -> list[tuple[int, bytes]]:
        return select_messages(self._alias, self._conversation, start, self.end, also)

    def _checked(self, start: int, found: Iterable[tuple[int, bytes]]) -> list[bytes]:
        """Return the messages from a position on of those that were found, packed. The first of all
        is kept beside them, if it was found.

        Raises:
            ConversationCorrupt: some are missing, or are not of this conversation as it was when
                its row was read.
        """
        packed: list[bytes] = []
        for position, data in found:
            data = self.replaced.get(position, bytes(data))
            if position == self.dropped:
                self._oldest = id_of(data, position), data_of(data)
            if position >= start:
                if position != start + len(packed) or key_of(data) > self.last_key:
                    break
                packed.append(data)
        if start + len(packed) != self.end:
            raise _missing()
        return packed

    def _delete(self, where: Q, is_needed: bool) -> int:
        if not is_needed:
            return 0
        rows = self.rows.filter(where)
        size = rows.aggregate(size=Sum(Length("data")))["size"] or 0
        rows.delete()
        return -int(size)

    def _write_one(self, position: int, packed: bytes) -> int:
        row = self.rows.filter(position=position)
        before = row.aggregate(size=Sum(Length("data")))["size"]
        row.update(data=packed, **message_copy(data_of(packed)))
        return len(packed) - int(before)


def _missing() -> ConversationCorrupt:
    return ConversationCorrupt("Messages of the conversation are missing.")


def insert(alias: str, conversation: int, packed: Iterable[bytes], start: int) -> int:
    """Insert messages from position `start` on. Return their size in bytes."""
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for message in packed:
            size += len(message)
            yield message

    insert_messages(alias, conversation, columns_of_messages(counted(), start))
    return size


def columns_of_messages(packed: Iterable[bytes], start: int) -> Iterator[dict[str, Any]]:
    """Yield what the rows of messages have, from position `start` on."""
    for position, message in enumerate(packed, start):
        yield {
            "position": position,
            "message_id": as_text(id_of(message, position)),
            "data": message,
            **message_copy(data_of(message)),
        }


def _unframed(framed: bytes) -> list[bytes]:
    found, start = [], 0
    while start < len(framed):
        stop = start + 4 + int.from_bytes(framed[start : start + 4])
        found.append(framed[start + 4 : stop])
        start = stop
    return found


def find_in(rows: QuerySet[Message], ids: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """Return positions and packed bytes of messages, by their ids."""
    found = {}
    wanted, names = set(ids), {as_text(id) for id in ids}
    where = rows.filter(message_id__in=names).order_by("-position")
    for position, data in where.values_list("position", "data"):
        packed = bytes(data)
        if (id := id_of(packed, position)) in wanted:
            found[id] = position, packed
    return found


def _with_data(packed: bytes, replacement: Replacement) -> bytes:
    key = key_of(packed)
    if key.hex() == replacement.id:
        return b"%b\0%b" % (key, replacement.new)
    return pack_under(key, replacement.id, replacement.new)
