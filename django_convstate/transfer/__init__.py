"""Conversations on the move: to a file and back, from one store to another, out of an app's own
tables, and away for good.

All of it is sync, for commands and scripts. docs/transfer.md and docs/moving-in.md say how it is
used.
"""

from ..exceptions import InvalidExport
from .erasing import ErasureReport, Remainder, erase_owner
from .exporting import ExportReport, export_to
from .files import open_to_read, open_to_write
from .importing import ImportReport, OnConflict, import_from
from .migrating import MigrationReport, migrate
from .moving_in import bring_in

__all__ = [
    "ErasureReport",
    "ExportReport",
    "ImportReport",
    "InvalidExport",
    "MigrationReport",
    "OnConflict",
    "Remainder",
    "bring_in",
    "erase_owner",
    "export_to",
    "import_from",
    "migrate",
    "open_to_read",
    "open_to_write",
]
