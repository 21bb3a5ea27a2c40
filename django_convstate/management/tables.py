"""What an operator sees of many conversations, and of one, without what was said."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from django_convstate import Conversation, ConversationSummary, clock
from django_convstate.ids import hashed_id

from .durations import format_duration
from .formats import format_bytes


def as_is(text: str) -> Text:
    """Return `text` for a cell, without effect as markup or as a control sequence."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return Text(shown, overflow="fold")


def now() -> datetime:
    """Return what time it is, in UTC."""
    return datetime.fromtimestamp(clock.time(), UTC)


def table_of(summaries: Sequence[ConversationSummary]) -> Table:
    """Return a table with a row for each summary."""
    at = now()
    table = Table("ID", "Owner", "Messages", "Size", "Idle", "Expires in")
    for column in table.columns[2:]:
        column.justify = "right"
    # Ids are for copying: those that we make are not wrapped, other columns are.
    table.columns[0].min_width = min(22, max(len(summary.id) for summary in summaries))
    for summary in summaries:
        table.add_row(
            as_is(summary.id),
            as_is(summary.owner or "-"),
            f"{summary.message_count:,}",
            format_bytes(summary.size),
            format_duration((at - summary.last_accessed).total_seconds()),
            format_duration((summary.expires_at - at).total_seconds())
            if summary.expires_at
            else "never",
        )
    return table


def facts_of(title: str, facts: Iterable[tuple[str, Text | str]]) -> Table:
    """Return a table with a name and a value in each row."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in facts:
        table.add_row(name, value)
    return table


def plain(value: Any) -> Text:
    """Return a value for a cell: text as it is, anything else as JSON."""
    return as_is(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def describe(conversation: Conversation) -> dict[str, Any]:
    """Return what may be shown of a conversation without --show-content, for JSON."""
    return {
        "id": conversation.id,
        "log_id": hashed_id(conversation.id),
        "owner": conversation.owner,
        "version": conversation.version,
        "created_at": conversation.created_at,
        "modified_at": conversation.modified_at,
        "last_accessed": conversation.last_accessed,
        "expires_at": conversation.expires_at,
        "ttl": None if conversation.ttl == float("inf") else conversation.ttl,
        "keys": sorted(conversation),
        "message_count": len(conversation.messages),
    }


def table_of_one(described: Mapping[str, Any]) -> Table:
    """Return what `describe` returns as a table."""
    ttl, keys = described["ttl"], described["keys"]
    return facts_of(
        "Conversation",
        [
            ("id", as_is(described["id"])),
            ("in logs", described["log_id"]),
            ("owner", as_is(described["owner"] or "-")),
            ("version", f"{described['version']:,}"),
            ("created", _past(described["created_at"])),
            ("last saved", _past(described["modified_at"])),
            ("last used", _past(described["last_accessed"])),
            ("expires", _future(described["expires_at"])),
            ("idle time", "for ever" if ttl is None else format_duration(ttl)),
            ("keys", as_is(", ".join(keys) or "-")),
            ("messages", f"{described['message_count']:,}"),
        ],
    )


def _past(moment: datetime | None) -> str:
    if moment is None:
        return "-"
    return (
        f"{moment:%Y-%m-%d %H:%M:%S} UTC ({format_duration((now() - moment).total_seconds())} ago)"
    )


def _future(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    return (
        f"{moment:%Y-%m-%d %H:%M:%S} UTC (in {format_duration((moment - now()).total_seconds())})"
    )
