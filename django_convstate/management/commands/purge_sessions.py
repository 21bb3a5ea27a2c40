"""Delete conversations that have expired, or that an operator selects."""

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_convstate import PurgeReport
from django_convstate.backends.base import ConversationStateBackend

from ..base import StoreCommand, seconds_of
from ..durations import format_duration
from ..formats import format_count


class Command(StoreCommand):
    """Deletes what is stored."""

    help = (
        "Deletes conversations that have expired; or, with --idle, --owner or --all, others too, "
        "after a question. Run it again after an interruption: it goes on with what is left. Exit "
        "codes: 1 if it could not, 3 if the store is unavailable, 130 after Ctrl-C."
    )
    verb = "purge"
    stealth_options = ("interactive",)  # what call_command() calls it in Django's own commands

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        super().add_arguments(parser)
        parser.add_argument(
            "--idle",
            "--older-than",
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

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        if options["batch_size"] < 1:
            raise CommandError("--batch-size must be at least 1.")
        if options["all"] and (options["idle"] is not None or options["owner"] is not None):
            raise CommandError("--all means all: it does not go with --idle or --owner.")
        idle_for = options["idle"] = seconds_of("--idle (--older-than)", options["idle"])
        only_expired = not options["all"] and idle_for is None and options["owner"] is None
        if only_expired and (sentence := why_none_expire(self.store.backend)):
            self._report(PurgeReport(dry_run=options["dry_run"]), sentence, options)
            return
        self.require_listing()
        may_ask = not options["no_input"] and options.get("interactive", True)
        if may_ask and not only_expired and not options["dry_run"]:
            self.confirm(_question(self.store.backend, options))
        report = self._purge(options)
        if not report.deleted:
            self.require_owner(options["owner"])
        self._report(report, _sentence(report, only_expired, options), options)

    def _purge(self, options: dict[str, Any]) -> PurgeReport:
        ending = "nothing was deleted" if options["dry_run"] else "run it again to go on"
        with self.tracking("Purging", f"looked at; {ending}") as track:
            return self.store.purge(
                idle_for=options["idle"],
                owner=options["owner"],
                everything=options["all"],
                dry_run=options["dry_run"],
                batch_size=options["batch_size"],
                progress=track,
            )

    def _report(self, report: PurgeReport, sentence: str, options: dict[str, Any]) -> None:
        if options["json"]:
            backend = self.store.backend
            result = {"backend": backend.name, **dataclasses.asdict(report)}
            self.write_json(result | {"message": sentence})
        else:
            self.say(sentence)


def why_none_expire(backend: ConversationStateBackend) -> str | None:
    """Return why what has expired is no work for this command; None if it is."""
    if not backend.is_shared:
        return f"{backend.name} lives inside each server process: nothing to purge from here."
    if backend.expires_natively:
        return f"The {backend.name} backend drops what has expired by itself: nothing to purge."
    return None


def _question(backend: ConversationStateBackend, options: dict[str, Any]) -> str:
    which = "every conversation" if options["all"] else f"conversations{_selected(options)}"
    return f"This deletes {which} in the {backend.name} backend, those that have not expired, too."


def _sentence(report: PurgeReport, only_expired: bool, options: dict[str, Any]) -> str:
    which = f"{'expired ' if only_expired else ''}conversation"
    deleted = f"{format_count(report.deleted, which)}{_selected(options)}"
    verb = "Would delete" if report.dry_run else "Deleted"
    return f"{verb} {deleted}; {report.examined:,} looked at."


def _selected(options: dict[str, Any]) -> str:
    """Return which conversations --owner and --idle select."""
    of = f" of {options['owner']}" if options["owner"] is not None else ""
    idle = f" idle for {format_duration(options['idle'])}" if options["idle"] is not None else ""
    return of + idle
