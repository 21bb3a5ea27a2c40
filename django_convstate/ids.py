"""Ids of conversations and messages, and owners: how ids are made, which are accepted, how they are
logged.

The id of a conversation is a key in the store and no secret by itself. What a client holds is a
token: see tokens.py.
"""

import base64
import hashlib
import os
import random
import re
import secrets
import uuid
from typing import Final, Protocol, TypeAlias

from django.utils.crypto import salted_hmac

from . import clock
from .codec import encode
from .exceptions import InvalidConversationId, InvalidConversationType, InvalidConversationValue

MAX_LENGTH: Final = 128
MAX_OWNER_LENGTH: Final = 256
MAX_MESSAGE_ID_LENGTH: Final = 64


class User(Protocol):
    """What counts as a user: a model of django.contrib.auth, or one like it."""

    @property
    def pk(self) -> object:
        """The primary key; None: the user is not saved."""

    @property
    def is_authenticated(self) -> bool:
        """False for an anonymous user, who owns nothing."""


Owner: TypeAlias = str | User | None

# Room for "whatsapp:+15550100", "user@example.com", "C024BE91L:1712.5"; none for what has a meaning
# in a path, a header, a glob or a hash tag.
_VALID = re.compile(r"[A-Za-z0-9_+@-][A-Za-z0-9_.:+@=~-]*", re.ASCII)

# For the ids of messages, which are no secret: asking the operating system would release the
# interpreter's lock, and a server with threads would switch to another one. It is our own, because
# a project may seed the module's, and then all of its processes alike. Forked processes go on with
# the same numbers, which the process id makes different.
_random = random.Random()  # noqa: S311


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


def key_id(*parts: object) -> str:
    """Return a valid id for any text, number or UUID, or for several of them: the same one each
    time. A tuple counts as one part, unless it is the only argument.

    Raises:
        InvalidConversationType: a part is something else, or there is none.
    """
    if len(parts) == 1 and isinstance(parts[0], tuple):
        parts = parts[0]
    if not parts:
        raise InvalidConversationType("A key is made of at least one part.")
    digest = hashlib.blake2b(encode(_texts(parts), "key"), digest_size=16).digest()
    return "key-" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _texts(parts: tuple[object, ...]) -> list[object]:
    texts: list[object] = []
    for part in parts:
        if isinstance(part, tuple):
            texts.append(_texts(part))
        elif isinstance(part, str | int | uuid.UUID) and not isinstance(part, bool):
            texts.append(str(part))
        else:
            raise InvalidConversationType(
                f"A key is made of strings, integers, UUIDs and tuples of them, not of "
                f"{type(part).__name__}."
            )
    return texts


def owner_of(owner: Owner) -> str | None:
    """Return the owner that a string or a user stands for. None and an anonymous user: no owner.

    Raises:
        InvalidConversationType: it is neither.
        InvalidConversationValue: it is empty, "None", longer than 256 characters, not UTF-8, or has
            a NUL character.
    """
    if owner is None:
        return None
    if not isinstance(owner, str):
        if not (hasattr(owner, "is_authenticated") and hasattr(owner, "pk")):
            raise InvalidConversationType(
                f"An owner is a string or a user, not {type(owner).__name__}: for another kind of "
                "owner write str() of what identifies it."
            )
        return _owner_of_key(owner.pk) if owner.is_authenticated else None
    if not 0 < len(owner) <= MAX_OWNER_LENGTH:
        raise InvalidConversationValue(
            f"An owner has 1 to {MAX_OWNER_LENGTH} characters, not {len(owner)}."
        )
    if owner == "None":
        raise InvalidConversationValue(
            'The owner "None" is probably str(user.pk) of a visitor who is not logged in. Write '
            "owner=request.user: an anonymous user is no owner."
        )
    if "\0" in owner:
        raise InvalidConversationValue(
            "An owner cannot have a NUL character: columns of a database do not take it."
        )
    encode(owner, "An owner")
    return owner


def _owner_of_key(key: object) -> str:
    """Return the owner of a user with this primary key, of whatever type and length it is."""
    if key is None:
        raise InvalidConversationValue("A user has to be saved to own anything.")
    text = str(key)
    if 0 < len(text) <= MAX_OWNER_LENGTH and text != "None" and "\0" not in text:
        return text
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


# The id of a message, where the caller gives none, is 10 bytes in hex: the time in milliseconds (6
# bytes) and a random number (4), as in a UUID of version 7 (RFC 9562), only shorter. As bytes it is
# the message's sort key too, unless others have appended since: see backends/toolkit/packed.py.


def next_message_id(own: int, seen: bytes) -> int:
    """Return a fresh message id as a number: above `own`, the last one that was made here, and
    above `seen`, the last sort key that is known of the store.

    It counts on from our own, but never from another writer's: two who do so would make the same.
    """
    last = int.from_bytes(seen)
    if own > last:
        return own + 1
    milliseconds = max(int(clock.time() * 1000), (last >> 32) + 1)
    return milliseconds << 32 | _random.getrandbits(32) ^ os.getpid()


def validate_message_id(id: object) -> str:
    """Return `id` unchanged.

    Raises:
        InvalidConversationType: it is not a string.
        InvalidConversationValue: it is empty, longer than 64 characters, or not UTF-8.
    """
    if not isinstance(id, str):
        raise InvalidConversationType(
            f"The id of a message is a string, not {type(id).__name__}; write str() of it."
        )
    if not 0 < len(id) <= MAX_MESSAGE_ID_LENGTH:
        raise InvalidConversationValue(
            f"The id of a message has 1 to {MAX_MESSAGE_ID_LENGTH} characters, not {len(id)}."
        )
    encode(id, "The id of a message")
    if len(id.encode()) > 255:  # one byte says how long it is
        raise InvalidConversationValue("The id of a message has at most 255 bytes.")
    return str.__str__(id)


def hashed_id(id: str) -> str:
    """Return what stands for `id` in logs and reprs. Keyed with SECRET_KEY, because an id may be a
    phone number, and those are few enough to try all."""
    return salted_hmac("django_convstate.log", id, algorithm="sha256").hexdigest()[:12]
