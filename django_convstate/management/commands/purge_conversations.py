"""Another name for `purge_sessions`."""

from .purge_sessions import Command as Command
