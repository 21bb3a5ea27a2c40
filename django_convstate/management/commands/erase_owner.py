"""Erase all that is kept of an owner."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import ProtectedError, RestrictedError

from django_convstate.transfer import ErasureReport, erase_owner

from ..base import StoreCommand
from ..formats import format_count


class Command(StoreCommand):
    """Erases an owner."""

    help = (
        "Deletes all conversations of OWNER, those in quarantine and in no index, too, after a "
        "question. Exits with 1 if there is nothing of that owner."
    )
    verb = "erase"
    stealth_options = ("interactive",)

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        super().add_arguments(parser)
        parser.add_argument("owner", metavar="OWNER", help="as inspect_sessions shows it")
        parser.add_argument(
            "--report",
            metavar="FILE",
            help="write as JSON what was erased, and what other processes may hold until when",
        )
        parser.add_argument(
            "--no-input", "--noinput", action="store_true", help="do not ask before erasing"
        )

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        self.require_listing()
        owner, backend = options["owner"], self.store.backend
        name = backend.name
        path = None if options["report"] is None else _writable(options["report"])
        if not options["no_input"] and options.get("interactive", True):
            self.confirm(f"This deletes all that is kept of {owner} in the {name} backend.")
        with self.tracking("Erasing", "looked at") as track:
            try:
                report = erase_owner(owner, store=self.store, progress=track)
            except (ProtectedError, RestrictedError) as error:
                raise CommandError(
                    "A table of the project protects a conversation by a foreign key: delete its "
                    "rows first, or write SET_NULL."
                ) from error
        if path is not None:
            path.write_text(_in_json(report, indent=2) + "\n")
        if options["json"]:
            self.stdout.write(_in_json(report))
        else:
            self.say(f"Erased {format_count(report.deleted, 'conversation')} of {owner}.")
            for each in report.elsewhere:
                until = f"Until {each.until:%Y-%m-%d %H:%M:%S} UTC" if each.until else "Unknown"
                self.say(f"{until}: {each.what}")
        if not report.deleted:
            raise CommandError(f"The {name} backend has nothing of the owner {owner!r}.")


def _writable(name: str) -> Path:
    path = Path(name)
    try:
        path.touch(0o600)
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror or error}.") from error
    return path


def _in_json(report: ErasureReport, indent: int | None = None) -> str:
    values = dataclasses.asdict(report)
    return json.dumps(values, default=datetime.isoformat, ensure_ascii=False, indent=indent)
