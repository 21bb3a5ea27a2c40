"""Damaged documents of the cache backend, in the present format and in that of 0.1."""

from typing import Any, Final

import pytest

from django_convstate import ConversationCorrupt
from django_convstate.backends.cache import document

ID: Final = "the-id-of-the-document"
# Of both formats.
IMPOSSIBLE_FIELDS: Final[list[tuple[str, Any]]] = [
    ("ttl", "my secret"),
    ("ttl", "nan"),
    ("ttl", -1),
    ("created_at", 1e300),
    ("version", 0),
    ("version", True),
    ("owner", 5),
    ("messages", {}),
    ("state", []),
]


def check_corrupt(data: bytes) -> None:
    """Assert that `data` is no document, and that the error shows nothing of it."""
    with pytest.raises(ConversationCorrupt) as caught:
        document.parse(ID, data)
    assert "secret" not in str(caught.value)


def check_corrupt_if_cut_off(whole: bytes) -> None:
    """Assert that `whole` is a document, and that no part from its beginning is one."""
    document.parse(ID, whole)
    for end in range(len(whole)):
        check_corrupt(whole[:end])
