"""Find what is not as it should be in a store."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from rich.table import Table
from rich.text import Text

from django_convstate import Finding
from django_convstate.ids import hashed_id

from ..base import DAMAGED, StoreCommand, Track
from ..formats import format_count
from ..tables import as_is

_KINDS: Final = {
    "damaged": "damaged",
    "partial": "partial",
    "orphaned": "orphaned",
    "unlisted": "unlisted",
    "without_ttl": "without TTL",
    "quarantined": "in quarantine",
}


class Command(StoreCommand):
    """Looks at everything that is stored, and changes nothing."""

    help = (
        "Finds what is damaged, partial, orphaned, not listed, without TTL or in quarantine. "
        "Changes nothing, shows no contents, and reads everything. Exit codes: 0 if all is well, 4 "
        "if it found something, 1 if it could not, 3 if the store is unavailable, 130 after Ctrl-C."
    )
    verb = "check"

    def add_arguments(self, parser: CommandParser) -> None:
        """See `BaseCommand.add_arguments`."""
        super().add_arguments(parser)
        parser.add_argument(
            "--limit",
            type=int,
            default=100,
            metavar="N",
            help="show at most so many; all are counted (default: %(default)s)",
        )

    def run(self, options: dict[str, Any]) -> None:
        """See `StoreCommand.run`."""
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        self.require_listing()
        counts, shown = Counter[str](), list[Finding]()
        with self.tracking("Checking", "looked at") as track:
            for finding in self._findings(track, counts):
                if len(shown) < options["limit"]:
                    shown.append(finding)
        sentence = _sentence(track.number, counts)
        if options["json"]:
            self._print_json(track.number, counts, shown, sentence)
        elif shown:
            self._print_table(shown, counts)
        if counts:
            raise CommandError(sentence, returncode=DAMAGED)
        if not options["json"]:
            self.say(sentence)

    def _findings(self, track: Track, counts: Counter[str]) -> Iterator[Finding]:
        for finding in self.store.find_damage(track):
            counts[finding.kind] += 1
            yield finding

    def _print_json(
        self, examined: int, counts: Counter[str], shown: list[Finding], sentence: str
    ) -> None:
        backend = self.store.backend
        self.write_json(
            {
                "backend": backend.name,
                "examined": examined,
                "found": counts.total(),
                "kinds": {kind: counts[kind] for kind in _KINDS},
                "findings": [
                    dataclasses.asdict(each) | {"log_id": _log_id(each)} for each in shown
                ],
                "message": sentence,
            }
        )

    def _print_table(self, shown: list[Finding], counts: Counter[str]) -> None:
        table = Table("What", "ID", "In logs", "Why and where")
        for each in shown:
            why = Text.assemble(as_is(each.detail), "\n", as_is(each.where), overflow="fold")
            table.add_row(_KINDS[each.kind], as_is(each.id or "-"), _log_id(each) or "-", why)
        self.console.print(table)
        if counts.total() > len(shown):
            self.say(f"The first {len(shown):,} of {counts.total():,}; --limit shows more.")


def _log_id(finding: Finding) -> str | None:
    return hashed_id(finding.id) if finding.id else None


def _sentence(examined: int, counts: Counter[str]) -> str:
    looked_at = f"{format_count(examined, 'conversation')} looked at"
    if not counts:
        return f"Nothing is wrong; {looked_at}."
    found = ", ".join(f"{counts[kind]:,} {name}" for kind, name in _KINDS.items() if counts[kind])
    return f"Found {found}; {looked_at}."
