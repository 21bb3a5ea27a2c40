"""Tokens: how an id travels.

A client holds the id with a signature made from SECRET_KEY, so that it can name only a conversation
that was given to it.
"""

from django.core.signing import BadSignature, Signer

from .exceptions import InvalidConversationId
from .ids import validate_id

_SALT = "django_convstate.token"
_UNSAVED_SALT = "django_convstate.token.unsaved"


def sign_id(id: str, *, unsaved: bool = False) -> str:
    """Return the token for `id`: what a client holds, and the only thing accepted back.

    A websocket has to be given its token with the handshake, before anything is said. `unsaved`
    notes in the token that it was made for a conversation which is not stored yet, so that its
    absence later does not look as if it were gone.
    """
    return Signer(salt=_UNSAVED_SALT if unsaved else _SALT).sign(id)


def unsign_token(token: str) -> str | None:
    """Return the id in `token`, or None if we did not sign it (SECRET_KEY_FALLBACKS count)."""
    return _unsign(token, _SALT) or _unsign(token, _UNSAVED_SALT)


def is_unsaved(token: str) -> bool:
    """Tell whether we made `token` for a conversation that was not stored yet."""
    return _unsign(token, _UNSAVED_SALT) is not None


def _unsign(token: str, salt: str) -> str | None:
    try:
        return validate_id(Signer(salt=salt).unsign(token))
    except (BadSignature, InvalidConversationId, UnicodeEncodeError):
        return None
