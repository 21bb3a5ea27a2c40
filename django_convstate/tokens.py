"""Tokens: how an id travels.

A client holds the id with a signature made from SECRET_KEY, so that it can name only a conversation
that was given to it. The token of an owned conversation also has a digest of its owner, keyed with
SECRET_KEY: another visitor who presents it is turned away without asking the store.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from django.conf import settings
from django.core.signing import BadSignature, Signer, TimestampSigner, b62_decode, b62_encode
from django.utils.crypto import constant_time_compare, salted_hmac

from . import clock
from .exceptions import InvalidConversationId
from .ids import validate_id
from .tracebacks import clears_locals

_SALT: Final = "django_convstate.token"
_UNSAVED_SALT: Final = "django_convstate.token.begin"
_UNSAVED_SALT_OF_0_1: Final = "django_convstate.token.unsaved"
_OWNER_SALT: Final = "django_convstate.token.owner"
_SEPARATOR: Final = "!"  # of id and digest: in a cookie it needs no quotes, in an id it may not be
# For how many seconds a conversation may be begun by such a token: less than it is known of one
# that it was deleted, which is a day.
UNSAVED_SECONDS: Final = 12 * 3600


class HourlySigner(TimestampSigner):
    """Signs with the hour, so that a client does not get another token with each response."""

    def timestamp(self) -> str:
        """Return the beginning of this hour."""
        return b62_encode(int(clock.time()) // 3600 * 3600)

    def age_of(self, token: str) -> float:
        """Return how many seconds ago that hour began, of a token that it has signed."""
        signed_at = token.rsplit(self.sep, 2)[1]
        return clock.time() - b62_decode(signed_at)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token of ours says.

    Attributes:
        id: of the conversation.
        owner_digest: of the owner of the conversation; "": it had none.
        is_unsaved: it was made for a conversation that was not stored yet, less than
            `UNSAVED_SECONDS` ago.
        text: as it was read, if one that is made now for a stored conversation would be the same;
            "": that is not so, or not known.
    """

    id: str
    owner_digest: str
    is_unsaved: bool
    text: str = field(default="", compare=False)

    @property
    def is_owned(self) -> bool:
        """Whether the conversation had an owner when the token was made."""
        return bool(self.owner_digest)

    def is_of(self, owner: str) -> bool:
        """Tell whether it was made for this owner's conversation (SECRET_KEY_FALLBACKS count)."""
        return any(
            constant_time_compare(self.owner_digest, _digest(self.id, owner, key))
            for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        )

    def renewed(self, owner: str) -> "Token":
        """Return it with the digest of its owner by the present SECRET_KEY."""
        return Token(self.id, _digest(self.id, owner, settings.SECRET_KEY), self.is_unsaved)

    def signed(self, *, unsaved: bool) -> str:
        """Return it as a client holds it. See `sign_id`."""
        signer = HourlySigner(salt=_UNSAVED_SALT) if unsaved else Signer(salt=_SALT)
        return signer.sign(_SEPARATOR.join(filter(None, (self.id, self.owner_digest))))

    def __repr__(self) -> str:
        return "<Token>"  # which may be in a report of an error, and is as good as a password


def ids_without_owner(tokens: Iterable[Token]) -> list[str]:
    """Return the ids of those tokens whose conversations had no owner: what a login may claim."""
    return [token.id for token in tokens if not token.is_owned]


def new_token(id: str, owner: str | None) -> Token:
    """Return what the token of a conversation says."""
    token = Token(id, "", is_unsaved=False)
    return token if owner is None else token.renewed(owner)


@clears_locals
def sign_id(id: str, owner: str | None = None, *, unsaved: bool = False) -> str:
    """Return the token for `id`: what a client holds, and the only thing accepted back.

    A websocket has to be given its token with the handshake, before anything is said; and what is
    begun in an outage is stored after it. `unsaved` notes in the token that it was made for a
    conversation which is not stored yet, as far as is known, so that its absence later does not
    look as if it were gone.
    """
    return new_token(id, owner).signed(unsaved=unsaved)


@clears_locals
def read_token(token: str) -> Token | None:
    """Return what `token` says; None if we did not sign it (SECRET_KEY_FALLBACKS count)."""
    stored = Signer(salt=_SALT)
    if (value := _unsign(stored, token)) is not None:
        # Of several keys, it may not be the present one that has signed it.
        return _token(value, text="" if stored.fallback_keys else token)
    signer = HourlySigner(salt=_UNSAVED_SALT)
    if (value := _unsign(signer, token)) is not None:
        return _token(value, is_unsaved=signer.age_of(token) <= UNSAVED_SECONDS)
    value = _unsign(Signer(salt=_UNSAVED_SALT_OF_0_1), token)
    return None if value is None else _token(value)


@clears_locals
def unsign_token(token: str) -> str | None:
    """Return the id in `token`; None if we did not sign it."""
    read = read_token(token)
    return None if read is None else read.id


def _token(value: str, *, is_unsaved: bool = False, text: str = "") -> Token | None:
    id, _, digest = value.partition(_SEPARATOR)
    try:
        return Token(validate_id(id), digest, is_unsaved, text)
    except InvalidConversationId:
        return None


def _unsign(signer: Signer, token: str) -> str | None:
    try:
        return signer.unsign(token)
    except (BadSignature, UnicodeEncodeError):
        return None


def _digest(id: str, owner: str, key: str | bytes) -> str:
    """Return 96 bits that stand for an owner, in this token only: those of another conversation of
    the same owner are others."""
    mac = salted_hmac(_OWNER_SALT, f"{id}{_SEPARATOR}{owner}", secret=key, algorithm="sha256")
    return base64.urlsafe_b64encode(mac.digest()[:12]).decode()
