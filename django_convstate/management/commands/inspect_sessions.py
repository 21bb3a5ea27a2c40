"""Show an operator what is stored, without showing what was said."""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_convstate import BackendUnavailable, Conversation, ConversationNotFound
from django_convstate.backends.reports import ConversationSummary
from django_convstate.ids import hashed_id

from ..base import StoreCommand, seconds_of
from ..durations import format_duration
from ..formats import format_milliseconds
from ..selecting import ORDERS, Wanted
from ..statistics import Statistics
from ..tables import describe, facts_of, now, plain, table_of, table_of_one
from ..transcript import transcript


class Command(StoreCommand):
    """Shows what is stored."""

    help = (
        "Lists conversations, or shows one. Contents only with --show-content. Nothing is "
        "prolonged by being looked at. Exit codes: 1 if it could not, or if --health finds the "
        "backend down, 3 if the store is unavailable, 130 after Ctrl-C."
    )
    verb = "inspect"

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        super().add_arguments(parser)
        parser.add_argument(
            "id", nargs="?", metavar="ID", help="show this one; or the one that logs call so"
        )
        parser.add_argument("--owner", help="those of this owner only")
        parser.add_argument(
            "--idle",
            "--older-than",
            metavar="DURATION",
            help="those without activity for so long: 90s, 30m, 2h, 7d, 1h30m",
        )
        parser.add_argument(
            "--larger-than", metavar="SIZE", help="those with more bytes: 512, 10K, 1.5MiB"
        )
        parser.add_argument(
            "--sort",
            choices=ORDERS,
            help="last saved or created first; idle for longest, next to expire, largest, or with "
            "most messages first (default: as the backend lists them)",
        )
        parser.add_argument(
            "--limit",
            type=int,
            default=50,
            metavar="N",
            help="list at most so many (default: %(default)s)",
        )
        parser.add_argument("--stats", action="store_true", help="count instead of listing")
        parser.add_argument("--health", action="store_true", help="show the health of the backend")
        parser.add_argument(
            "--watch",
            nargs="?",
            const="2s",
            metavar="DURATION",
            help="show it again and again, every 2s if not said otherwise",
        )
        parser.add_argument(
            "--show-content",
            action="store_true",
            help="with ID: the state and the messages, which are personal data",
        )

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        if sum([options["id"] is not None, options["stats"], options["health"]]) > 1:
            raise CommandError("Choose one of ID, --stats and --health.")
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        if options["show_content"] and options["id"] is None:
            raise CommandError("--show-content goes with the ID of one conversation.")
        wanted, pause = Wanted.of(options), seconds_of("--watch", options["watch"])
        if pause is None:
            self._show(wanted, options)
        else:
            self._watch(pause, lambda: self._show(wanted, options))

    def _show(self, wanted: Wanted, options: dict[str, Any]) -> None:
        if options["health"]:
            self._health(options)
            return
        self.require_shared()
        if options["id"] is not None:
            self._one(options)
        elif options["stats"]:
            self._stats(wanted, options)
        else:
            self._list(wanted, options)

    def _watch(self, pause: float, show: Callable[[], None]) -> None:
        """Show it until Ctrl-C. An outage is shown, too, and not the end."""
        while True:
            self.console.clear()
            if self.console.is_terminal:
                self.say(f"Every {format_duration(pause)}, {now():%Y-%m-%d %H:%M:%S} UTC")
            try:
                show()
            except BackendUnavailable as error:
                self.stderr.write(str(error))
            self.stdout.flush()
            time.sleep(pause)

    def _health(self, options: dict[str, Any]) -> None:
        health = self.store.health()
        if options["json"]:
            self.write_json(dataclasses.asdict(health))
        else:
            latency, since = health.latency_ms, health.since
            shown = dataclasses.asdict(health) | {
                "latency_ms": "-" if latency is None else format_milliseconds(latency),
                "since": "-" if since is None else format_duration(now().timestamp() - since),
            }
            names = {"latency_ms": "latency", "since": "down for"}
            self.console.print(
                facts_of(
                    "Health",
                    [(names.get(k, k.replace("_", " ")), plain(v)) for k, v in shown.items()],
                )
            )
        if not health.connected and options["watch"] is None:
            raise CommandError("The backend cannot be reached.")

    def _one(self, options: dict[str, Any]) -> None:
        conversation = self._found(options["id"])
        if conversation.degraded:
            raise BackendUnavailable(self.store.health().detail)
        described = describe(conversation)
        if options["json"]:
            if options["show_content"]:
                described["state"] = dict(conversation)
                described["messages"] = conversation.messages.all()
            self.write_json(described)
            return
        self.console.print(table_of_one(described))
        if options["show_content"]:
            for line in transcript(conversation):
                self.console.print(line, soft_wrap=not self.console.is_terminal)

    def _found(self, id: str) -> Conversation:
        """Return a conversation by its id, or by what logs call it."""
        try:
            return self.store.peek(id)
        except ConversationNotFound:
            if re.fullmatch("[0-9a-f]{12}", id) is None:
                raise CommandError("There is no such conversation.") from None
        self.require_listing()
        with self.tracking("Looking for it", "looked at") as track:
            for summary in track.each(self.store.list()):
                if hashed_id(summary.id) == id:
                    return self.store.peek(summary.id)
        raise CommandError(
            "There is no such conversation, and none that logs call so. What is in quarantine, "
            "check_sessions lists."
        )

    def _stats(self, wanted: Wanted, options: dict[str, Any]) -> None:
        with self.tracking("Counting", "counted") as track:
            found = wanted.those_of(self.store.list(options["owner"]))
            statistics = Statistics(track.each(found))
        if not statistics.conversations:
            self.require_owner(options["owner"])
        if options["json"]:
            self.write_json(statistics.as_json())
        else:
            self.console.print(statistics.tables())

    def _list(self, wanted: Wanted, options: dict[str, Any]) -> None:
        limit = options["limit"]
        found = wanted.first_of(self.store.list(options["owner"]), limit + 1)
        if not found:
            self.require_owner(options["owner"])
        shown = found[:limit]
        if options["json"]:
            self.write_json([_json_of(each) for each in shown])
        elif not shown:
            self.say("No conversations." if not wanted.selects else "No such conversations.")
        else:
            self.console.print(table_of(shown, self.console.width))
            if len(found) > limit:
                self.say(f"The first {limit:,}; --limit shows more.")


def _json_of(summary: ConversationSummary) -> dict[str, Any]:
    fields = dataclasses.asdict(summary)
    del fields["bounds"]  # a part of its cursor, which is for `list`
    return fields | {"log_id": hashed_id(summary.id)}
