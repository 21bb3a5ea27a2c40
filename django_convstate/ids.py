"""Conversation ids and owners: how ids are made, which are accepted, how they are logged.

An id is a key in the store and no secret by itself. What a client holds is a token: see tokens.py.
"""

import re
import secrets

from django.utils.crypto import salted_hmac

from .codec import encode
from .exceptions import InvalidConversationId, InvalidConversationType, InvalidConversationValue

MAX_LENGTH = 128
MAX_OWNER_LENGTH = 256

# Room for "whatsapp:+15550100", "user@example.com", "C024BE91L:1712.5"; none for what has a meaning
# in a path, a header, a glob or a hash tag.
_VALID = re.compile(r"[A-Za-z0-9_+@-][A-Za-z0-9_.:+@=~-]*", re.ASCII)


def new_id() -> str:
    """Return a fresh id with 128 bits from the operating system's random source."""
    id = secrets.token_urlsafe(16)
    # As the argument of a command, one that begins with a dash would look like an option.
    return new_id() if id.startswith("-") else id


def validate_id(id: object) -> str:
    """Return `id` unchanged.

    Raises:
        InvalidConversationId: it is not a string of 1 to 128 of the allowed characters.
    """
    if isinstance(id, str) and len(id) <= MAX_LENGTH and _VALID.fullmatch(id):
        return id
    raise InvalidConversationId(_why_invalid(id))


def _why_invalid(id: object) -> str:
    # The id itself is not repeated: it may be long, hostile, or a phone number.
    if not isinstance(id, str):
        return f"A conversation id is a string, not {type(id).__name__}."
    if not id:
        return "A conversation id cannot be empty."
    if len(id) > MAX_LENGTH:
        return f"A conversation id has at most {MAX_LENGTH} characters; this one has {len(id)}."
    return (
        "A conversation id consists of ASCII letters, digits and _ . : + @ = ~ - "
        "and does not begin with one of . : = ~"
    )


def validate_owner(owner: object) -> str:
    """Return `owner` unchanged.

    Raises:
        InvalidConversationType: it is not a string.
        InvalidConversationValue: it is empty, longer than 256 characters, or not UTF-8.
    """
    if not isinstance(owner, str):
        raise InvalidConversationType(
            f"An owner is a string, not {type(owner).__name__}: for a user, str(user.pk)."
        )
    if not 0 < len(owner) <= MAX_OWNER_LENGTH:
        raise InvalidConversationValue(
            f"An owner has 1 to {MAX_OWNER_LENGTH} characters, not {len(owner)}."
        )
    encode(owner, "An owner")
    return owner


def hashed_id(id: str) -> str:
    """Return what stands for `id` in logs and reprs. Keyed with SECRET_KEY, because an id may be a
    phone number, and those are few enough to try all."""
    return salted_hmac("django_convstate.log", id, algorithm="sha256").hexdigest()[:12]
