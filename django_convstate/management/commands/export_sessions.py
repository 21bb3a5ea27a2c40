"""Write conversations to a file, to import or to keep."""

import dataclasses
import sys
from pathlib import Path
from typing import IO, Any

from django.core.management.base import CommandError, CommandParser

from django_convstate.transfer import ExportReport, export_to, open_to_write

from ..base import DAMAGED, StoreCommand
from ..formats import format_bytes, format_count


class Command(StoreCommand):
    """Exports what is stored."""

    help = (
        "Writes conversations to FILE, one in each line, as JSON: all that they contain, which is "
        "personal data. Nothing is changed, nor prolonged. The file is there when it is complete; "
        "only this user may read it."
    )
    verb = "export"

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        super().add_arguments(parser)
        parser.add_argument(
            "file", metavar="FILE", help="compressed if its name ends in .gz; -: standard output"
        )
        parser.add_argument("--owner", help="those of this owner only")

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        self.require_listing()
        self.require_owner(options["owner"])
        path = None if options["file"] == "-" else Path(options["file"])
        try:
            if path is None:
                report = self._export(sys.stdout.buffer, options["owner"])
            else:
                with open_to_write(path) as file:
                    report = self._export(file, options["owner"])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(
                f"{options['file']} cannot be written: {error.strerror or error}."
            ) from error
        if path is not None:
            self._report(report, path, options)
        if report.left_out:
            raise CommandError(
                f"{format_count(report.left_out, 'conversation')} could not be read, and "
                f"{'is' if report.left_out == 1 else 'are'} not in the file: see the log.",
                returncode=DAMAGED,
            )

    def _export(self, file: IO[bytes], owner: str | None) -> ExportReport:
        # To count them takes a listing of its own, for who looks on.
        total = sum(1 for _ in self.store.list(owner)) if self._is_watched else None
        with self.tracking("Exporting", "written") as track:
            return export_to(
                file, owner, store=self.store, progress=lambda done, _: track(done, total)
            )

    @property
    def _is_watched(self) -> bool:
        return sys.stderr.isatty()

    def _report(self, report: ExportReport, path: Path, options: dict[str, Any]) -> None:
        if options["json"]:
            self.write_json({"file": str(path), **dataclasses.asdict(report)})
        else:
            self.say(
                f"{format_count(report.exported, 'conversation')} written to {path}, "
                f"{format_bytes(report.size)} of JSON."
            )
