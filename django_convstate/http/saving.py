"""When the conversations of a request are saved: before its response is sent, at the end of its
stream, or when its client hangs up. And what the response tells of it: the token, and that it is
for this visitor alone.
"""

import logging
import weakref
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from .. import ids, news
from ..conversation.cancellation import CANCELLED_TIMEOUT, log_unsaved, uncancelled
from ..conversation.conversation import Conversation, working_copy_of
from ..tracebacks import clears_own_locals
from . import identity, streaming
from .held import HeldTurn
from .request import RequestConversation, attached_to

logger = logging.getLogger("django_convstate")


@clears_own_locals
class RequestSaving:
    """Saves what one request has used, and completes its response."""

    def __init__(self, attached: RequestConversation) -> None:
        self._attached = attached
        self.is_answered = False  # the view, and the middleware within ours, are done
        self._stream: weakref.ref[streaming.Stream | streaming.AsyncStream] | None = None

    @property
    def note_use(self) -> Callable[[], None]:
        """What has to be called when a conversation is used for this request."""
        return self._attached.note_use

    @property
    def stream(self) -> streaming.Stream | streaming.AsyncStream | None:
        """What the response streams; None: nothing, or it was dropped."""
        return None if self._stream is None else self._stream()

    @property
    def view(self) -> object:
        """The view that the request is for; None: that is not known yet."""
        match = self._attached.request.resolver_match
        return None if match is None else match.func

    def save(self, response: HttpResponseBase) -> None:
        """Save what is to be saved before the response is sent.

        Raises as `Conversation.save` does.
        """
        self.is_answered = True
        if not streaming.is_stream(response) or response.status_code >= 500:
            self._end_turn(discards=response.status_code >= 500)
        try:
            self._attached.adopt_assigned()
            for conversation in self._to_save_now(response):
                conversation.save()
        except BaseException:
            self._end_turn(discards=True)  # there will be no stream to end it
            raise

    async def asave(self, response: HttpResponseBase) -> None:
        """See `save`."""
        self.is_answered = True
        if not streaming.is_stream(response) or response.status_code >= 500:
            await self._aend_turn(discards=response.status_code >= 500)
        try:
            await self._attached.aadopt_assigned()
            for conversation in self._to_save_now(response):
                await conversation.asave()
        except BaseException:
            await self._aend_turn(discards=True)  # there will be no stream to end it
            raise

    def save_interrupted(self) -> None:
        """Save what the view had said when its client hung up. No response is waited for, so an
        error is only logged."""
        try:
            self._save_rest()
        except Exception as error:
            log_unsaved(error)

    async def asave_interrupted(self) -> None:
        """See `save_interrupted`. It takes limited time, and is not cancelled."""
        try:
            await uncancelled(self._asave_rest(), CANCELLED_TIMEOUT)
        except Exception as error:
            log_unsaved(error)

    def _to_save_now(self, response: HttpResponseBase) -> list[Conversation]:
        """Return the conversations that are to be saved before the response is sent.

        That of a stream is saved at the end of the stream. But a new one is stored first, so that
        its token is valid at once: the client may use it while the stream is still being sent.
        """
        if response.status_code >= 500:
            return []
        later = self._attached.current() if streaming.is_stream(response) else None
        return [each for each in self._to_save() if each is not later or each.is_new]

    def _to_save(self) -> list[Conversation]:
        """Return what was used, but that of which the view has answered a failed save itself."""
        return [each for each in self._attached.used() if not working_copy_of(each).save_failed]

    def notify(self) -> None:
        """Tell open websockets what the view, or the middleware, has saved."""
        if (session_key := self._attached.take_logged_out()) is not None:
            news.notify_of_logout(session_key)
        for conversation in self._attached.used():
            news.notify_of_saved(conversation)

    async def anotify(self) -> None:
        """See `notify`."""
        if (session_key := self._attached.take_logged_out()) is not None:
            await news.anotify_of_logout(session_key)
        for conversation in self._attached.used():
            await news.anotify_of_saved(conversation)

    def finish(self, response: HttpResponseBase) -> HttpResponseBase:
        """Have a stream save the conversation at its end, and put the conversation's token and the
        rules for caches into the response.

        The headers of a stream are sent before its conversation is saved, so they carry the token
        of one that is yet to be stored, too.
        """
        conversation, options = self._attached.current(), self._attached.store.options
        has_failed = conversation is not None and working_copy_of(conversation).save_failed
        will_be_saved = False
        if streaming.is_stream(response) and response.status_code < 500:
            # Weak, or a dropped response would wait for the garbage collector to end its stream.
            self._stream = weakref.ref(
                streaming.follow(response, self._save_late, self._asave_late)
            )
            will_be_saved = not has_failed
        # A stream may use it yet, after its headers were sent.
        if self._attached.is_touched or (will_be_saved and self._attached.presented()):
            identity.mark_private(response, options)
        # Without a conversation the store may have been unavailable: the cookie stays.
        if conversation is not None and (will_be_saved or not conversation.is_new):
            token = self._attached.token_of(conversation)
            identity.set_token(self._attached.request, response, token, options)
            self._attached.known.add(conversation.id)
        elif (
            conversation is not None
            and response.status_code < 500
            and not self._attached.is_turned_away
        ):
            # One that could not be begun was deleted not long ago, and cannot be for a while.
            unsaved_id = None if has_failed else conversation.id
            identity.delete_token(self._attached.request, response, options, unsaved_id)
        return response

    def _save_late(self) -> None:
        self._save_rest()
        self._check_known()

    async def _asave_late(self) -> None:
        """See `_save_late`."""
        await self._asave_rest()
        self._check_known()

    def _save_rest(self) -> None:
        """End what goes on, and save what has changed."""
        self._attached.adopt_assigned()
        to_save = self._to_save()
        try:
            for conversation in to_save:
                working_copy_of(conversation).log.interrupt_streams()
        finally:
            self._end_turn(discards=False)
            for conversation in to_save:
                conversation.save()
        self.notify()

    async def _asave_rest(self) -> None:
        """See `_save_rest`."""
        await self._attached.aadopt_assigned()
        to_save = self._to_save()
        try:
            for conversation in to_save:
                working_copy_of(conversation).log.interrupt_streams()
        finally:
            await self._aend_turn(discards=False)
            for conversation in to_save:
                await conversation.asave()
        await self.anotify()

    def _end_turn(self, *, discards: bool) -> None:
        turn, self._attached.turn = self._attached.turn, None
        if turn is not None:
            turn.end(discards=discards)

    async def _aend_turn(self, *, discards: bool) -> None:
        """See `_end_turn`."""
        turn, self._attached.turn = self._attached.turn, None
        if turn is not None:
            await turn.aend(discards=discards)

    def _check_known(self) -> None:
        conversation = self._attached.current()
        if conversation is None or conversation.is_new:
            return
        if conversation.id not in self._attached.known:
            logger.warning(
                "A stream has created conversation %s, or given it a new id, after the headers "
                "were sent, so the client has no token of it and cannot come back to it. Use "
                "`request.conversation` in the view, before it returns the response; in an async "
                "view, `await request.aconversation()`.",
                ids.hashed_id(conversation.id),
            )


def hold_turn(request: HttpRequest, response: StreamingHttpResponse, turn: HeldTurn) -> None:
    """Let a turn last until the stream of `response` is over. The middleware ends it then, or as
    soon as it sees that there is no such stream."""
    if (attached := attached_to(request)) is not None:
        attached.turn = turn
    else:
        streaming.follow(response, turn.end, turn.aend)
