"""Delete conversations that have expired, or that an operator selects."""

import dataclasses
import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_rich.management import RichCommand
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from django_convstate import ConversationError, PurgeReport, conversations
from django_convstate.backends.base import ConversationStateBackend

from ..durations import format_duration, parse_duration


class Command(RichCommand):
    """Deletes what is stored."""

    help = (
        "Deletes conversations that have expired; or, with --idle, --owner or --all, others too. "
        "Exits with 1 if it could not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        parser.add_argument(
            "--idle",
            type=parse_duration,
            metavar="DURATION",
            help="those without activity for so long: 90s, 30m, 2h, 7d, 1h30m",
        )
        parser.add_argument("--owner", help="those of this owner (with --idle: and idle)")
        parser.add_argument("--all", action="store_true", help="every conversation")
        parser.add_argument("--dry-run", action="store_true", help="count them only")
        parser.add_argument(
            "--no-input", action="store_true", help="do not ask before deleting with --all"
        )
        parser.add_argument(
            "--batch-size",
            type=int,
            default=500,
            metavar="N",
            help="how many to delete at a time (default: %(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """See `BaseCommand.handle`."""
        if options["batch_size"] < 1:
            raise CommandError("--batch-size must be at least 1.")
        if options["all"] and (options["idle"] is not None or options["owner"] is not None):
            raise CommandError("--all means all: it does not go with --idle or --owner.")
        backend = conversations.backend
        only_expired = not options["all"] and options["idle"] is None and options["owner"] is None
        if sentence := why_not(backend, only_expired):
            # Expired ones are dropped anyway; any other selection was asked for and is refused.
            if not only_expired:
                raise CommandError(sentence)
            self._report(PurgeReport(dry_run=options["dry_run"]), sentence, options)
            return
        if options["all"] and not options["dry_run"] and not options["no_input"]:
            self._confirm(backend)
        try:
            report = self._purge(options)
        except ConversationError as error:
            raise CommandError(str(error)) from error
        self._report(report, self._sentence(report, only_expired, options), options)

    def _confirm(self, backend: ConversationStateBackend) -> None:
        question = (
            f"This deletes every conversation in the {backend.name} backend, those in use too.\n"
            "Type 'yes' to go on: "
        )
        try:
            # On stderr, because stdout may be parsed as JSON.
            self.stderr.write(question, ending="")
            answer = input()
        except EOFError:
            raise CommandError("There is no input to confirm with. Use --no-input.") from None
        if answer.strip() != "yes":
            raise CommandError("Nothing was deleted.")

    def _purge(self, options: dict[str, Any]) -> PurgeReport:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=options["json"] or not self.console.is_terminal,
        ) as bar:
            task = bar.add_task("Purging", total=None)
            return conversations.purge(
                idle_for=options["idle"],
                owner=options["owner"],
                everything=options["all"],
                dry_run=options["dry_run"],
                batch_size=options["batch_size"],
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )

    def _sentence(self, report: PurgeReport, only_expired: bool, options: dict[str, Any]) -> str:
        which = "conversation" if report.deleted == 1 else "conversations"
        if only_expired:
            which = f"expired {which}"
        if options["owner"] is not None:
            which += f" of {options['owner']}"
        if options["idle"] is not None:
            which += f" idle for {format_duration(options['idle'])}"
        verb = "Would delete" if report.dry_run else "Deleted"
        return f"{verb} {report.deleted} {which}; {report.examined} looked at."

    def _report(self, report: PurgeReport, sentence: str, options: dict[str, Any]) -> None:
        if options["json"]:
            backend = conversations.backend
            result = {"backend": backend.name, **dataclasses.asdict(report)}
            self.stdout.write(json.dumps(result | {"message": sentence}))
        else:
            self.console.print(sentence, highlight=False, markup=False)


def why_not(backend: ConversationStateBackend, only_expired: bool) -> str | None:
    """Return why there is nothing for this command to do; None if there is."""
    if not backend.is_shared:
        return f"{backend.name} lives inside each server process: nothing to purge from here."
    if only_expired and backend.expires_natively:
        return f"The {backend.name} backend drops what has expired by itself: nothing to purge."
    if not backend.can_scan:
        return f"The {backend.name} backend cannot list conversations, so none can be selected."
    return None
