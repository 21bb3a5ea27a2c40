"""A new conversation, and the way back to the one before it.

Nothing is deleted: the visitor only loses the token, and the former conversation expires as any
other does. For a minute a signed cookie, which scripts cannot read, says which one it was.
"""

import time
from typing import Final

from django.core import signing
from django.http import HttpRequest, HttpResponse

from django_convstate import Conversation, ConversationNotFound, conversations
from django_convstate.typing import ConversationRequest

from .refusals import Refused

UNDO_FOR: Final = 60  # seconds
_COOKIE: Final = "former"
_SALT: Final = "concierge.undo"


def begin_anew(request: ConversationRequest) -> Conversation | None:
    """Give the visitor a new conversation, and return the former one, unless that was empty."""
    former = request.conversation
    if former.is_new:
        return None
    request.conversation = conversations.create()
    return former


def offer_undo(response: HttpResponse, former: Conversation | None) -> None:
    """Have the browser remember the former conversation, if there is one."""
    if former is not None:
        content = {"id": former.id, "until": time.time() + UNDO_FOR}
        response.set_cookie(
            _COOKIE,
            signing.dumps(content, salt=_SALT),
            max_age=UNDO_FOR,
            httponly=True,
            samesite="Lax",
        )


def undo_for(request: HttpRequest) -> int:
    """Return for how many seconds there is a way back; 0: there is none."""
    return max(0, round(_offered(request)[1] - time.time()))


def undo(request: ConversationRequest) -> None:
    """Give the visitor the former conversation again.

    Raises:
        Refused: it is too late, or it has expired meanwhile.
    """
    id, until = _offered(request)
    try:
        if until < time.time():
            raise ConversationNotFound("There is none to go back to.")
        # The signature says that it was this browser's. With logins: owner=request.user, too.
        request.conversation = conversations.get(id)
    except ConversationNotFound as error:
        raise Refused(404, "gone", "It is too late to go back to the last conversation.") from error


def forget_undo(response: HttpResponse) -> None:
    """Have the browser forget the former conversation."""
    response.delete_cookie(_COOKIE, samesite="Lax")


def _offered(request: HttpRequest) -> tuple[str, float]:
    try:
        content = signing.loads(request.COOKIES.get(_COOKIE, ""), salt=_SALT)
        return str(content["id"]), float(content["until"])
    except signing.BadSignature:
        return "", 0.0
