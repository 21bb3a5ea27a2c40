"""The same as export_sessions."""

from .export_sessions import Command as Command
