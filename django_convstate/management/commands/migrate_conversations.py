"""The same as migrate_sessions."""

from .migrate_sessions import Command as Command
