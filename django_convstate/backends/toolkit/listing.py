"""The order of a listing: newest saved first, from a cursor on."""

import heapq
from collections.abc import Iterable, Iterator
from operator import attrgetter

from ..reports import CURSOR_SIZE, ConversationSummary

_cursor = attrgetter("cursor")


def newest_first(
    summaries: Iterable[ConversationSummary], limit: int | None, after: str | None
) -> Iterator[ConversationSummary]:
    """Yield at most `limit` of the conversations that follow `after`. Keeps only so many in
    memory."""
    if after is not None:
        after = after[:CURSOR_SIZE]
        summaries = (summary for summary in summaries if summary.cursor < after)
    if limit is None:
        return iter(sorted(summaries, key=_cursor, reverse=True))
    return iter(heapq.nlargest(limit, summaries, key=_cursor))
