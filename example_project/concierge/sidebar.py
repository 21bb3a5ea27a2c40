"""The conversations of a visitor, newest first, and the way back into each of them."""

from typing import Any, Final

from django_convstate import BackendUnavailable, ConversationNotFound, conversations
from django_convstate.typing import ConversationRequest

from .refusals import Refused
from .visitors import owner_of

SHOWN: Final = 30
UNTITLED: Final = "Untitled"


def conversations_of(request: ConversationRequest) -> list[dict[str, Any]] | None:
    """Return the visitor's newest conversations, each with `id`, `title` and whether it `is_open`
    in this browser. None: the store cannot list them, or is away."""
    if not conversations.backend.can_scan:
        return None
    owner, open_id = owner_of(request), request.conversation.id
    try:
        found = list(conversations.list(owner, limit=SHOWN, keys=("title",))) if owner else []
    except BackendUnavailable:
        return None
    return [
        {"id": each.id, "title": each.state.get("title", UNTITLED), "is_open": each.id == open_id}
        for each in found
    ]


def reopen(request: ConversationRequest, id: object) -> None:
    """Go on with a conversation of this visitor.

    Raises:
        Refused: they have none with this id.
    """
    try:
        request.conversation = conversations.get(str(id), owner=owner_of(request))
    except ConversationNotFound as error:
        raise Refused(404, "gone", "That conversation is not there any more.") from error
