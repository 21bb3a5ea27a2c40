"""Which conversations of a listing are shown, and in which order."""

import heapq
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from django_convstate import ConversationSummary

from .base import seconds_of
from .sizes import bytes_of
from .tables import now

# What comes first has the largest key.
ORDERS: Final[dict[str, Callable[[ConversationSummary], Any]]] = {
    "saved": lambda summary: summary.cursor,
    "created": lambda summary: summary.created_at,
    "idle": lambda summary: -summary.last_accessed.timestamp(),
    "expires": lambda summary: (
        -(summary.expires_at.timestamp() if summary.expires_at else float("inf"))
    ),
    "size": lambda summary: summary.size,
    "messages": lambda summary: summary.message_count,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What --idle and --larger-than select, and how --sort orders it."""

    idle_for: float | None
    larger_than: int | None
    order: str | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> "Wanted":
        """Read the options of a command. Raises `CommandError`."""
        return cls(
            seconds_of("--idle (--older-than)", options["idle"]),
            bytes_of("--larger-than", options["larger_than"]),
            options["sort"],
        )

    @property
    def selects(self) -> bool:
        """Whether it leaves out some."""
        return self.idle_for is not None or self.larger_than is not None

    def those_of(self, summaries: Iterable[ConversationSummary]) -> Iterator[ConversationSummary]:
        """Yield those that are selected."""
        at = now()
        for each in summaries:
            is_idle = (at - each.last_accessed).total_seconds() >= (self.idle_for or 0)
            if (self.idle_for is None or is_idle) and each.size > (
                -1 if self.larger_than is None else self.larger_than
            ):
                yield each

    def first_of(
        self, summaries: Iterable[ConversationSummary], limit: int
    ) -> list[ConversationSummary]:
        """Return at most `limit` of those that are selected, in order. Keeps only so many in
        memory; in the order of the backend it reads no further than it has to."""
        selected = self.those_of(summaries)
        if self.order is None:
            return list(islice(selected, min(limit, sys.maxsize)))
        return heapq.nlargest(limit, selected, key=ORDERS[self.order])
