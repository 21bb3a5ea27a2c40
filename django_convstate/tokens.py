"""Tokens: how an id travels.

A client holds the id with a signature made from SECRET_KEY, so that it can name only a conversation
that was given to it.
"""

from typing import Final

from django.core.signing import BadSignature, Signer, TimestampSigner

from .exceptions import InvalidConversationId
from .ids import validate_id
from .tracebacks import clears_locals

_SALT: Final = "django_convstate.token"
_UNSAVED_SALT: Final = "django_convstate.token.begin"
_UNSAVED_SALT_OF_0_1: Final = "django_convstate.token.unsaved"
# For how many seconds a conversation may be begun by such a token: less than it is known of one
# that it was deleted, which is a day.
UNSAVED_SECONDS: Final = 12 * 3600


@clears_locals
def sign_id(id: str, *, unsaved: bool = False) -> str:
    """Return the token for `id`: what a client holds, and the only thing accepted back.

    A websocket has to be given its token with the handshake, before anything is said. `unsaved`
    notes in the token that it was made for a conversation which is not stored yet, so that its
    absence later does not look as if it were gone.
    """
    return TimestampSigner(salt=_UNSAVED_SALT).sign(id) if unsaved else Signer(salt=_SALT).sign(id)


@clears_locals
def unsign_token(token: str) -> str | None:
    """Return the id in `token`, or None if we did not sign it (SECRET_KEY_FALLBACKS count)."""
    return (
        _unsign(Signer(salt=_SALT), token)
        or _unsign(TimestampSigner(salt=_UNSAVED_SALT), token)
        or _unsign(Signer(salt=_UNSAVED_SALT_OF_0_1), token)
    )


@clears_locals
def is_unsaved(token: str) -> bool:
    """Tell whether we made `token` for a conversation that was not stored yet, less than
    `UNSAVED_SECONDS` ago."""
    return _unsign(TimestampSigner(salt=_UNSAVED_SALT), token, max_age=UNSAVED_SECONDS) is not None


def _unsign(signer: Signer, token: str, **options: int) -> str | None:
    try:
        return validate_id(signer.unsign(token, **options))
    except (BadSignature, InvalidConversationId, UnicodeEncodeError):
        return None
