"""Conversations on the move: to a file and back, from one store to another, out of an app's own
tables, and away for good.

All of it is sync, for commands and scripts. docs/transfer.md and docs/moving-in.md say how it is
used.
"""

from .exporting import ExportReport, export_to
from .files import open_to_read, open_to_write
from .importing import ImportReport, import_from

__all__ = [
    "ExportReport",
    "ImportReport",
    "export_to",
    "import_from",
    "open_to_read",
    "open_to_write",
]
