"""Who visits. There are no accounts: a signed cookie, which scripts cannot read, says that it is
the same browser again. CONVERSATION_STATE["OWNER"] names `owner_of`, so a conversation is its own.

With logins it is "user", the default, and nothing of this is needed.
"""

import secrets
from typing import Final

from django.http import HttpRequest, HttpResponse

from django_convstate.typing import ConversationRequest

_COOKIE: Final = "visitor"
_AGE: Final = 365 * 24 * 3600  # seconds


def owner_of(request: HttpRequest) -> str | None:
    """Return who owns what is said by this browser; None: it is not known yet."""
    owner: str | None = request.get_signed_cookie(_COOKIE, None)
    return owner


def welcome(request: ConversationRequest, response: HttpResponse) -> HttpResponse:
    """Have a browser that begins here known from now on."""
    if owner_of(request) is None and request.conversation.is_new:
        owner = f"visitor-{secrets.token_urlsafe(16)}"
        response.set_signed_cookie(_COOKIE, owner, max_age=_AGE, httponly=True, samesite="Lax")
    return response
