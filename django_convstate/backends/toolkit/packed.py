"""A message as it is stored: its sort key, its id where that is another, and its bytes.

    key     10 bytes: milliseconds (6) and a random number (4), big-endian, as in message ids
    length  1 byte: of the id; 0 where the id is the key in hex
    id      UTF-8
    bytes   whatever the caller gave: nothing here reads them

Along a conversation the keys only grow, so that a message is found by bisection. One that comes
with a key that is not above the last one's (a late replay, a slow clock, an id of the caller's own)
gets the next key, and the conversation remembers which key that id was given.

What 0.1 stored is the JSON alone, which begins with "{", as no key does. Its id is "#" and its
position.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final, overload

KEY_SIZE: Final = 10
NO_KEY: Final = bytes(KEY_SIZE)  # below every other
END_OF_KEYS: Final = b"z"  # of what is restored, so that there are next keys below "{"
CLOCK_SLACK_MS: Final = 60_000  # a key further ahead of the store's clock than that is not taken
_OLD: Final = ord("{")
_BODY: Final = KEY_SIZE + 1  # where the bytes begin, if there is no id
# Of an id that is no key: in its place, above every key.
_FOREIGN: Final = b"\xff\xff"

Pair = tuple[str, bytes]  # a message: its id, and its bytes
_first, _second = itemgetter(0), itemgetter(1)


def locator(id: str) -> bytes:
    """Return 10 bytes that stand for a message id: the key that it is or, above all keys, a hash.
    Redis computes the same (redis/scripts/messages.lua)."""
    if len(id) == 2 * KEY_SIZE:
        try:
            key = bytes.fromhex(id)
        except ValueError:
            key = NO_KEY
        if key.hex() == id and key[:1] < b"{":
            return key
    return _FOREIGN + hashlib.sha1(id.encode(), usedforsecurity=False).digest()[:8]


def is_natural(place: bytes) -> bool:
    """Tell whether a locator is the key that the id is."""
    return not place.startswith(_FOREIGN)


def pack(id: str, data: bytes) -> bytes:
    """Return a message with its locator in the place of its key."""
    place = locator(id)
    if place[0] < _OLD:
        return b"%b\0%b" % (place, data)
    return pack_under(place, id, data)


def pack_under(key: bytes, id: str, data: bytes) -> bytes:
    """Return a message with a key that is not its id."""
    encoded = id.encode()
    return b"%b%c%b%b" % (key, len(encoded), encoded, data)


def header_of(packed: bytes) -> bytes:
    """Return what comes before the bytes of a stored message that is not of 0.1."""
    return packed[: KEY_SIZE + 1 + packed[KEY_SIZE]]


def key_of(packed: bytes) -> bytes:
    """Return the sort key of a stored message."""
    return NO_KEY if packed[0] == _OLD else packed[:KEY_SIZE]


def data_of(packed: bytes) -> bytes:
    """Return the bytes of a stored message, without its id."""
    return packed if packed[0] == _OLD else packed[KEY_SIZE + 1 + packed[KEY_SIZE] :]


def bodies_of(messages: list[bytes]) -> list[bytes]:
    """Return the bytes of stored messages: `data_of` each, without its calls."""
    return [
        packed if packed[0] == _OLD else packed[_BODY + packed[KEY_SIZE] :] for packed in messages
    ]


def are_keyed(messages: Iterable[bytes]) -> bool:
    """Tell whether none of the stored messages is as 0.1 has stored it, without a key."""
    return _OLD not in map(_first, messages)


def given_id(packed: bytes) -> str | None:
    """Return the id of a stored message, if it is not its key."""
    if packed[0] == _OLD or not (size := packed[KEY_SIZE]):
        return None
    return packed[KEY_SIZE + 1 : KEY_SIZE + 1 + size].decode()


def id_of(packed: bytes, position: int) -> str:
    """Return the id of the stored message at a position."""
    if packed[0] == _OLD:
        return f"#{position}"
    return given_id(packed) or packed[:KEY_SIZE].hex()


def checked(messages: list[bytes]) -> list[bytes]:
    """Return stored messages. Raises IndexError or ValueError where one is none: it would be found
    out only when it is read."""
    for packed in messages:
        if packed[0] != _OLD and (size := packed[KEY_SIZE]):
            if len(packed) <= KEY_SIZE + size:
                raise ValueError("too short for its id")
            packed[KEY_SIZE + 1 : KEY_SIZE + 1 + size].decode()
    return messages


def next_key(key: bytes) -> bytes:
    """Return the next sort key."""
    return (int.from_bytes(key) + 1).to_bytes(KEY_SIZE)


def packing(messages: Iterable[Pair]) -> Iterator[bytes]:
    """Yield messages as they are stored. Keys that would not be in order are replaced, and those
    after which there would be no room for more."""
    if type(messages) is PackedMessages and messages.has_keys:
        yield from messages.packed
        return
    last = NO_KEY
    for id, data in messages:
        place = locator(id)
        if last < place < END_OF_KEYS:
            last = place
            yield pack(id, data)
        else:
            last = next_key(last)
            yield pack_under(last, id, data)


def packed_of(messages: Sequence[Pair]) -> list[bytes]:
    """Return messages as they are stored; not to be changed."""
    return messages.packed if type(messages) is PackedMessages else list(packing(messages))


def size_of(messages: Sequence[Pair]) -> int:
    """Return how many bytes messages take, with or without what comes beside their own."""
    if type(messages) is PackedMessages:
        return sum(map(len, messages.packed))
    return sum(map(len, map(_second, messages)))


class PackedMessages(Sequence[Pair]):
    """Stored messages as pairs of id and bytes. They are split when they are asked for: mostly they
    are not."""

    __slots__ = ("has_keys", "packed", "start")

    def __init__(self, packed: list[bytes], start: int, *, has_keys: bool = True) -> None:
        """Show messages, the first of which is at position `start`.

        `has_keys`: they are stored. Those that are yet to be stored have their locators in the
        place of their keys.
        """
        self.packed = packed
        self.start = start
        self.has_keys = has_keys

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, wanted: int) -> Pair: ...
    @overload
    def __getitem__(self, wanted: slice) -> "PackedMessages": ...
    def __getitem__(self, wanted: int | slice) -> "Pair | PackedMessages":
        if isinstance(wanted, slice):
            positions = range(len(self.packed))[wanted]
            return PackedMessages(self.packed[wanted], self.start + positions.start)
        position = range(len(self.packed))[wanted]
        packed = self.packed[position]
        return id_of(packed, self.start + position), data_of(packed)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<PackedMessages: {len(self)}>"

    __sentry_repr__ = __repr__


def to_append(messages: Sequence[Pair]) -> list[bytes]:
    """Return messages with their locators in the place of their keys; not to be changed."""
    if type(messages) is PackedMessages and not messages.has_keys:
        return messages.packed
    return [pack(id, data) for id, data in messages]
