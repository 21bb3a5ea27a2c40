"""Keep the conversations of a file that `export_sessions` has written."""

import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from django.core.management.base import CommandError, CommandParser

from django_convstate import BackendUnavailable
from django_convstate.exceptions import InvalidExport
from django_convstate.transfer import ImportReport, import_from, open_to_read

from ..base import DAMAGED, StoreCommand
from ..formats import format_count

SHOWN: Final = 20  # lines that are told


class Command(StoreCommand):
    """Imports conversations."""

    help = (
        "Keeps the conversations of FILE as they were when export_sessions wrote it: with ids, "
        "owners, versions, times, and the time that they have left. The file is checked first: "
        "nothing is imported of one that has a bad line. What was interrupted is run again, with "
        "--on-conflict skip."
    )
    verb = "import"

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        super().add_arguments(parser)
        parser.add_argument(
            "file", metavar="FILE", help="compressed if its name ends in .gz; -: standard input"
        )
        parser.add_argument(
            "--on-conflict",
            choices=["skip", "replace", "fail"],
            default="fail",
            help="what to do with conversations that are there already; fail: import nothing "
            "(default: %(default)s)",
        )

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        self.require_shared(is_target=True)
        try:
            with _opened(options["file"]) as file, self.tracking("Importing", "done") as track:
                report = import_from(file, options["on_conflict"], store=self.store, progress=track)
        except InvalidExport as error:
            self._tell(error.problems)
            raise CommandError(str(error), returncode=DAMAGED) from error
        except BackendUnavailable as error:
            raise BackendUnavailable(f"{error} Run it again with --on-conflict skip.") from error
        except OSError as error:
            raise CommandError(
                f"{options['file']} cannot be read: {error.strerror or error}."
            ) from error
        self._report(report, options)

    def _report(self, report: ImportReport, options: dict[str, Any]) -> None:
        if options["json"]:
            self.write_json(dataclasses.asdict(report))
        else:
            self.say(_sentence(report))
        if report.refused:
            self._tell(report.problems)
            backend = self.store.backend
            raise CommandError(
                f"The {backend.name} backend did not take "
                f"{format_count(report.refused, 'conversation')}.",
                returncode=DAMAGED,
            )

    def _tell(self, problems: Sequence[tuple[int, str]]) -> None:
        for number, problem in problems[:SHOWN]:
            self.stderr.write(f"Line {number}: {problem}")
        if len(problems) > SHOWN:
            self.stderr.write("And more.")


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name != "-":
        with open_to_read(Path(name)) as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:  # because it is read twice
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        yield copy


def _sentence(report: ImportReport) -> str:
    if not (report.imported or report.skipped or report.expired or report.refused):
        return "Nothing was imported: there are no conversations in the file."
    parts = [f"{format_count(report.imported, 'conversation')} imported"]
    if report.replaced:
        parts.append(f"{report.replaced:,} of them in the place of others")
    if report.skipped:
        parts.append(f"{report.skipped:,} skipped, for they are there already")
    if report.expired:
        parts.append(f"{report.expired:,} left out, for their time to live is over")
    return "; ".join(parts) + "."
