"""Writes conversations to a stream, a line of JSON for each."""

import logging
from dataclasses import dataclass
from typing import IO

from .. import ids
from ..administration import repository_of
from ..backends.reports import Progress
from ..conversation.arguments import selected_owner
from ..exceptions import ConversationBusy, ConversationCorrupt
from ..ids import Owner
from ..store import ConversationStore, conversations
from .lines import line_of
from .reading import each_once, read_whole

logger = logging.getLogger("django_convstate")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """How many conversations were exported, and how many could not be, because they are damaged or
    others did not stop changing them. `size` is in bytes."""

    exported: int
    left_out: int
    size: int


def export_to(
    file: IO[bytes],
    owner: Owner = None,
    *,
    store: ConversationStore = conversations,
    progress: Progress | None = None,
) -> ExportReport:
    """Write what a store keeps to a binary file, and slide nothing.

    Each conversation is written as it was at one moment, whatever others change meanwhile. What is
    begun or deleted while this runs may be in the file or not.

    Args:
        file: to write to; `open_to_write` opens one.
        owner: the owner of what is exported; None: all is.
        store: where from.
        progress: called with the number of conversations that are written, and None.

    Raises:
        InvalidBackend: the backend cannot list conversations.
        BackendUnavailable: the store could not be reached. The file is not complete.
        InvalidConversationValue: a user who is not logged in owns nothing.
        OSError: the file cannot be written.
    """
    repository = repository_of(store)
    exported = left_out = size = 0
    for summary in each_once(repository, selected_owner(owner)):
        try:
            whole = read_whole(repository, summary)
        except (ConversationCorrupt, ConversationBusy) as error:
            left_out += 1
            logger.warning("Conversation %s is not exported: %s", ids.hashed_id(summary.id), error)
            continue
        if whole is not None:
            size += file.write(line_of(whole))
            exported += 1
            if progress:
                progress(exported, None)
    return ExportReport(exported, left_out, size)
