"""What becomes of the conversation of a request when its visitor logs in or out."""

from django.contrib.auth import SESSION_KEY
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from .. import ids
from ..conversation.arguments import known_owner
from ..conversation.conversation import working_copy_of
from ..store import conversations
from ..tokens import ids_without_owner
from ..tracebacks import clears_own_locals
from . import identity
from .request import RequestConversation, attached_to
from .visitor import NOTE, visitor_of


@clears_own_locals
def note_login(sender: object, request: HttpRequest, **kwargs: object) -> None:
    """Have the next load claim the conversation that this visitor had before their login, or begin
    anew, as ON_LOGIN says. Receives `user_logged_in`. No I/O with the store."""
    attached = attached_to(request)
    if attached is None:
        _note_early(request)
        return
    visitor = visitor_of(attached.request, attached.store.options)
    if visitor is None or visitor.owner is None:
        return
    if _begins_anew(attached, visitor.owner):
        attached.begin_anew(visitor.owner)
        return
    claimable = ids_without_owner(attached.presented())
    conversation = attached.current()
    if conversation is not None and conversation.owner is None:
        copy = working_copy_of(conversation)
        copy.visitor, copy.is_claimable = visitor.owner, True
        claimable = [conversation.id]
    attached.note_login(visitor.owner)
    _remember(attached.request, claimable)


def _note_early(request: HttpRequest | None) -> None:
    """Note the login of a middleware before ours, or of a test client, which presents nothing."""
    if request is not None and conversations.options.on_login == "claim":
        presented = identity.presented(request, conversations.options)
        _remember(request, ids_without_owner(presented))


def _remember(request: HttpRequest, claimable: list[str]) -> None:
    session = getattr(request, "session", None)
    if session is None or SESSION_KEY not in session:
        return  # there was no login to this session: see `claim_conversation`
    if claimable:
        session[NOTE] = claimable
    else:
        session.pop(NOTE, None)


def end_login(sender: object, request: HttpRequest, **kwargs: object) -> None:
    """Give the request a new conversation. Receives `user_logged_out`, so that the browser's next
    user does not get that of the last one."""
    if (attached := attached_to(request)) is not None:
        session = getattr(request, "session", None)
        attached.log_out(None if session is None else session.session_key)


@clears_own_locals
def claim_conversation(request: HttpRequest, user: ids.Owner) -> None:
    """Make the conversation that this request presents `user`'s, a user's or an owner's, for what
    logs in without Django's `login()`: a view that hands out tokens of an API, say. With ON_LOGIN
    "fresh" the request gets a new conversation instead, and so it does if that is another owner's.

    Raises:
        InvalidConversationValue: the user is anonymous.
        BackendUnavailable: it cannot be claimed now.
        ImproperlyConfigured: `ConversationMiddleware` has not seen this request.
    """
    owner, attached = known_owner(user), _attached_to(request)
    attached.visit_as(owner)
    if _begins_anew(attached, owner):
        attached.begin_anew(owner)
        return
    conversation = attached.current()
    if conversation is None:
        conversation = attached.load()
    if conversation.owner is None:
        conversation.claim(owner)


@clears_own_locals
async def aclaim_conversation(request: HttpRequest, user: ids.Owner) -> None:
    """See `claim_conversation`."""
    owner, attached = known_owner(user), _attached_to(request)
    attached.visit_as(owner)
    if _begins_anew(attached, owner):
        attached.begin_anew(owner)
        return
    conversation = attached.current()
    if conversation is None:
        conversation = await attached.aload()
    if conversation.owner is None:
        await conversation.aclaim(owner)


def _begins_anew(attached: RequestConversation, owner: str) -> bool:
    """Tell whether the conversation of a request is not to become this owner's."""
    conversation = attached.current()
    is_fresh = attached.store.options.on_login == "fresh"
    if conversation is None:
        return is_fresh and not any(token.is_of(owner) for token in attached.presented())
    copy = working_copy_of(conversation)
    # One who has logged in before in this request is to claim it.
    present = copy.visitor if copy.is_claimable and copy.owner is None else copy.owner
    return present != owner if is_fresh else present not in (None, owner)


def _attached_to(request: HttpRequest) -> RequestConversation:
    if (attached := attached_to(request)) is None:
        raise ImproperlyConfigured(
            "This request has no conversation. Put "
            '"django_convstate.middleware.ConversationMiddleware" into MIDDLEWARE.'
        )
    return attached
