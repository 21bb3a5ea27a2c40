"""What every backend says where it refuses a change: the same words and the same class each."""

from typing import Final

from ..exceptions import (
    BackendUnavailable,
    ConversationConflict,
    ConversationInterrupted,
    ConversationTooLarge,
    InvalidConversationType,
    InvalidConversationValue,
)

COUNTER_MIN: Final = -(2**63)
COUNTER_MAX: Final = 2**63 - 1

TURN_LOST: Final = (
    "This turn was lost: its lease was not renewed in time, so that the next turn could begin. "
    "Nothing was saved; reload() and decide again."
)


def id_is_taken() -> ConversationConflict:
    """Return the error for a new conversation under the id of another."""
    return ConversationConflict("The id of this new conversation is taken.")


def only_peeked() -> ConversationConflict:
    """Return the error for a change of what was loaded to read only."""
    return ConversationConflict(
        "This conversation was peeked at, and is read-only; get() it to change it."
    )


def unknown_here() -> BackendUnavailable:
    """Return the error for what cannot be decided without the store."""
    return BackendUnavailable(
        "The store is unavailable, and nothing is known here of this conversation: it cannot be "
        "cleared, shortened or claimed now, nor its version checked, nor a message found that was "
        "said before.",
        transient=False,
    )


def owned_by_another() -> ConversationConflict:
    """Return the error for a conversation that has another owner than is asked for."""
    return ConversationConflict("The conversation belongs to another owner.")


def refuse_restore(version: int | None, *, replaces: int | None, is_deleted: bool) -> None:
    """Check whether a conversation may be restored under an id, in the place of the stored
    `version` (None: there is none).

    Raises:
        ConversationConflict: the id is taken, or what is there is not what is to be replaced.
        ConversationInterrupted: it was deleted, and that is to stay so.
    """
    if replaces is None and version is not None:
        raise id_is_taken()
    if replaces != version:
        raise ConversationConflict("What was to be replaced has changed, or is gone; look again.")
    if is_deleted:
        raise ConversationInterrupted("The conversation was deleted, and is not restored.")


def add_to_counter(stored: bytes | None, delta: int, key: str) -> bytes:
    """Return the JSON of the counter in `stored` plus `delta`.

    Raises:
        InvalidConversationType: what is stored is no integer.
        InvalidConversationValue: what is stored, or is added, or the sum is beyond a signed 64-bit
            integer.
    """
    try:
        value = int(stored or b"0")
    except ValueError:
        raise not_a_number(key) from None
    if not all(COUNTER_MIN <= each <= COUNTER_MAX for each in (value, delta, value + delta)):
        raise beyond_64_bits(key)
    return b"%d" % (value + delta)


def not_a_number(key: str) -> InvalidConversationType:
    """Return the error for a value that is not a counter."""
    return InvalidConversationType(
        f"state[{key!r}] is not an integer, so nothing can be added to it."
    )


def beyond_64_bits(key: str) -> InvalidConversationValue:
    """Return the error for a counter that would overflow."""
    return InvalidConversationValue(f"state[{key!r}] would leave the signed 64-bit range.")


def state_too_large(size: int, limit: int) -> ConversationTooLarge:
    """Return the error for a state over its limit."""
    return ConversationTooLarge(
        f"The state would take {size} bytes as JSON; MAX_STATE_BYTES is {limit}."
    )


def too_many_messages(count: int, limit: int) -> ConversationTooLarge:
    """Return the error for more messages than there may be."""
    return ConversationTooLarge(
        f"The conversation would have {count} messages; MAX_MESSAGES is {limit}. Begin a new one, "
        'or set WHEN_FULL to "drop_oldest".'
    )


def message_too_large(size: int, limit: int) -> ConversationTooLarge:
    """Return the error for a message over its limit."""
    return ConversationTooLarge(
        f"The message takes {size} bytes as JSON; MAX_MESSAGE_BYTES is {limit}."
    )
