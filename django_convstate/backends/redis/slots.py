"""Ids whose conversations are in the same slot of a cluster.

A slot is the CRC-16 (XMODEM) of what is between the braces of a key, modulo 16384: see the Redis
cluster specification. CRCs are linear, so what the last three characters of an id have to be for a
certain slot follows from the characters before them, by a table.
"""

import binascii
from functools import cache
from itertools import product
from string import ascii_letters, digits
from typing import Final

from ...ids import new_id

SLOTS: Final = 16384
_CHARACTERS: Final = (ascii_letters + digits + "-_").encode()
_ZEROS: Final = bytes(3)


def slot_of(id: str) -> int:
    """Return the slot of a cluster in which the keys of a conversation are."""
    return binascii.crc_hqx(id.encode(), 0) % SLOTS


def id_in_slot_of(id: str) -> str:
    """Return a new id whose keys are in the same slot as those of `id`."""
    while True:
        stem = new_id()
        rest = binascii.crc_hqx(_ZEROS, binascii.crc_hqx(stem.encode(), 0)) % SLOTS
        if (ending := _endings().get(rest ^ slot_of(id))) is not None:
            return stem + ending


@cache
def _endings() -> dict[int, str]:
    """Return three characters for each difference that they can make to a slot."""
    return {
        binascii.crc_hqx(bytes(ending), 0) % SLOTS: bytes(ending).decode()
        for ending in product(_CHARACTERS, repeat=3)
    }
