"""How much memory of the process something takes, which is more than its bytes of JSON: every key,
value and message is an object with a header, and has a place in a dictionary or a list.

The constants are what CPython 3.11 to 3.14 takes on a 64-bit machine (`sys.getsizeof`, measured),
with half of what the allocator rounds up to: 16 bytes. What is computed from them is the memory of
the process to about a fifth.
"""

from collections.abc import Collection, Mapping, Sequence
from sys import getsizeof
from typing import Final

from ..records import Change, Replacement
from .packed import PackedMessages, Pair, size_of

BYTES_OVERHEAD: Final = 50  # a bytes object besides its contents (33), with its place in a list
ASCII_OVERHEAD: Final = 57  # a str of ASCII besides its characters (49)
WIDE_OVERHEAD: Final = 84  # any other str (76), of at most 4 bytes a character
PAIR_OVERHEAD: Final = 210  # a message as a tuple of id and bytes, besides the bytes
GIVEN_OVERHEAD: Final = 220  # an id that is no key, in `MessageList.given`
SLOT: Final = 45  # a place in a dictionary that has just grown
ITEM_OVERHEAD: Final = SLOT + WIDE_OVERHEAD + BYTES_OVERHEAD  # a key and its value, besides both


def memory_of_texts(texts: Collection[str]) -> int:
    """Return the bytes of memory of some strings."""
    joined = "".join(texts)
    if joined.isascii():
        return len(texts) * ASCII_OVERHEAD + len(joined)
    return len(texts) * WIDE_OVERHEAD + 4 * len(joined)


def memory_of(
    state: Mapping[str, bytes], messages: Sequence[Pair], first: Pair | None = None
) -> int:
    """Return the bytes of memory of the values and the messages of a record or a change. Keys are
    taken for wide ones."""
    # Each load and each save comes here, so there is no further call, as they mostly are.
    if type(messages) is PackedMessages:
        packed = messages.packed
        size = BYTES_OVERHEAD * len(packed) + sum(map(len, packed))
    else:
        size = memory_of_messages(messages)
    if state:
        size += ITEM_OVERHEAD * len(state) + 4 * sum(map(len, state))
        size += sum(map(len, state.values()))
    return size if first is None else size + PAIR_OVERHEAD + len(first[1])


def memory_of_state(state: Mapping[str, bytes]) -> int:
    """Return the bytes of memory of a dictionary of keys and values."""
    values = len(state) * BYTES_OVERHEAD + sum(map(len, state.values()))
    return getsizeof(state) + memory_of_texts(state) + values


def memory_of_messages(messages: Sequence[Pair]) -> int:
    """Return the bytes of memory of messages."""
    if type(messages) is PackedMessages:
        return sum(map(len, messages.packed)) + BYTES_OVERHEAD * len(messages.packed)
    return size_of(messages) + PAIR_OVERHEAD * len(messages)


def memory_of_change(change: Change) -> int:
    """Return the bytes of memory of what a change contains, besides the change itself."""
    size = memory_of(change.set, change.append)
    if change.unset:
        size += memory_of_texts(change.unset)
    if change.increment:
        size += memory_of_texts(change.increment) + len(change.increment) * SLOT
    if change.once:
        size += memory_of_texts(change.once) + len(change.once) * SLOT
    for each in change.replace:
        size += memory_of_replacement(each)
    for key, old in change.expected.items():
        size += SLOT + BYTES_OVERHEAD + len(key) + len(old or b"")
    return size


def memory_of_replacement(replacement: Replacement) -> int:
    """Return the bytes of memory of a message that is replaced."""
    size = PAIR_OVERHEAD + 2 * BYTES_OVERHEAD
    return size + len(replacement.new) + len(replacement.old or b"")
