"""Sizes as an operator writes them: "512", "10K", "1.5MiB"."""

import re
from typing import Final

from django.core.management.base import CommandError

_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?) ?(?:([KMG])(?:iB)?|B)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def bytes_of(option: str, value: object) -> int | None:
    """Return the bytes of an option such as --larger-than; None if it was not given.

    Raises:
        CommandError: it is no size.
    """
    if value is None:
        return None
    parts = re.fullmatch(
        r"([0-9]{1,15}(?:\.[0-9]+)?) ?(?:([KMG])(?:iB)?|B)?", str(value), re.IGNORECASE
    )
    if parts is None:
        raise CommandError(f"{option}: {str(value)!r} is not a size: write 512, 10K or 1.5MiB.")
    return round(float(parts[1]) * _UNITS[(parts[2] or "").upper()])
