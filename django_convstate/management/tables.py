"""What an operator sees of many conversations, and of one, without what was said."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from django_convstate import Conversation, ConversationSummary, clock
from django_convstate.ids import hashed_id

from .durations import format_duration
from .formats import format_bytes

_HEAD: Final = ("ID", "Owner", "Messages", "Size", "Idle", "Expires in")
_ID_WIDTH: Final = 22  # of the ids that we make


def as_is(text: str) -> Text:
    """Return `text` for a cell, without effect as markup or as a control sequence."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return Text(shown, overflow="fold")


def now() -> datetime:
    """Return what time it is, in UTC."""
    return datetime.fromtimestamp(clock.time(), UTC)


def table_of(summaries: Sequence[ConversationSummary], width: int) -> Table:
    """Return a table with a row for each summary, that fits into so many columns of a terminal."""
    at = now()
    rows = [_cells(summary, at) for summary in summaries]
    lengths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    # Ids are for copying: those that we make are not wrapped, longer ones and owners may be.
    room = width - sum(lengths[2:]) - 3 * len(_HEAD) - 1
    id_width = min(lengths[0], max(_ID_WIDTH, room - lengths[1]))
    table = Table(*_HEAD)
    table.columns[0].width = id_width
    table.columns[1].width = min(lengths[1], max(len(_HEAD[1]), room - id_width))
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for row in rows:
        table.add_row(*row)
    return table


def _cells(summary: ConversationSummary, at: datetime) -> list[Text]:
    expires_at = summary.expires_at
    left = "never" if expires_at is None else format_duration((expires_at - at).total_seconds())
    return [
        as_is(summary.id),
        as_is(summary.owner or "-"),
        Text(f"{summary.message_count:,}"),
        Text(format_bytes(summary.size)),
        Text(format_duration((at - summary.last_accessed).total_seconds())),
        Text(left),
    ]


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
