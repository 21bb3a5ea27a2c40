"""Another name for `check_sessions`."""

from .check_sessions import Command as Command
