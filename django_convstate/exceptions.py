"""Every error this package raises, all under `ConversationError`."""

from collections.abc import Sequence

from django.core.exceptions import BadRequest, ImproperlyConfigured


class ConversationError(Exception):
    """Base class; catch it to catch them all. Never raised itself."""


class ConversationNotFound(ConversationError):
    """The store answered: no such conversation (or it belongs to another owner). The middleware
    answers 404 when a view lets it through."""

    def __init__(self, message: str = "There is no such conversation.") -> None:
        super().__init__(message)


class MessageNotFound(ConversationError, LookupError):
    """The store answered: the conversation has no message with that id. The middleware answers 404
    when a view lets it through."""


class ConversationConflict(ConversationError):
    """The stored conversation is not what the caller expected: another version, another owner, an
    id that is taken, a turn that was lost. Nothing was written; `reload()` and decide again. The
    middleware answers 409 when a view lets it through."""


class ConversationBusy(ConversationError):
    """Others held the conversation for as long as we were willing to wait. Nothing was
    written; trying again is safe. The middleware answers 409 when a view lets it through."""


class ConversationInterrupted(ConversationError, BadRequest):
    """The conversation was deleted, or expired, between its load and its save. The middleware
    answers 400 when a view lets it through, as Django does for an interrupted session."""


class ConversationCorrupt(ConversationError, BadRequest):
    """What is stored is not a conversation. It was quarantined, neither served nor overwritten, so
    the next request begins anew; this one gets 400 when a view lets it through."""

    conversation_id: str | None = None


class ConversationTooLarge(ConversationError, ValueError, BadRequest):
    """A message, the state, the number of messages or, with locmem, the conversation is over its
    limit. Nothing was changed; of a message that was being streamed, what fits is kept. The
    middleware answers 413 with the size and the limit when a view lets it through."""


class InvalidConversationId(ConversationError, ValueError, BadRequest):
    """The id cannot be the id of a conversation. The middleware answers 400 when a view lets it
    through."""


class InvalidConversationValue(ConversationError, ValueError, BadRequest):
    """The value cannot be stored as JSON, and the message names its path; or an argument makes no
    sense. The middleware answers 400 with the path when a view lets it through."""


class InvalidConversationType(InvalidConversationValue, TypeError):
    """As `InvalidConversationValue`, for a value of the wrong type."""


class BackendUnavailable(ConversationError):
    """The store could not be reached, or did not keep what it was given. This says nothing about
    whether a conversation exists. The middleware answers 503 when a view lets it through.

    `transient`: the next try may succeed. False: the store has refused, and would refuse again.
    """

    def __init__(self, *args: object, transient: bool = True) -> None:
        super().__init__(*args)
        self.transient = transient


class InvalidBackend(ConversationError, ImproperlyConfigured):
    """The backend cannot be imported, is misconfigured, or cannot do what was asked of it."""


class InvalidExport(ConversationError, ValueError):
    """A file cannot be imported, and nothing of it was. `problems` are the numbers of lines, from 1
    on, each with a sentence; the first hundred of them."""

    def __init__(self, message: str, problems: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(message)
        self.problems = problems
