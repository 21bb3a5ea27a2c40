"""The limits that hold when a message is appended or changed."""

from ..backends.refusals import message_too_large, too_many_messages
from ..conf import Options


def check_room(options: Options, count: int) -> None:
    """Raise `ConversationTooLarge` if `count` messages are more than MAX_MESSAGES, unless the
    oldest are dropped then."""
    limit = options.max_messages
    if limit is not None and options.when_full == "refuse" and count > limit:
        raise too_many_messages(count, limit)


def check_size(options: Options, data: bytes) -> None:
    """Raise `ConversationTooLarge` for a message over MAX_MESSAGE_BYTES."""
    if len(data) > options.max_message_bytes:
        raise message_too_large(len(data), options.max_message_bytes)
