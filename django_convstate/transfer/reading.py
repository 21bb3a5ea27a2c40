"""Reads conversations whole, while others go on writing, and slides nothing."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from .. import clock
from ..backends.records import Record
from ..backends.reports import ConversationSummary
from ..backends.toolkit.packed import Pair
from ..exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationCorrupt,
    ConversationNotFound,
)
from ..repository import Repository
from .lines import Whole
from .seen import SeenIds

TOLERANCE: Final = 0.002  # seconds: some backends keep milliseconds
PAGE: Final = 500  # messages in one round trip
PAGE_BYTES: Final = 2**20  # and bytes of them, by their average
MAX_LISTINGS: Final = 10  # while others save one after the other
_TRIES: Final = 20  # while others keep changing it


def each_once(repository: Repository, owner: str | None) -> Iterator[ConversationSummary]:
    """Yield what is stored, each once.

    A listing may have a conversation twice; or miss one that is saved meanwhile, and comes to the
    front. That one is in the next listing. There is one more until none has anything that was there
    when this began.
    """
    began = clock.time()
    with SeenIds() as seen:
        for _ in range(MAX_LISTINGS):
            is_all = True
            for summary in repository.scan(owner, None, None, ()):
                if seen.add(summary.id):
                    is_all = is_all and summary.created_at.timestamp() >= began
                    yield summary
            if is_all:
                return


def read_whole(repository: Repository, summary: ConversationSummary) -> Whole | None:
    """Return all of a conversation, as it was at one moment; None: it is gone by now.

    Raises:
        BackendUnavailable: the store is not there, and what is in memory here does not count.
        ConversationCorrupt: it is damaged, and was quarantined.
        ConversationBusy: others did not stop changing it.
    """
    average = summary.size // max(1, summary.message_count)
    page = max(1, min(PAGE, PAGE_BYTES // max(1, average)))
    with suppress(ConversationNotFound):
        for _ in range(_TRIES):
            record = peek(repository, summary.id, page)
            messages = _all_messages(repository, record, page)
            if messages is not None:
                return Whole(record, messages)
        raise ConversationBusy("Others did not stop changing a conversation while it was read.")
    return None


def peek(repository: Repository, id: str, window: int) -> Record:
    """Return a stored conversation. Raises as `Repository.peek` does, and `BackendUnavailable` in
    an outage."""
    record = repository.peek(id, window)
    if record.degraded:
        raise BackendUnavailable("The store is unavailable.")
    return record


def peek_if_sound(repository: Repository, id: str) -> Record | None:
    """Return a stored conversation with its newest message; None: nothing is stored, or what is
    damaged. Raises `BackendUnavailable` in an outage."""
    with suppress(ConversationNotFound, ConversationCorrupt):
        return peek(repository, id, 1)
    return None


def _all_messages(repository: Repository, record: Record, page: int) -> list[Pair] | None:
    """Return all messages of a conversation; None: it has changed while they were read."""
    newest = list(record.messages)
    start = record.end - len(newest)
    messages: list[Pair] = []
    for position in range(record.dropped, start, page):
        stop = min(position + page, start)
        found = repository.read_messages(record.id, position, stop)
        if len(found) != stop - position:
            return None
        messages += found
    if messages:
        now = peek(repository, record.id, 1)
        if (now.version, now.created_at) != (record.version, record.created_at):
            return None
    return messages + newest
