"""The same as import_sessions."""

from .import_sessions import Command as Command
