"""Decorators for views."""

from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from functools import wraps
from typing import Any, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from .conversation.turn import OnBusy, check_on_busy
from .exceptions import ConversationBusy
from .http import streaming
from .http.held import Discarded, HeldTurn
from .http.responses import response_for
from .http.saving import hold_turn
from .tracebacks import clears_own_locals

View = TypeVar("View", bound=Callable[..., Any])


@overload
def conversation_turn(view: View) -> View: ...
@overload
def conversation_turn(*, on_busy: OnBusy = "wait") -> Callable[[View], View]: ...
def conversation_turn(
    view: View | None = None, *, on_busy: OnBusy = "wait"
) -> View | Callable[[View], View]:
    """Run a view, sync or async, as one turn of `request.conversation`.

    What the view has changed is saved with the end of the turn, before the response goes out; and
    not at all if the view raises, or answers with a status of 500 or above. When the conversation
    is not free, or not in time, the answer is 409.

    With Django REST framework put it inside of `@api_view`, which has to authenticate first.

    The turn of a streaming response lasts until the stream is over, and what was said by then is
    saved with it, also if the stream fails or the client hangs up.

    Args:
        on_busy: as for `Conversation.turn`.
    """
    check_on_busy(on_busy)

    def decorate(view: View) -> View:
        in_turn = _aturn_of if iscoroutinefunction(view) else _turn_of
        return cast("View", in_turn(view, on_busy))

    return decorate if view is None else decorate(view)


def _turn_of(view: Callable[..., Any], on_busy: OnBusy) -> Callable[..., HttpResponseBase]:
    @clears_own_locals
    @wraps(view)
    def in_turn(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            with ExitStack() as turn:
                turn.enter_context(request.conversation.turn(on_busy))  # type: ignore[attr-defined]
                response: HttpResponseBase = view(request, *args, **kwargs)
                if response.status_code >= 500:
                    raise Discarded
                if streaming.is_stream(response):
                    hold_turn(request, response, HeldTurn(turn.pop_all()))
                return response
        except Discarded:
            return response
        except ConversationBusy as error:
            return cast("HttpResponseBase", response_for(error))

    return in_turn


def _aturn_of(view: Callable[..., Any], on_busy: OnBusy) -> Callable[..., Any]:
    @clears_own_locals
    @wraps(view)
    async def in_turn(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        conversation = await request.aconversation()  # type: ignore[attr-defined]
        try:
            async with AsyncExitStack() as turn:
                await turn.enter_async_context(conversation.aturn(on_busy))
                response: HttpResponseBase = await view(request, *args, **kwargs)
                if response.status_code >= 500:
                    raise Discarded
                if streaming.is_stream(response):
                    hold_turn(request, response, HeldTurn(turn.pop_all()))
                return response
        except Discarded:
            return response
        except ConversationBusy as error:
            return cast("HttpResponseBase", response_for(error))

    return in_turn
