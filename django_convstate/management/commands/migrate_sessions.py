"""Copy all conversations from one backend to another."""

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_convstate import ConversationStore, conf
from django_convstate.backends import backend_class
from django_convstate.transfer import MigrationReport, migrate

from ..base import DAMAGED, StoreCommand
from ..formats import format_count


class Command(StoreCommand):
    """Migrates conversations."""

    help = (
        "Copies all conversations from one backend to another, while the site goes on writing to "
        "the first; then what has changed meanwhile; and compares both. What was interrupted is "
        "run again. Exits with 4 if the two are not the same at the end."
    )
    verb = "migrate"

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        for name, what in (("from", "the backend"), ("to", "the backend to copy to")):
            parser.add_argument(
                f"--{name}",
                required=True,
                metavar="NAME",
                help=f"{what}: its name or dotted path; its options are those of the settings",
            )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(backend=None)  # which the two take the place of

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        source, target = options["from"], options["to"]
        if backend_class(source) is backend_class(target):
            raise CommandError(
                "--from and --to are the same backend, with the same options. For another server, "
                "make a subclass that names it: see docs/transfer.md."
            )
        # Without a fallback: what is only in memory here is not migrated.
        stores = [ConversationStore(name, fallback=None) for name in (source, target)]
        self.store = stores[1]
        self.require_shared(is_target=True)
        self.store = stores[0]
        self.require_listing()
        with self.tracking("Migrating", "looked at") as track:
            report = migrate(*stores, target_is_used=target == conf.backend_name(), progress=track)
        self._report(report, options)

    def _report(self, report: MigrationReport, options: dict[str, Any]) -> None:
        if options["json"]:
            self.write_json({**dataclasses.asdict(report), "is_complete": report.is_complete})
        else:
            self.say(_sentence(report, options))
        if not report.is_complete:
            raise CommandError(_what_remains(report, options), returncode=DAMAGED)


def _sentence(report: MigrationReport, options: dict[str, Any]) -> str:
    parts = [
        f"{format_count(report.copied, 'conversation')} copied",
        f"{report.verified:,} of {report.source:,} verified",
    ]
    if report.deleted:
        parts.append(f"{report.deleted:,} deleted in {options['to']}, as in {options['from']}")
    if report.only_in_target:
        parts.append(f"{report.only_in_target:,} in {options['to']} alone, and left there")
    return "; ".join(parts) + "."


def _what_remains(report: MigrationReport, options: dict[str, Any]) -> str:
    source, target = options["from"], options["to"]
    remains = {
        f"changed in {source} since they were copied: stop what writes to it, and run it again": (
            report.changed
        ),
        f"saved later in {target}, and left alone": report.newer,
        "different, though of the same version": report.differing,
        f"damaged, or too large for {target}, and not copied: see the log": report.refused,
    }
    told = [f"{count:,} {what}" for what, count in remains.items() if count]
    return f"Not all are the same: {'; '.join(told)}."
