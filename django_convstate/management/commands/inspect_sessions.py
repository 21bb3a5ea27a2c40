"""Show an operator what is stored, without showing what was said."""

import dataclasses
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.console import Console
from rich.table import Table
from rich.text import Text

from django_convstate import (
    Conversation,
    ConversationError,
    ConversationNotFound,
    clock,
    conversations,
)
from django_convstate.backends.base import ConversationStateBackend
from django_convstate.backends.reports import ConversationSummary

from ..durations import format_duration


class Command(RichCommand):
    """Shows what is stored."""

    help = (
        "Lists conversations, or shows one. Contents only with --show-content. Exits with 1 if it "
        "could not, or if the backend is down."
    )

    def make_rich_console(self, **kwargs: Any) -> Console:
        """Return the console for stdout, wide enough where that is no terminal."""
        console: Console = super().make_rich_console(**kwargs)
        if not console.is_terminal:
            console.width = 400  # a pipe has no width, and what is cut off would be lost
        return console

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        parser.add_argument(
            "id", nargs="?", metavar="ID", help="show this one (it counts as a visit)"
        )
        parser.add_argument("--owner", help="list those of this owner only")
        parser.add_argument(
            "--limit",
            type=int,
            default=50,
            metavar="N",
            help="list at most so many (default: %(default)s)",
        )
        parser.add_argument("--stats", action="store_true", help="count instead of listing")
        parser.add_argument("--health", action="store_true", help="show the health of the backend")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--show-content",
            action="store_true",
            help="with ID: the state and the messages, which are personal data",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """See `BaseCommand.handle`."""
        if sum([options["id"] is not None, options["stats"], options["health"]]) > 1:
            raise CommandError("Choose one of ID, --stats and --health.")
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        if options["show_content"] and options["id"] is None:
            raise CommandError("--show-content goes with the ID of one conversation.")
        try:
            if options["health"]:
                self._health(options)
                return
            check_is_shared(conversations.backend)
            if options["id"] is not None:
                self._one(options)
            elif options["stats"]:
                self._stats(options)
            else:
                self._list(options)
        except ConversationError as error:
            raise CommandError(str(error)) from error

    def _health(self, options: dict[str, Any]) -> None:
        health = dataclasses.asdict(conversations.health())
        self._show("Health", health, options)
        if not health["connected"]:
            raise CommandError("The backend cannot be reached.")

    def _one(self, options: dict[str, Any]) -> None:
        try:
            conversation = conversations.get(options["id"])
        except ConversationNotFound:
            raise CommandError("There is no such conversation.") from None
        if conversation.degraded:
            raise CommandError(conversations.health().detail)
        shown = describe(conversation)
        if options["show_content"]:
            shown["state"] = dict(conversation)
            shown["messages"] = conversation.messages.all()
        self._show("Conversation", shown, options)

    def _stats(self, options: dict[str, Any]) -> None:
        found = list(conversations.list(options["owner"]))
        newest = max((summary.last_accessed for summary in found), default=None)
        stats = {
            "conversations": len(found),
            "owners": len({summary.owner for summary in found} - {None}),
            "messages": sum(summary.message_count for summary in found),
            "bytes": sum(summary.size for summary in found),
            "largest_bytes": max((summary.size for summary in found), default=0),
            "last_activity": newest.isoformat() if newest else None,
        }
        self._show("Stats", stats, options)

    def _list(self, options: dict[str, Any]) -> None:
        found = conversations.list(options["owner"])
        shown = list(islice(found, options["limit"]))
        if options["json"]:
            rows = [dataclasses.asdict(summary) for summary in shown]
            self.stdout.write(json.dumps(rows, default=datetime.isoformat))
        elif not shown:
            self.console.print("No conversations.")
        else:
            self.console.print(table_of(shown))
            if next(found, None) is not None:
                self.console.print(f"The first {options['limit']}; --limit shows more.")

    def _show(self, title: str, values: dict[str, Any], options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(values))
            return
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in values.items():
            plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            table.add_row(name.replace("_", " "), as_is(plain))
        self.console.print(table)


def as_is(text: str) -> Text:
    """Return `text` for a cell, without effect as markup or as a control sequence."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return Text(shown, overflow="fold")


def check_is_shared(backend: ConversationStateBackend) -> None:
    """Raise `CommandError` for a backend of which this process cannot see what others store."""
    if not backend.is_shared:
        raise CommandError(
            f"{backend.name} lives inside each server process: nothing to inspect from here."
        )


def describe(conversation: Conversation) -> dict[str, Any]:
    """Return what may be shown of a conversation without --show-content."""
    return {
        "id": conversation.id,
        "owner": conversation.owner,
        "version": conversation.version,
        "created_at": conversation.created_at.isoformat() if conversation.created_at else None,
        "expires_at": conversation.expires_at.isoformat() if conversation.expires_at else None,
        "ttl": None if math.isinf(conversation.ttl) else conversation.ttl,
        "keys": sorted(conversation),
        "message_count": len(conversation.messages),
    }


def table_of(summaries: Sequence[ConversationSummary]) -> Table:
    """Return a table with a row for each summary."""
    now = datetime.fromtimestamp(clock.time(), UTC)
    table = Table("ID", "Owner", "Messages", "Bytes", "Idle", "Expires in")
    for column in table.columns[2:]:
        column.justify = "right"
    # Ids are for copying: those that we make are not wrapped, other columns are.
    table.columns[0].min_width = min(22, max(len(summary.id) for summary in summaries))
    for summary in summaries:
        table.add_row(
            as_is(summary.id),
            as_is(summary.owner or "-"),
            str(summary.message_count),
            f"{summary.size:,}",
            format_duration((now - summary.last_accessed).total_seconds()),
            format_duration((summary.expires_at - now).total_seconds())
            if summary.expires_at
            else "never",
        )
    return table
