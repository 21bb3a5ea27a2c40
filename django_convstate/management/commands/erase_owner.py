"""Erase all that is kept of an owner."""

import dataclasses
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_convstate.transfer import erase_owner

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
        if not options["no_input"] and options.get("interactive", True):
            self.confirm(f"This deletes all that is kept of {owner} in the {name} backend.")
        path = None if options["report"] is None else _writable(options["report"])
        with self.tracking("Erasing", "looked at") as track:
            report = erase_owner(owner, store=self.store, progress=track)
        values = dataclasses.asdict(report)
        problem = None if path is None else _write(path, values)
        if not report.deleted and problem is None:
            raise CommandError(f"Nothing is stored of the owner {owner!r}.")
        if options["json"]:
            self.write_json(values)
        else:
            self.say(f"Erased {format_count(report.deleted, 'conversation')} of {owner}.")
            for each in report.elsewhere:
                until = f"Until {each.until:%Y-%m-%d %H:%M:%S} UTC" if each.until else "Unknown"
                self.say(f"{until}: {each.what}")
        if problem is not None:
            raise CommandError(f"All is erased, but without a report: {problem}")


def _writable(name: str) -> Path:
    path = Path(name)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise CommandError(_unwritten(path, error)) from error
    return path


def _write(path: Path, values: dict[str, Any]) -> str | None:
    """Write a report. Return why that was not possible: the owner is erased all the same."""
    try:
        path.write_text(json.dumps(values, default=datetime.isoformat, indent=2) + "\n")
    except OSError as error:
        return _unwritten(path, error)
    return None


def _unwritten(path: Path, error: OSError) -> str:
    return f"{path} cannot be written: {error.strerror or error}."
