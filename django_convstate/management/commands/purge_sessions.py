"""Delete conversations that have expired, or that an operator selects."""

import argparse
import dataclasses
import json
import select
import sys
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
        "Deletes conversations that have expired; or, with --idle, --owner or --all, others too, "
        "after a question. Exits with 1 if it could not."
    )
    stealth_options = ("interactive",)  # what call_command() calls it in Django's own commands

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        parser.add_argument(
            "--idle",
            metavar="DURATION",
            help="those without activity for so long: 90s, 30m, 2h, 7d, 1h30m",
        )
        parser.add_argument("--owner", help="those of this owner (with --idle: and idle)")
        parser.add_argument("--all", action="store_true", help="every conversation")
        parser.add_argument("--dry-run", action="store_true", help="count them only")
        parser.add_argument(
            "--no-input",
            "--noinput",
            action="store_true",
            help="do not ask before deleting with --idle, --owner or --all",
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
        idle_for = options["idle"] = _seconds(options["idle"])
        backend = conversations.backend
        only_expired = not options["all"] and idle_for is None and options["owner"] is None
        if sentence := why_not(backend, only_expired):
            # Expired ones are dropped anyway; any other selection was asked for and is refused.
            if not only_expired:
                raise CommandError(sentence)
            self._report(PurgeReport(dry_run=options["dry_run"]), sentence, options)
            return
        may_ask = not options["no_input"] and options.get("interactive", True)
        if may_ask and not only_expired and not options["dry_run"]:
            self._confirm(backend, options)
        try:
            report = self._purge(options)
        except ConversationError as error:
            raise CommandError(str(error)) from error
        self._report(report, self._sentence(report, only_expired, options), options)

    def _confirm(self, backend: ConversationStateBackend, options: dict[str, Any]) -> None:
        which = "every conversation" if options["all"] else f"conversations{_selected(options)}"
        question = (
            f"This deletes {which} in the {backend.name} backend, those that have not expired, "
            "too.\nType 'yes' to go on: "
        )
        # On stderr, because stdout may be parsed as JSON.
        self.stderr.write(question, ending="")
        try:
            answer = input() if _can_be_read() else None
        except (EOFError, OSError):
            answer = None
        if answer is None:
            raise CommandError("There is nobody to ask. Use --no-input.")
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
        which += _selected(options)
        verb = "Would delete" if report.dry_run else "Deleted"
        return f"{verb} {report.deleted} {which}; {report.examined} looked at."

    def _report(self, report: PurgeReport, sentence: str, options: dict[str, Any]) -> None:
        if options["json"]:
            backend = conversations.backend
            result = {"backend": backend.name, **dataclasses.asdict(report)}
            self.stdout.write(json.dumps(result | {"message": sentence}))
        else:
            self.console.print(sentence, highlight=False, markup=False)


def _seconds(idle: object) -> float | None:
    """Return the seconds of --idle; for call_command(), too, it is text with a unit."""
    if idle is None:
        return None
    try:
        return parse_duration(str(idle))
    except argparse.ArgumentTypeError as error:
        raise CommandError(f"--idle: {error}") from None


def _selected(options: dict[str, Any]) -> str:
    """Return which conversations --owner and --idle select."""
    of = f" of {options['owner']}" if options["owner"] is not None else ""
    idle = f" idle for {format_duration(options['idle'])}" if options["idle"] is not None else ""
    return of + idle


def _can_be_read() -> bool:
    """Tell whether the question can be answered: a terminal, or what was piped in before. A pipe on
    which nothing is sent, such as that of a scheduler, would be waited for without end."""
    if sys.stdin is None or sys.stdin.isatty():
        return sys.stdin is not None
    try:
        readable, _, _ = select.select([sys.stdin], [], [], 0)
    except (OSError, ValueError):  # no file, or none that can be asked
        return True
    return bool(readable)


def why_not(backend: ConversationStateBackend, only_expired: bool) -> str | None:
    """Return why there is nothing for this command to do; None if there is."""
    if not backend.is_shared:
        return f"{backend.name} lives inside each server process: nothing to purge from here."
    if only_expired and backend.expires_natively:
        return f"The {backend.name} backend drops what has expired by itself: nothing to purge."
    if not backend.can_scan:
        return f"The {backend.name} backend cannot list conversations, so none can be selected."
    return None
