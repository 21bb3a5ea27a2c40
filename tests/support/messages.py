"""Messages as a backend sees them, for tests to which their ids do not matter."""

from collections.abc import Iterable

from django_convstate.backends.toolkit.packed import Pair
from django_convstate.ids import next_message_id


def pairs(*bodies: bytes) -> list[Pair]:
    """Return messages with fresh ids, in the order of their keys."""
    first = next_message_id(0, b"")
    return [(f"{first + number:020x}", body) for number, body in enumerate(bodies)]


def bodies(messages: Iterable[Pair]) -> list[bytes]:
    """Return the bytes of messages, without their ids."""
    return [body for _, body in messages]
