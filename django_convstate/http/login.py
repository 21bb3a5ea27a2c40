"""What becomes of the conversation of a request when its visitor logs in or out."""

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from .. import ids
from ..conversation.arguments import known_owner
from ..conversation.conversation import working_copy_of
from ..tracebacks import clears_own_locals
from .request import RequestConversation, attached_to
from .visitor import NOTE, visitor_of


@clears_own_locals
def note_login(sender: object, request: HttpRequest, **kwargs: object) -> None:
    """Have the next load claim the conversation that this visitor had before their login, or begin
    anew, as ON_LOGIN says. Receives `user_logged_in`. No I/O with the store."""
    attached = attached_to(request)
    visitor = None if attached is None else visitor_of(attached.request, attached.store.options)
    if attached is None or visitor is None:
        return
    if _begins_anew(attached, visitor.owner):
        attached.begin_anew(visitor.owner)
        return
    conversation = attached.current()
    noted = [token.id for token in attached.presented() if not token.is_owned]
    if conversation is not None and conversation.owner is None:
        copy = working_copy_of(conversation)
        copy.visitor, copy.is_noted = visitor.owner, True
        noted = [conversation.id]
    elif not conversation:
        attached.load_later()  # if another receiver of the login has used it before this one
    attached.request.session[NOTE] = noted


def begin_anew(sender: object, request: HttpRequest, **kwargs: object) -> None:
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
        InvalidConversationValue: nobody is logged in.
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


def _begins_anew(attached: RequestConversation, owner: str | None) -> bool:
    conversation = attached.current()
    is_anothers = conversation is not None and conversation.owner not in (None, owner)
    return is_anothers or attached.store.options.on_login == "fresh"


def _attached_to(request: HttpRequest) -> RequestConversation:
    if (attached := attached_to(request)) is None:
        raise ImproperlyConfigured(
            "This request has no conversation. Put "
            '"django_convstate.middleware.ConversationMiddleware" into MIDDLEWARE.'
        )
    return attached
