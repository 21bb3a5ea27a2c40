"""Another name for `inspect_sessions`."""

from .inspect_sessions import Command as Command
