"""Who makes a request: the owner that it stands for, by the setting OWNER, and the conversations
that may be claimed for it.

A login claims no conversation itself, because it must succeed while the store is unavailable. It
notes the ids of what the browser presents in the Django session, and the next load claims the
conversation: see opening.py.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.functional import LazyObject, empty
from django.utils.module_loading import import_string

from .. import ids
from ..conf import Options
from ..exceptions import InvalidConversationValue
from ..tokens import Token

NOTE: Final = "_convstate_claim"  # the key in the Django session


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes a request.

    Attributes:
        owner: the owner that the visitor is; None: not logged in.
        claimable: ids of the conversations that were presented with their login.
    """

    owner: str | None
    claimable: Collection[str] = ()

    def may_present(self, token: Token) -> bool:
        """Tell whether the conversation of a token may be theirs. No I/O."""
        if not token.is_owned:
            return True
        return self.owner is not None and token.is_of(self.owner)

    def may_begin(self, token: Token) -> bool:
        """Tell whether they may begin the conversation of a token that they may present."""
        return token.is_owned or self.owner is None or token.id in self.claimable

    def __repr__(self) -> str:
        return f"<Visitor: {'not ' if self.owner is None else ''}logged in>"


def visitor_of(request: HttpRequest, options: Options) -> Visitor | None:
    """Return who makes a request; None: OWNER is None, so that is not asked.

    Without a session cookie, Django's user and session cost no I/O.

    Raises:
        ImproperlyConfigured: OWNER names nothing that can be called, or it returns no owner.
    """
    if options.owner is None:
        return None
    owner = _owner(_found(request, options.owner), options.owner)
    session = getattr(request, "session", None)
    claimable = () if owner is None or session is None else session.get(NOTE, ())
    return Visitor(owner, claimable)


async def avisitor_of(request: HttpRequest, options: Options) -> Visitor | None:
    """See `visitor_of`. A sync callable is called in a thread, because it may do I/O."""
    if options.owner is None:
        return None
    owner = _owner(await _afound(request, options.owner), options.owner)
    session = getattr(request, "session", None)
    claimable = () if owner is None or session is None else await session.aget(NOTE, ())
    return Visitor(owner, claimable)


def _found(request: HttpRequest, setting: str) -> Any:
    if setting == "user":
        return getattr(request, "user", None)
    named = import_string(setting)
    return (async_to_sync(named) if iscoroutinefunction(named) else named)(request)


async def _afound(request: HttpRequest, setting: str) -> Any:
    if setting == "user":
        return await _auser(request)
    named = import_string(setting)
    return await (named if iscoroutinefunction(named) else sync_to_async(named))(request)


async def _auser(request: HttpRequest) -> Any:
    user = getattr(request, "user", None)
    if not is_unloaded(user):
        return user  # assigned, as a login does, or loaded already
    if hasattr(request, "auser"):
        return await request.auser()
    return await sync_to_async(_loaded)(user)


def is_unloaded(user: object) -> bool:
    """Tell whether I/O is needed to know who a user is."""
    return isinstance(user, LazyObject) and user._wrapped is empty


def _loaded(user: Any) -> Any:
    bool(user)
    return user


def _owner(found: Any, setting: str) -> str | None:
    try:
        return ids.owner_of(found)
    except InvalidConversationValue as error:
        raise ImproperlyConfigured(
            f"CONVERSATION_STATE['OWNER'] is {setting!r}, which returned no owner: {error}"
        ) from None
